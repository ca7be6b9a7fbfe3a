//! What is said of a run that may miss its RTO: by how much, what it waits for, and what would meet it.
//!
//! Invariant: nothing is advised that the stage which limits the run would not feel.

use crate::cli::figures;
use crate::tuning::Limit;
use std::fmt;
use std::time::Duration;

/// Where nothing limits how long the rest may take, it counts as so many times what is expected: a run near its end, or one
/// that has an hour left of a day, is not at risk because little is known of it.
const UNLIMITED_TIMES: u32 = 10;

/// How a run stands against its RTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risk {
    /// It will meet it.
    None,
    /// It will meet it at its mean speed, and may not at the slower end of its band.
    May,
    /// It will miss it at its mean speed.
    Will,
    /// It has missed it.
    Has,
}

/// A run beside its RTO. All times are counted from the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Late {
    pub(crate) since_loss: Duration,
    /// The end at the mean speed; as far as is known, where nothing tells the rows ahead.
    pub(crate) end: Duration,
    /// The band of the end.
    pub(crate) band: Option<(Duration, Duration)>,
    pub(crate) rto: Duration,
    /// What lanes wait for most, and its share of their time.
    pub(crate) limit: Limit,
    pub(crate) share: f64,
    /// Lanes at work; 0 where nobody counts them.
    pub(crate) lanes: u64,
}

impl Late {
    /// Returns it where there is a risk.
    pub(crate) fn if_any(self) -> Option<Self> {
        (self.risk() > Risk::None).then_some(self)
    }

    /// How it stands.
    pub(crate) fn risk(&self) -> Risk {
        if self.since_loss > self.rto {
            Risk::Has
        } else if self.end > self.rto {
            Risk::Will
        } else if self.slowest() > self.rto {
            Risk::May
        } else {
            Risk::None
        }
    }

    /// The end at the slower end of the band.
    fn slowest(&self) -> Duration {
        match self.band {
            None => self.end,
            Some((_, Duration::MAX)) => {
                let rest = self.end.saturating_sub(self.since_loss);
                self.since_loss.saturating_add(rest.saturating_mul(UNLIMITED_TIMES))
            }
            Some((_, most)) => most,
        }
    }

    /// How many times as fast the rest has to be.
    fn factor(&self) -> f64 {
        let wanted = if self.risk() == Risk::May { self.slowest() } else { self.end };
        let left = self.rto.saturating_sub(self.since_loss).as_secs_f64();
        wanted.saturating_sub(self.since_loss).as_secs_f64() / left.max(1.0)
    }

    fn advice(&self) -> String {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive; casts saturate"
        )]
        let times = |count: u64| (count as f64 * self.factor()).ceil() as u64;
        match self.limit {
            Limit::Source if self.lanes > 0 => {
                let lanes = times(self.lanes).max(self.lanes + 1);
                format!(
                    "{} would meet it where the source can serve them: interrupt it, and run the same command with --lanes {lanes}",
                    figures::things(lanes - self.lanes, "more lane")
                )
            }
            Limit::Cpu => {
                let cores =
                    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
                format!(
                    "a machine with {} would meet it",
                    figures::things(times(cores).max(cores + 1), "core")
                )
            }
            Limit::Target | Limit::Network => format!(
                "more lanes do not help: a target {:.1} times as fast would meet it, or fewer routes (--route)",
                self.factor().max(1.0)
            ),
            Limit::Limits => {
                "raise or drop the limits it was given, or make room in the target".to_owned()
            }
            Limit::Source | Limit::None => "more --lanes may help".to_owned(),
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rto = figures::clock(self.rto);
        let verb = match self.risk() {
            Risk::Has => {
                let since = figures::clock(self.since_loss);
                return write!(out, "warning: the RTO has passed: RTO {since} of {rto}");
            }
            Risk::May => "may end",
            _ => "ends",
        };
        let band = match self.band {
            Some((least, Duration::MAX)) => format!(" ({} or more)", figures::clock(least)),
            Some((least, most)) => {
                format!(" ({} to {})", figures::clock(least), figures::clock(most))
            }
            None => String::new(),
        };
        write!(
            out,
            "warning: at this rate the run {verb} {}{band} after the loss, and the RTO is {rto}",
            figures::clock(self.end)
        )?;
        if self.limit != Limit::None {
            write!(out, "; it waits for: {} {:.0} %", self.limit.word(), self.share * 100.0)?;
        }
        write!(out, "; {}", self.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn late(end: u32, band: Option<(u32, u32)>, limit: Limit) -> Late {
        let band = band.map(|(least, most)| (HOUR * least, HOUR * most));
        Late {
            since_loss: HOUR * 4,
            end: HOUR * end,
            band,
            rto: HOUR * 24,
            limit,
            share: 0.71,
            lanes: 4,
        }
    }

    #[test]
    fn the_risk_rises_with_the_band_the_mean_and_the_clock() {
        assert_eq!(late(20, None, Limit::Source).if_any(), None);
        assert_eq!(late(20, Some((19, 23)), Limit::Source).risk(), Risk::None);
        assert_eq!(late(20, Some((19, 25)), Limit::Source).risk(), Risk::May);
        assert_eq!(late(26, Some((19, 30)), Limit::Source).risk(), Risk::Will);
        let passed = Late { since_loss: HOUR * 25, ..late(26, None, Limit::Source) };
        assert_eq!(passed.to_string(), "warning: the RTO has passed: RTO 25:00:00 of 24:00:00");
        assert!(Risk::None < Risk::May && Risk::May < Risk::Will && Risk::Will < Risk::Has);
    }

    #[test]
    fn the_stage_that_limits_it_decides_what_is_advised() {
        // 40 hours of work in the 20 that are left: twice as fast.
        let text = late(44, Some((40, 50)), Limit::Source).to_string();
        assert_eq!(
            text,
            "warning: at this rate the run ends 44:00:00 (40:00:00 to 50:00:00) after the loss, and the RTO is 24:00:00; \
             it waits for: source 71 %; 4 more lanes would meet it where the source can serve them: interrupt it, and run \
             the same command with --lanes 8"
        );
        let advice = |limit| late(44, None, limit).to_string();
        assert!(
            advice(Limit::Target)
                .ends_with("a target 2.0 times as fast would meet it, or fewer routes (--route)")
        );
        let cores = 2 * std::thread::available_parallelism().unwrap().get();
        assert!(
            advice(Limit::Cpu).ends_with(&format!("a machine with {cores} cores would meet it"))
        );
        assert!(advice(Limit::Limits).contains("raise or drop the limits"));
        assert!(advice(Limit::None).ends_with("24:00:00; more --lanes may help"));
        // Nobody counts lanes, so none can be added up.
        let uncounted = Late { lanes: 0, ..late(44, None, Limit::Source) };
        assert!(uncounted.to_string().ends_with("more --lanes may help"));
        // A risk at the slower end is met by what the slower end needs.
        let may = late(23, Some((20, 34)), Limit::Source).to_string();
        assert!(may.contains("the run may end 23:00:00 (20:00:00 to 34:00:00)"), "{may}");
        assert!(may.ends_with("--lanes 6"), "{may}");
    }

    #[test]
    fn a_band_without_a_limit_is_a_risk_only_where_ten_times_the_rest_would_be_late() {
        let unlimited = |since: Duration, end: Duration| Late {
            since_loss: since,
            end,
            band: Some((end, Duration::MAX)),
            ..late(5, None, Limit::Target)
        };
        let second = Duration::from_secs(1);
        assert_eq!(unlimited(second * 31, second * 32).risk(), Risk::None);
        assert_eq!(unlimited(HOUR * 4, HOUR * 5).risk(), Risk::None);
        let late = unlimited(HOUR * 4, HOUR * 7);
        assert_eq!(late.risk(), Risk::May);
        let text = late.to_string();
        assert!(text.contains("or more)") && text.contains("a target 1.5 times as fast"), "{text}");
    }
}
