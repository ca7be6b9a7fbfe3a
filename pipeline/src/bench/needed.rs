//! What would meet an RTO: lanes, Redis nodes and machines, by what measured runs waited for.
//!
//! Invariant: a number of lanes is one that was measured; a number of nodes or machines is an extrapolation, is called one
//! together with what it assumes, and is told only where runs waited for what there would be more of.

mod lanes;
#[cfg(test)]
mod tests;

pub use lanes::LaneTime;

use super::quotas::{self, Quota};
use super::report::Sample;
use super::tables::RESTORE;
use super::{COMMAND, System};
use crate::cli::figures::{clock_of_seconds, things};
use crate::plan::{Predicted, WHOLE};
use serde::{Deserialize, Serialize};

/// What one recovery needs to meet its RTO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Needed {
    /// The system that is recovered: `redis` or `bigquery`.
    pub system: String,
    /// The objective, in seconds.
    pub rto_seconds: u64,
    /// What is held against it: the slower end of the predicted interval, the expected time where there is none, or the
    /// time that a limit of others leaves no less of, whatever is longest.
    pub seconds: f64,
    /// The objective less that; negative where it is missed.
    pub margin_seconds: f64,
    /// Whether it lies within the objective.
    pub is_met: bool,
    /// What the largest measured run waited for most, as the summary of a run names it.
    pub bottleneck: String,
    /// That wait's share of all, from 0 to 1; absent where it was not measured.
    pub bottleneck_share: Option<f64>,
    /// The fewest lanes of those measured that meet the objective; absent where none do, or none were measured.
    pub lanes: Option<usize>,
    /// The time with other numbers of lanes, as far as they were measured, by number.
    pub lanes_measured: Vec<LaneTime>,
    /// Redis nodes that would meet it; absent where more of them would not help, by what was waited for.
    pub redis_nodes: Option<u64>,
    /// Machines like this one that would meet it; absent where more of them would not help.
    pub machines: Option<u64>,
    /// Microseconds of the main thread of Redis for a row, where that was what was waited for.
    pub redis_us_per_row: Option<f64>,
    /// All of it in words, with reasons and assumptions: first what would meet it.
    pub told: Vec<String>,
}

/// A predicted time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Time {
    /// The slower end of the interval; the expected time where there is none.
    pub(crate) held: f64,
    /// The part that does not grow with rows, so that sharing rows out does not shorten it.
    pub(crate) start: f64,
    /// The objective.
    pub(crate) rto_seconds: u64,
}

impl Time {
    /// The time of one predicted run.
    pub(crate) fn of(predicted: &Predicted, rto_seconds: u64) -> Self {
        let held = predicted.most_seconds.unwrap_or(predicted.seconds);
        Self { held, start: predicted.start_seconds, rto_seconds }
    }

    /// That of several, one after the other.
    pub(crate) fn of_all(predicted: &[&Predicted], rto_seconds: u64) -> Self {
        let all = || predicted.iter().map(|one| Self::of(one, rto_seconds));
        let (held, start) =
            all().fold((0.0, 0.0), |(held, start), one| (held + one.held, start + one.start));
        Self { held, start, rto_seconds }
    }

    fn rto(self) -> f64 {
        self.rto_seconds as f64
    }

    /// `ceil((time - start) / (RTO - start))`: among how many the rows have to be shared out. `None` where the start alone
    /// takes longer than the objective.
    fn shares(self) -> Option<u64> {
        let room = self.rto() - self.start;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts saturate"
        )]
        (room > 0.0).then(|| ((self.held - self.start) / room).ceil().max(1.0) as u64)
    }
}

/// Measured runs: those that the time was fitted to, and those of the benches that have measured other lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured<'a> {
    pub(crate) fitted: &'a [Sample],
    pub(crate) benched: &'a [Sample],
}

/// What there would have to be more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    RedisNodes,
    Machines,
    /// Neither of these is what was waited for.
    Other,
}

/// Who is waited for: Redis is the target of a rebuild and the source of a restore.
fn more(system: System, bottleneck: &str) -> More {
    match (system, bottleneck) {
        (System::Redis, "target") | (System::Bigquery, "source") => More::RedisNodes,
        (_, "cpu" | "network") => More::Machines,
        _ => More::Other,
    }
}

/// What samples of whole recoveries are called.
fn whole(system: System) -> &'static str {
    match system {
        System::Redis => WHOLE,
        System::Bigquery => RESTORE,
    }
}

impl Needed {
    /// Finds what a recovery of that time needs. `limits` are those of others that it would meet.
    pub(crate) fn of(system: System, time: Time, runs: Measured<'_>, limits: &[Quota]) -> Self {
        let is_whole = |sample: &&Sample| sample.kind == whole(system);
        let largest = runs.fitted.iter().filter(is_whole).max_by_key(|sample| sample.rows);
        let of_others = quotas::least_seconds_of_others(limits);
        let time = Time { held: time.held.max(of_others), ..time };
        let mut found = Found {
            system,
            time,
            blocked: of_others > time.rto(),
            bottleneck: largest.map_or_else(|| "none".to_owned(), |sample| sample.limit.clone()),
            share: largest.and_then(|sample| sample.limit_share),
            us_per_row: None,
            lanes: lanes::measured(runs.benched, whole(system), time.held),
            is_link: false,
        };
        let of_link = quotas::least_seconds_of_link(limits);
        if of_link > found.time.held {
            // The link leaves no less time, whatever a smaller measured run has waited for, and more lanes share it.
            found.time = Time { held: of_link, start: 0.0, ..time };
            "network".clone_into(&mut found.bottleneck);
            found.share = None;
            found.lanes.clear();
            found.is_link = true;
        }
        if more(system, &found.bottleneck) == More::RedisNodes {
            found.us_per_row = largest.map(|of| 1e6 / of.rows_per_second.max(f64::MIN_POSITIVE));
        }
        found.needed()
    }

    /// What is told beside an advice that may have been the first of it.
    pub(crate) fn beside(&self, advice: &str) -> impl Iterator<Item = &String> {
        self.told.iter().filter(move |told| *told != advice)
    }
}

/// What is known before it is said.
struct Found {
    system: System,
    time: Time,
    /// Whether a limit of others alone takes longer than the objective.
    blocked: bool,
    bottleneck: String,
    share: Option<f64>,
    us_per_row: Option<f64>,
    lanes: Vec<LaneTime>,
    /// Whether it is the link of this machine that leaves no less time.
    is_link: bool,
}

impl Found {
    fn is_met(&self) -> bool {
        self.time.held <= self.time.rto() && !self.blocked
    }

    /// So many of what was waited for; `None` where that is something else, or where no number would do.
    fn count(&self, of: More) -> Option<u64> {
        if self.is_met() {
            return Some(1);
        }
        let helps = !self.blocked && more(self.system, &self.bottleneck) == of;
        self.time.shares().filter(|_| helps)
    }

    fn fewest_lanes(&self) -> Option<usize> {
        let meets = |of: &&LaneTime| of.seconds <= self.time.rto() && !self.blocked;
        self.lanes.iter().filter(meets).map(|of| of.lanes).min()
    }

    fn needed(self) -> Needed {
        Needed {
            system: self.system.word().to_owned(),
            rto_seconds: self.time.rto_seconds,
            seconds: self.time.held,
            margin_seconds: self.time.rto() - self.time.held,
            is_met: self.is_met(),
            bottleneck_share: self.share,
            lanes: self.fewest_lanes(),
            redis_nodes: self.count(More::RedisNodes),
            machines: self.count(More::Machines),
            redis_us_per_row: self.us_per_row,
            told: self.told(),
            bottleneck: self.bottleneck,
            lanes_measured: self.lanes,
        }
    }

    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.is_met() {
            told.push(self.margin());
        } else if self.blocked {
            told.push("no number of lanes, Redis nodes or machines would meet it before the limit that binds is raised: ask Google for more of it".to_owned());
            return told;
        } else {
            told.extend([self.headline(), self.reason()]);
            told.extend(self.assumption());
        }
        if !self.is_link {
            told.push(format!("lanes: {}", self.of_lanes()));
        }
        told
    }

    fn margin(&self) -> String {
        let margin = self.time.rto() - self.time.held;
        format!(
            "nothing more is needed: with {} at most it is met by a margin of {}, {:.0} % of it; the pace is limited by: {}",
            clock_of_seconds(self.time.held),
            clock_of_seconds(margin),
            margin / self.time.rto().max(1.0) * 100.0,
            self.waited_for()
        )
    }

    /// Writes what was waited for most: `target 61 %`.
    fn waited_for(&self) -> String {
        let share = self.share.map(|share| format!(" {:.0} %", share * 100.0));
        format!("{}{}", self.bottleneck, share.unwrap_or_default())
    }

    fn times(&self) -> f64 {
        self.time.held / self.time.rto().max(1.0)
    }

    fn headline(&self) -> String {
        let mut ways = Vec::new();
        ways.extend(self.fewest_lanes().map(|lanes| format!("--lanes {lanes} (as measured)")));
        ways.extend(self.count(More::RedisNodes).map(|nodes| things(nodes, "Redis node")));
        ways.extend(self.count(More::Machines).map(|machines| {
            let here = std::thread::available_parallelism().map_or(1, usize::from) as u64;
            let cores = things(here * machines, "core");
            match self.bottleneck.as_str() {
                "cpu" => {
                    format!("{} like this one, or one of {cores}", things(machines, "machine"))
                }
                _ => format!("{} like this one", things(machines, "machine")),
            }
        }));
        if ways.is_empty() {
            let times = self.times();
            return match self.bottleneck.as_str() {
                "source" | "target" | "cpu" | "network" if self.time.shares().is_none() => format!(
                    "what does not grow with rows takes {}, so sharing rows out does not meet it",
                    clock_of_seconds(self.time.start)
                ),
                "limits" => {
                    "nothing but higher limits: those that were asked for held it back".to_owned()
                }
                "none" => format!(
                    "it would have to be {times:.1} times as fast, and no run has told what it waited for"
                ),
                other => format!(
                    "neither more Redis nodes nor more machines would meet it: the {other}, {}, would have to be {times:.1} times as fast",
                    self.other_end()
                ),
            };
        }
        format!("{} would meet it", ways.join(", or "))
    }

    /// The system that is waited for, where it is not Redis.
    fn other_end(&self) -> &'static str {
        match self.system {
            System::Redis => "AlloyDB or BigQuery",
            System::Bigquery => "BigQuery",
        }
    }

    fn reason(&self) -> String {
        let of_row = self.us_per_row.map(|us| {
            format!("; a row takes {us:.2} us of the main thread of Redis, as every row passes it")
        });
        format!(
            "because: {} at most is {:.1} times the RTO, and what was waited for most is: {}{}",
            clock_of_seconds(self.time.held),
            self.times(),
            self.waited_for(),
            of_row.unwrap_or_default()
        )
    }

    /// What an extrapolated number takes for granted; `None` where none is told.
    fn assumption(&self) -> Option<String> {
        let (nodes, machines) = (self.count(More::RedisNodes), self.count(More::Machines));
        let assumed = match (nodes, machines, self.system) {
            (Some(_), _, System::Redis) => {
                "if keys spread evenly over the nodes (routes shared out by --route), source and this machine permitting; files for empty servers (--to-rdb) are another way"
            }
            (Some(_), _, System::Bigquery) => {
                "if the duplicate spreads evenly over the nodes (a plan for each), BigQuery and this machine permitting"
            }
            (None, Some(_), System::Redis) => {
                "if routes are shared out evenly by --route, source and Redis permitting"
            }
            (None, Some(_), System::Bigquery) => {
                "if routes are shared out evenly by --route, BigQuery and Redis permitting"
            }
            (None, None, _) => return None,
        };
        Some(format!("an extrapolation: {assumed}"))
    }

    /// What is known of other numbers of lanes.
    fn of_lanes(&self) -> String {
        let best = self.lanes.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let (Some(best), Some(most)) = (best, self.lanes.last()) else {
            let system = if self.system == System::Redis { "" } else { " bigquery" };
            return format!(
                "no other number of them was measured: rekindle {COMMAND}{system} --try-lanes 1,2,4,8"
            );
        };
        let numbers: Vec<String> = self.lanes.iter().map(|of| of.lanes.to_string()).collect();
        let numbers = numbers.join(", ");
        let fewest = self.fewest_lanes();
        if let Some(of) = self.lanes.iter().find(|of| Some(of.lanes) == fewest) {
            let time = clock_of_seconds(of.seconds);
            return format!(
                "of those measured ({numbers}), {} are the fewest that meet it, in {time}",
                of.lanes
            );
        }
        let beyond = if best.lanes == most.lanes {
            format!("more than {} lie beyond what was measured", most.lanes)
        } else {
            "more of them were not faster".to_owned()
        };
        format!(
            "none of those measured ({numbers}) would meet it, the fastest being {} in {}; {beyond}",
            best.lanes,
            clock_of_seconds(best.seconds)
        )
    }
}
