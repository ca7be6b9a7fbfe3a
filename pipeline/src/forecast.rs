//! How long a run still takes, judged by its own speed so far, with a band of 95 %.
//!
//! Invariant: pure; nothing is forecast from fewer than `WINDOWS_MIN` windows, and a run whose speed varies has a wider
//! band than one that is steady.

use crate::growth::Growth;
use std::time::Duration;

/// Length of a window at first; it doubles whenever there are too many.
const WIDTH: Duration = Duration::from_millis(500);
/// Windows that are kept at most.
const WINDOWS_MAX: usize = 64;
/// Fewer windows tell nothing.
const WINDOWS_MIN: usize = 4;
/// From so many windows on only the younger half counts, because the speed of a run changes with its tables.
const WINDOWS_SETTLED: usize = 16;
/// Neighbouring windows are alike, so the variation is taken between at most so many groups of them.
const GROUPS: usize = 10;

/// What one process carried, in windows of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    width: Duration,
    windows: Vec<Window>,
    /// The last end of a window: time since the start of the process, and rows until then.
    mark: Option<(Duration, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Window {
    seconds: f64,
    rows: f64,
}

/// Time left, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rest {
    /// What is to be expected.
    pub seconds: f64,
    /// With 95 % probability not less.
    pub least: f64,
    /// With 95 % probability not more; `None` where nothing limits it.
    pub most: Option<f64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { width: WIDTH, windows: Vec::new(), mark: None }
    }
}

impl Pace {
    /// Takes what was carried until now. The clock starts with the first row: connecting and preparing are no speed.
    pub fn observe(&mut self, elapsed: Duration, rows: u64) {
        let Some((at, before)) = self.mark else {
            self.mark = (rows > 0).then_some((elapsed, rows));
            return;
        };
        let since = elapsed.saturating_sub(at);
        if since < self.width {
            return;
        }
        let carried = rows.saturating_sub(before) as f64;
        self.windows.push(Window { seconds: since.as_secs_f64(), rows: carried });
        self.mark = Some((elapsed, rows));
        if self.windows.len() >= WINDOWS_MAX {
            self.windows = joined(&self.windows, 2);
            self.width *= 2;
        }
    }

    /// Rows per second of the windows that count; `None` before there are enough of them.
    pub fn speed(&self) -> Option<f64> {
        let all = total(self.counting()?);
        (all.rows > 0.0).then(|| all.rows / all.seconds)
    }

    /// Forecasts how long so many rows take, after so many that the target holds.
    ///
    /// The speed of the rest is the mean of the groups so far over the growth of what a row costs, give or take what a mean of
    /// as many groups as the rest has differs from another one: `t * s * sqrt(1/n + 1/m)`, the interval of Student for a mean
    /// yet to be seen, together with `1.96` deviations of the growth. Less than a group counts as one: how much the speed of
    /// an instant varies says little of how long the last rows take.
    pub fn rest(&self, rows_left: u64, rows_held: u64, growth: Growth) -> Option<Rest> {
        let windows = self.counting()?;
        let seen = self.speed()?;
        let (held, left) = (rows_held as f64, rows_left as f64);
        let (known, ahead) = (((held - total(windows).rows).max(0.0), held), (held, held + left));
        let slower = growth.factor(known, ahead);
        let speed = seen / slower;
        let groups = joined(windows, windows.len().div_ceil(GROUPS));
        let n = groups.len() as f64;
        let squares = groups.iter().map(|group| (group.rows / group.seconds - seen).powi(2));
        let deviation = (squares.sum::<f64>() / (n - 1.0)).sqrt();
        let seconds = left / speed;
        let groups_left = (seconds / (total(&groups).seconds / n)).max(1.0);
        let of_groups =
            student_95(groups.len() - 1) * deviation / seen * (1.0 / n + 1.0 / groups_left).sqrt();
        // All of it as shares of the speed.
        let spread = of_groups.hypot(1.96 * growth.deviation(known, ahead) / slower);
        let most = (spread < 1.0).then(|| seconds / (1.0 - spread));
        Some(Rest { seconds, least: seconds / (1.0 + spread), most })
    }

    fn counting(&self) -> Option<&[Window]> {
        let count = self.windows.len();
        let from = if count >= WINDOWS_SETTLED { count / 2 } else { 0 };
        (count >= WINDOWS_MIN).then(|| &self.windows[from..])
    }
}

/// Joins every `each` neighbours to one window.
fn joined(windows: &[Window], each: usize) -> Vec<Window> {
    windows.chunks(each.max(1)).map(total).collect()
}

fn total(windows: &[Window]) -> Window {
    windows.iter().fold(Window::default(), |sum, window| Window {
        seconds: sum.seconds + window.seconds,
        rows: sum.rows + window.rows,
    })
}

/// Quantile of Student's distribution that leaves 2.5 % above it, rounded up between the degrees of freedom listed.
pub fn student_95(freedom: usize) -> f64 {
    const TABLE: [(usize, f64); 16] = [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (12, 2.179),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (60, 2.000),
        (120, 1.980),
    ];
    let found = TABLE.iter().rev().find(|(listed, _)| *listed <= freedom);
    found.map_or(f64::INFINITY, |(_, quantile)| *quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that carries `rows(i)` rows in its `i`-th half second.
    fn run(looks: u64, rows: impl Fn(u64) -> u64) -> Pace {
        let mut pace = Pace::default();
        let mut carried = 0;
        for look in 0..looks {
            // Ten seconds pass before the first row.
            carried += rows(look);
            pace.observe(Duration::from_secs(10) + WIDTH * u32::try_from(look).unwrap(), carried);
        }
        pace
    }

    #[test]
    fn a_steady_run_is_forecast_without_its_start_and_with_a_narrow_band() {
        let pace = run(40, |_| 50_000);
        assert!((pace.speed().unwrap() - 100_000.0).abs() < 1e-6);
        let rest = pace.rest(1_000_000, 0, Growth::NONE).unwrap();
        assert!((rest.seconds - 10.0).abs() < 1e-9, "{rest:?}");
        assert!(rest.least > 9.999 && rest.most.unwrap() < 10.001, "{rest:?}");
    }

    #[test]
    fn little_is_known_at_first() {
        let none = run(4, |_| 50_000);
        assert_eq!((none.speed(), none.rest(1, 0, Growth::NONE)), (None, None));
        assert_eq!(run(1_000, |_| 0).rest(1, 0, Growth::NONE), None);
        // With three degrees of freedom the band is wide.
        let few = run(5, |look| if look % 2 == 0 { 40_000 } else { 60_000 });
        let many = run(41, |look| if look % 2 == 0 { 40_000 } else { 60_000 });
        let width = |pace: &Pace| {
            let rest = pace.rest(10_000_000, 0, Growth::NONE).unwrap();
            (rest.most.unwrap_or(f64::INFINITY) - rest.least) / rest.seconds
        };
        assert!(width(&few) > 2.0 * width(&many), "{} {}", width(&few), width(&many));
    }

    #[test]
    fn a_run_that_got_slower_is_judged_by_its_younger_half() {
        let pace = run(61, |look| if look < 30 { 100_000 } else { 10_000 });
        let rest = pace.rest(200_000, 0, Growth::NONE).unwrap();
        assert!((rest.seconds - 10.0).abs() < 0.7, "{rest:?}");
    }

    #[test]
    fn a_rest_that_costs_more_takes_longer_and_is_less_sure() {
        let pace = run(40, |_| 25_000);
        let held = 2_000_000;
        let plain = pace.rest(8_000_000, held, Growth::NONE).unwrap();
        let grown = pace.rest(8_000_000, held, Growth::OF_REDIS).unwrap();
        assert!((plain.seconds - 160.0).abs() < 1e-6, "{plain:?}");
        assert!((1.06..1.15).contains(&(grown.seconds / plain.seconds)), "{grown:?}");
        assert!(grown.least < plain.seconds * 1.02 && grown.most > Some(grown.seconds * 1.05));
        // Beyond ten million rows nothing is known to grow.
        let beyond = pace.rest(8_000_000, 30_000_000, Growth::OF_REDIS).unwrap();
        assert!((beyond.seconds - 160.0).abs() < 1e-6, "{beyond:?}");
    }

    #[test]
    fn memory_stays_the_same_however_long_it_runs() {
        let pace = run(100_000, |look| 50_000 + look % 7);
        assert!(pace.windows.len() < WINDOWS_MAX);
        assert!((pace.speed().unwrap() - 100_006.0).abs() < 1.0);
    }

    #[test]
    fn the_band_holds_the_truth_as_often_as_it_says() {
        // Speeds drawn anew for every second, by a congruential generator.
        let mut state = 7_u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            30_000 + (state >> 33) % 40_000
        };
        let mut held = 0;
        for _ in 0..400 {
            let rows: Vec<u64> = (0..100).map(|_| draw()).collect();
            let pace = run(21, |look| rows[usize::try_from(look).unwrap()]);
            let rest = pace.rest(rows[21..].iter().sum(), 0, Growth::NONE).unwrap();
            let truth = (rows.len() - 21) as f64 * WIDTH.as_secs_f64();
            held += u32::from(rest.least <= truth && rest.most.is_none_or(|most| truth <= most));
        }
        assert!((360..=396).contains(&held), "{held} of 400");
    }

    #[test]
    fn the_last_rows_have_a_band_with_an_end() {
        let pace = run(41, |look| if look % 3 == 0 { 45_000 } else { 55_000 });
        let rest = pace.rest(100, 0, Growth::NONE).unwrap();
        assert!(rest.most.is_some_and(|most| most < 2.0 * rest.seconds), "{rest:?}");
    }

    #[test]
    fn quantiles_fall_with_the_degrees_of_freedom() {
        for (freedom, expected) in
            [(0, f64::INFINITY), (1, 12.706), (3, 3.182), (11, 2.228), (1_000, 1.980)]
        {
            assert_eq!(
                student_95(freedom).total_cmp(&expected),
                std::cmp::Ordering::Equal,
                "{freedom}"
            );
        }
    }
}
