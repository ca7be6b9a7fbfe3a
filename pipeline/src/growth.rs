//! How what a row costs grows with the rows that a target already holds.
//!
//! Invariant: pure; no factor is below one, and none grows beyond the sizes that were measured.

/// The cost of a row as a power of the rows before it: `cost(rows) ~ rows^exponent`, up to `until` rows.
///
/// Redis keeps its keys in a hash table, and the more keys there are, the fewer of the places that an insert touches are in
/// the caches of the processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    exponent: f64,
    deviation: f64,
    until: f64,
}

impl Growth {
    /// A row costs what the one before it did.
    pub const NONE: Self = Self { exponent: 0.0, deviation: 0.0, until: 1.0 };

    /// Keys of Redis: ten times as many cost a fifth more each.
    ///
    /// Measured with hashes of six fields in Redis 7.0, rebuilds of 5 and of 10 million beside benches of up to one million
    /// and beside rebuilds of one million: exponents of 0.05 to 0.16. Forecasts of those rebuilds, replayed, were off least often
    /// with 0.08. No more than 10 million were measured.
    pub const OF_REDIS: Self = Self { exponent: 0.08, deviation: 0.04, until: 1e7 };

    /// Mean cost of the rows from `from` to `to`, where the very first would cost 1.
    fn mean(self, from: f64, to: f64) -> f64 {
        let whole = |rows: f64| {
            let power = 1.0 + self.exponent;
            let growing = rows.min(self.until).max(0.0);
            growing.powf(power) / power + (rows - growing).max(0.0) * self.until.powf(self.exponent)
        };
        if to - from < 1.0 {
            return to.clamp(1.0, self.until.max(1.0)).powf(self.exponent);
        }
        (whole(to) - whole(from)) / (to - from)
    }

    /// How many times as much the rows of `ahead` cost each as those of `known`, both from one number of rows to another.
    pub fn factor(self, known: (f64, f64), ahead: (f64, f64)) -> f64 {
        (self.mean(ahead.0, ahead.1) / self.mean(known.0, known.1)).max(1.0)
    }

    /// The standard deviation of that factor: how far from each other the exponents lie that were found.
    pub fn deviation(self, known: (f64, f64), ahead: (f64, f64)) -> f64 {
        let factor = self.factor(known, ahead);
        if self.exponent > 0.0 {
            factor * factor.ln() * self.deviation / self.exponent
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: f64 = 1e6;

    #[test]
    fn ten_times_the_keys_cost_a_fifth_more_each() {
        let whole = |rows: f64| (0.0, rows);
        let factor = Growth::OF_REDIS.factor(whole(M), whole(10.0 * M));
        assert!((factor - 10_f64.powf(0.08)).abs() < 1e-9, "{factor}");
        let deviation = Growth::OF_REDIS.deviation(whole(M), whole(10.0 * M));
        assert!((deviation - factor * 10_f64.ln() * 0.04).abs() < 1e-9, "{deviation}");
    }

    #[test]
    fn nothing_grows_beyond_what_was_measured_or_where_nothing_was() {
        let factor = |ahead| Growth::OF_REDIS.factor((10.0 * M, 20.0 * M), ahead);
        assert!((factor((20.0 * M, 1e9)) - 1.0).abs() < 1e-9);
        // What is behind costs less, and is still not taken for a gain.
        assert!((factor((0.0, M)) - 1.0).abs() < f64::EPSILON);
        for (from, to) in [(0.0, M), (M, 9.0 * M), (5.0 * M, 5.0 * M)] {
            assert!((Growth::NONE.factor((0.0, 1.0), (from, to)) - 1.0).abs() < f64::EPSILON);
            assert!(Growth::NONE.deviation((0.0, 1.0), (from, to)).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn the_rest_of_a_run_costs_more_than_its_middle_and_an_instant_has_a_cost() {
        let factor = Growth::OF_REDIS.factor((M, 2.0 * M), (2.0 * M, 10.0 * M));
        assert!((1.05..1.2).contains(&factor), "{factor}");
        let last = Growth::OF_REDIS.factor((M, 2.0 * M), (2.0 * M, 2.0 * M));
        assert!((1.0..factor).contains(&last), "{last}");
    }
}
