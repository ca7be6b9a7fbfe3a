//! One reading of the live counters, and what can be told from it: speed, time left with its band, the RTO clock.
//!
//! Invariant: pure; the speed is this process's own, and time left is unknown unless every row ahead is estimated.

use super::late::Late;
use crate::cli::figures;
use crate::forecast::{Pace, Rest};
use crate::progress::{Counters, PHASES, Phase};
use crate::tuning::bottleneck;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters at one instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// Time this process has worked on the run.
    pub(crate) elapsed: Duration,
    /// Time since the loss, or since the first start.
    pub(crate) since_loss: Duration,
    /// The recovery time objective.
    pub(crate) rto: Duration,
    /// Rows this process has carried.
    pub(crate) rows_now: u64,
    /// Time that the rows ahead take, where enough was seen to say so.
    pub(crate) rest: Option<Rest>,
    /// What lanes waited for until now, in microseconds: source, transform threads, target, limits.
    pub(crate) waits: [u64; 4],
    /// Lanes at work; 0 where nobody counts them.
    pub(crate) lanes: u64,
    /// Transactions of the journal, where known.
    pub(crate) commits: Option<u64>,
    /// One per route, in plan order.
    pub(crate) routes: Vec<RouteReading>,
}

/// The counters of one route at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteReading {
    /// The route.
    pub(crate) name: String,
    /// An index into [`PHASES`].
    pub(crate) phase: usize,
    /// Rows carried, earlier attempts included.
    pub(crate) rows: u64,
    /// Rows expected; `None` where nothing is known.
    pub(crate) rows_estimate: Option<u64>,
    /// Source bytes read by this process.
    pub(crate) bytes: u64,
    /// Partitions done.
    pub(crate) partitions_done: u64,
    /// Partitions cut.
    pub(crate) partitions: u64,
    /// Rows that could not be carried.
    pub(crate) rejects: u64,
}

impl Reading {
    /// Reads the counters, and lets the pace of the run see them.
    pub(crate) fn take(
        counters: &Counters,
        commits: Option<u64>,
        now_ms: i64,
        pace: &mut Pace,
    ) -> Self {
        let since_loss = u64::try_from(now_ms.saturating_sub(counters.lost_at_ms)).unwrap_or(0);
        let mut reading = Self {
            elapsed: counters.started.elapsed(),
            since_loss: Duration::from_millis(since_loss),
            rto: Duration::from_secs(counters.rto_seconds),
            rows_now: counters.rows_now(),
            rest: None,
            waits: counters.waits(),
            lanes: load(&counters.lanes),
            commits,
            routes: counters
                .routes
                .iter()
                .map(|route| RouteReading {
                    name: route.name.clone(),
                    phase: usize::try_from(load(&route.phase)).unwrap_or(0).min(PHASES.len() - 1),
                    rows: load(&route.rows),
                    rows_estimate: Some(load(&route.rows_estimate)).filter(|rows| *rows > 0),
                    bytes: load(&route.bytes),
                    partitions_done: load(&route.partitions_done),
                    // Catch-up reads are partitions that the first cut did not know.
                    partitions: load(&route.partitions).max(load(&route.partitions_done)),
                    rejects: load(&route.rejects),
                })
                .collect(),
        };
        pace.observe(reading.elapsed, reading.rows_now);
        let held = reading.routes.iter().map(|route| route.rows).sum();
        let left = reading.rows_left().filter(|rows| *rows > 0);
        reading.rest = left.and_then(|rows| pace.rest(rows, held, counters.growth));
        reading
    }

    /// Returns rows per second of this process.
    pub(crate) fn rows_per_second(&self) -> f64 {
        per(self.rows_now as f64, self.elapsed)
    }

    /// Returns source bytes per second of this process.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        per(self.routes.iter().map(|route| route.bytes).sum::<u64>() as f64, self.elapsed)
    }

    /// Rows of all routes still to be read; `None` when nothing tells.
    fn rows_left(&self) -> Option<u64> {
        self.routes.iter().map(RouteReading::rows_left).sum()
    }

    /// Returns how long the rows ahead take at the speed so far; `None` when that cannot be told.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let rows_left = self.rows_left()?;
        if rows_left == 0 {
            // Catching up and reading back are not counted in rows ahead.
            let is_done = self.routes.iter().all(|route| route.phase == Phase::Done as usize);
            return is_done.then_some(Duration::ZERO);
        }
        // Before there is a pace, the start counts as well.
        let speed = self.rows_per_second();
        let plain = (speed > 0.0).then(|| rows_left as f64 / speed);
        let seconds = self.rest.map(|rest| rest.seconds).or(plain)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Writes the time left, to the nearest second.
    fn told_left(&self) -> Option<String> {
        let rounded = |left: Duration| left.saturating_add(Duration::from_millis(500));
        self.time_left().map(rounded).map(figures::clock)
    }

    /// Returns whether the run will miss the RTO, or may, and what it waits for.
    pub(crate) fn late(&self) -> Option<Late> {
        let (limit, share) = bottleneck(self.waits, None);
        let so_far = self.since_loss.as_secs_f64();
        let at =
            |seconds: f64| Duration::try_from_secs_f64(so_far + seconds).unwrap_or(Duration::MAX);
        let left = self.time_left().unwrap_or_default().as_secs_f64();
        let band = self.rest.map(|rest| (at(rest.least), rest.most.map_or(Duration::MAX, at)));
        Late {
            since_loss: self.since_loss,
            end: at(left),
            band,
            rto: self.rto,
            limit,
            share,
            lanes: self.lanes,
        }
        .if_any()
    }

    /// Writes the RTO clock: `RTO 00:01:12 of 24:00:00`.
    pub(crate) fn rto_clock(&self) -> String {
        format!("RTO {} of {}", figures::clock(self.since_loss), figures::clock(self.rto))
    }

    /// Writes speed and time left of the whole run.
    pub(crate) fn speed(&self) -> String {
        let eta = self.told_left().unwrap_or_else(|| "unknown".to_owned());
        format!(
            "{} rows/s, {:.1} MB/s, eta {eta}{}",
            figures::per_second(self.rows_per_second()),
            self.bytes_per_second() / 1_000_000.0,
            self.band()
        )
    }

    /// Writes the band of the time left, where it is known and at least a second wide.
    fn band(&self) -> String {
        let Some(rest) = self.rest else { return String::new() };
        let Some(most) = rest.most else {
            return format!(" ({} or more)", figures::clock_of_seconds(rest.least));
        };
        if most - rest.least < 1.0 {
            return String::new();
        }
        format!(
            " ({} to {})",
            figures::clock_of_seconds(rest.least),
            figures::clock_of_seconds(most)
        )
    }

    /// Writes the line under the bars.
    pub(crate) fn bottom_line(&self) -> String {
        let end = match self.told_left() {
            Some(left) => format!("ends in about {left}{}", self.band()),
            None => "end unknown".to_owned(),
        };
        format!(
            "{} rows/s, {:.1} MB/s, {}, {end}",
            figures::per_second(self.rows_per_second()),
            self.bytes_per_second() / 1_000_000.0,
            self.rto_clock()
        )
    }

    /// Writes the regular line of the log: one route when one is at work, else all of them.
    pub(crate) fn line(&self) -> String {
        let mut active = self.routes.iter().filter(|route| route.is_active());
        let subject = match (active.next(), active.count()) {
            (Some(only), 0) => only.described(),
            (Some(_), others) => {
                format!(
                    "{} of {} {}",
                    others + 1,
                    figures::things(self.routes.len() as u64, "route"),
                    self.total().progress()
                )
            }
            (None, _) => self.total().described(),
        };
        let done: u64 = self.routes.iter().map(|route| route.partitions_done).sum();
        let cut: u64 = self.routes.iter().map(|route| route.partitions).sum();
        let mut line = format!(
            "{subject}, {}, {}, {}/{} partitions",
            self.speed(),
            self.rto_clock(),
            figures::count(done),
            figures::count(cut)
        );
        if let Some(commits) = self.commits {
            line = format!("{line}, {}", figures::things(commits, "commit"));
        }
        line
    }

    /// Writes the line of one route, for when its phase changed.
    pub(crate) fn line_of(&self, route: usize) -> String {
        let route = &self.routes[route];
        format!(
            "{}, {}/{} partitions, {}",
            route.described(),
            figures::count(route.partitions_done),
            figures::count(route.partitions),
            self.rto_clock()
        )
    }

    /// All routes as one; named after the least advanced phase that is under way.
    fn total(&self) -> RouteReading {
        let phase =
            self.routes.iter().filter(|route| route.is_active()).map(|route| route.phase).min();
        let all_done = self.routes.iter().all(|route| route.phase == Phase::Done as usize);
        let idle = if all_done { Phase::Done } else { Phase::Waiting } as usize;
        let sum = |figure: fn(&RouteReading) -> u64| self.routes.iter().map(figure).sum();
        RouteReading {
            name: "run".to_owned(),
            phase: phase.unwrap_or(idle),
            rows: sum(|route| route.rows),
            rows_estimate: self.routes.iter().map(|route| route.rows_estimate).sum(),
            bytes: sum(|route| route.bytes),
            partitions_done: sum(|route| route.partitions_done),
            partitions: sum(|route| route.partitions),
            rejects: sum(|route| route.rejects),
        }
    }
}

impl RouteReading {
    /// Writes `builds loading 340,112/1,000,000 rows 34 %`.
    pub(crate) fn described(&self) -> String {
        format!("{} {}", self.name, self.progress())
    }

    /// Writes `loading 340,112/1,000,000 rows 34 %`.
    pub(crate) fn progress(&self) -> String {
        let rows = figures::count(self.rows);
        let mut text = match self.rows_estimate {
            // An estimate that turned out too low says nothing any more.
            Some(estimate) if self.rows <= estimate && !self.is_loaded() => {
                format!(
                    "{} {rows}/{} rows {} %",
                    self.phase(),
                    figures::count(estimate),
                    self.rows * 100 / estimate
                )
            }
            _ => format!("{} {rows} rows", self.phase()),
        };
        if self.rejects > 0 {
            text = format!("{text}, {}", figures::things(self.rejects, "reject"));
        }
        text
    }

    /// Returns the word of its phase.
    pub(crate) fn phase(&self) -> &'static str {
        PHASES[self.phase]
    }

    fn is_active(&self) -> bool {
        self.phase != Phase::Waiting as usize && self.phase != Phase::Done as usize
    }

    /// Whether every row has been read at least once.
    pub(crate) fn is_loaded(&self) -> bool {
        let is_past =
            self.phase > Phase::Loading as usize && self.phase != Phase::Comparing as usize;
        is_past || (self.partitions > 0 && self.partitions_done >= self.partitions)
    }

    /// Rows still to be read; `None` when nothing tells.
    fn rows_left(&self) -> Option<u64> {
        if self.is_loaded() {
            return Some(0);
        }
        // Where more came than was estimated, the partitions left are taken to be as large as those done.
        self.rows_estimate?.checked_sub(self.rows).or_else(|| {
            let of_one = self.rows.checked_div(self.partitions_done)?;
            Some(of_one * (self.partitions - self.partitions_done))
        })
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn per(amount: f64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests;
