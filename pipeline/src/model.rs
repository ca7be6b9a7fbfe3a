//! What a run will take, from runs that were measured: `seconds = a + b * rows + c * bytes`.
//!
//! Invariant: a coefficient is never negative, a term that the runs cannot tell from another is left out, and what lies
//! beyond the measured sizes is marked as such. Errors are taken to be relative: a run of ten times the size varies ten
//! times as much.

use crate::forecast::student_95;
use crate::growth::Growth;

/// Terms of the model: the constant, rows, bytes.
const TERMS: usize = 3;
/// What is left of a term after the others were taken out of it has to be this share of it.
const INDEPENDENT: f64 = 1e-6;

/// One measured run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Rows it carried.
    pub rows: f64,
    /// Source bytes it read.
    pub bytes: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Seconds; seconds per row; seconds per byte. 0 where the runs do not tell.
    pub coefficients: [f64; TERMS],
    /// Root mean square of the relative errors, over the degrees of freedom; `None` where nothing is left to tell it.
    pub error: Option<f64>,
    /// Runs it was made of.
    pub runs: usize,
    /// Rows of the smallest and of the largest run.
    pub range: (f64, f64),
    /// Bytes of a row, over all runs.
    pub bytes_per_row: f64,
    growth: Growth,
    terms: Vec<usize>,
    covariance: Vec<Vec<f64>>,
}

/// What a run is expected to take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The expected time.
    pub seconds: f64,
    /// The interval that holds it with 95 % probability; `None` where the runs do not tell.
    pub interval: Option<(f64, f64)>,
    /// Whether runs of that size were measured.
    pub is_within: bool,
    /// How many times as much a row is taken to cost as in the largest measured run; 1 within what was measured.
    pub growth: f64,
}

fn terms_of(rows: f64, bytes: f64) -> [f64; TERMS] {
    [1.0, rows, bytes]
}

impl Model {
    /// Fits runs by least squares of the relative errors; `None` where there are none.
    pub fn fit(runs: &[Observation]) -> Option<Self> {
        let runs: Vec<&Observation> =
            runs.iter().filter(|run| run.seconds > 0.0 && run.rows > 0.0).collect();
        if runs.is_empty() {
            return None;
        }
        // Rows are what every run has, so they are the last to be left out.
        let mut terms = independent(&runs, &[1, 0, 2]);
        loop {
            let (solution, covariance) = solve(&runs, &terms)?;
            let worst = (0..terms.len()).min_by(|a, b| solution[*a].total_cmp(&solution[*b]))?;
            if solution[worst] < 0.0 && terms.len() > 1 {
                terms.remove(worst);
                continue;
            }
            return Some(Self::of(&runs, terms, &solution, covariance));
        }
    }

    fn of(
        runs: &[&Observation],
        terms: Vec<usize>,
        solution: &[f64],
        covariance: Vec<Vec<f64>>,
    ) -> Self {
        let mut coefficients = [0.0; TERMS];
        for (term, value) in terms.iter().zip(solution) {
            coefficients[*term] = *value;
        }
        let expected = |run: &Observation| product(&coefficients, &terms_of(run.rows, run.bytes));
        let squares: f64 = runs.iter().map(|run| (expected(run) / run.seconds - 1.0).powi(2)).sum();
        let freedom = runs.len().saturating_sub(terms.len());
        let rows = || runs.iter().map(|run| run.rows);
        let bytes: f64 = runs.iter().map(|run| run.bytes).sum();
        Self {
            coefficients,
            error: (freedom > 0).then(|| (squares / freedom as f64).sqrt()),
            runs: runs.len(),
            range: (rows().fold(f64::INFINITY, f64::min), rows().fold(0.0, f64::max)),
            bytes_per_row: bytes / rows().sum::<f64>(),
            growth: Growth::NONE,
            terms,
            covariance,
        }
    }

    /// The same where the target's cost of a row grows with the rows it holds.
    #[must_use]
    pub fn growing(self, growth: Growth) -> Self {
        Self { growth, ..self }
    }

    /// Predicts a run of rows that are as long as those that were measured.
    pub fn predict_rows(&self, rows: f64) -> Prediction {
        self.predict(rows, rows * self.bytes_per_row)
    }

    /// Seconds that one more row of so many bytes takes.
    pub fn seconds_per_row(&self, bytes: f64) -> f64 {
        let [_, of_row, of_byte] = self.coefficients;
        of_row + of_byte * bytes
    }

    /// Predicts a run: `a + (b * rows + c * bytes) * growth`, the last being 1 up to the largest measured run.
    ///
    /// The interval is that of a new observation, `t * sqrt(error^2 * (seconds^2 + x' C x))`, beyond what was measured
    /// together with what is not known of the growth: `1.96 * seconds * deviation`.
    pub fn predict(&self, rows: f64, bytes: f64) -> Prediction {
        let all = terms_of(rows, bytes);
        let linear = product(&self.coefficients, &all);
        let (known, ahead) = ((0.0, self.range.1), (0.0, rows));
        let (growth, unsure) = if rows > self.range.1 {
            (self.growth.factor(known, ahead), self.growth.deviation(known, ahead))
        } else {
            (1.0, 0.0)
        };
        let start = self.coefficients[0];
        let seconds = start + (linear - start) * growth;
        let x: Vec<f64> = self.terms.iter().map(|term| all[*term]).collect();
        let of_fit: f64 =
            self.covariance.iter().zip(&x).map(|(row, value)| value * product(row, &x)).sum();
        let freedom = self.runs - self.terms.len().min(self.runs);
        let interval = self.error.map(|error| {
            let of_runs = student_95(freedom) * error * growth * (linear.powi(2) + of_fit).sqrt();
            let half = of_runs.hypot(1.96 * (linear - start) * unsure);
            ((seconds - half).max(0.0), seconds + half)
        });
        let is_within = (self.range.0..=self.range.1).contains(&rows);
        Prediction { seconds, interval, is_within, growth }
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A term of every run, divided by the run's seconds: what makes errors relative.
fn column(runs: &[&Observation], term: usize) -> Vec<f64> {
    runs.iter().map(|run| terms_of(run.rows, run.bytes)[term] / run.seconds).collect()
}

/// Takes the terms, in their order, that are not made of those before them; never more than there are runs.
fn independent(runs: &[&Observation], order: &[usize]) -> Vec<usize> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut terms = Vec::new();
    for term in order {
        let whole = column(runs, *term);
        let length = product(&whole, &whole).sqrt();
        let mut rest = whole;
        for known in &basis {
            let share = product(known, &rest);
            rest.iter_mut().zip(known).for_each(|(value, of)| *value -= share * of);
        }
        let left = product(&rest, &rest).sqrt();
        if terms.len() < runs.len() && left > length * INDEPENDENT {
            basis.push(rest.iter().map(|value| value / left).collect());
            terms.push(*term);
        }
    }
    terms
}

/// Solves the normal equations; returns the solution and the inverse of their matrix.
fn solve(runs: &[&Observation], terms: &[usize]) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let columns: Vec<Vec<f64>> = terms.iter().map(|term| column(runs, *term)).collect();
    // Columns of one length: rows and bytes are many powers of ten apart.
    let lengths: Vec<f64> = columns.iter().map(|column| product(column, column).sqrt()).collect();
    let matrix: Vec<Vec<f64>> = columns
        .iter()
        .zip(&lengths)
        .map(|(a, la)| {
            columns.iter().zip(&lengths).map(|(b, lb)| product(a, b) / (la * lb)).collect()
        })
        .collect();
    let scaled = inverse(matrix)?;
    let unscaled = |i: usize, j: usize| scaled[i][j] / (lengths[i] * lengths[j]);
    let count = terms.len();
    let covariance: Vec<Vec<f64>> =
        (0..count).map(|i| (0..count).map(|j| unscaled(i, j)).collect()).collect();
    // Every run's target is 1: its seconds divided by themselves.
    let right: Vec<f64> = columns.iter().map(|column| column.iter().sum()).collect();
    let solution = covariance.iter().map(|row| product(row, &right)).collect();
    Some((solution, covariance))
}

/// Inverts a small symmetric matrix by Gauss and Jordan, with pivots.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let size = matrix.len();
    for (index, row) in matrix.iter_mut().enumerate() {
        row.extend((0..size).map(|other| f64::from(u8::from(index == other))));
    }
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        let value = matrix[column][column];
        if value.abs() < f64::EPSILON {
            return None;
        }
        matrix[column].iter_mut().for_each(|cell| *cell /= value);
        let own = matrix[column].clone();
        for (index, row) in matrix.iter_mut().enumerate() {
            if index != column {
                let factor = row[column];
                row.iter_mut().zip(&own).for_each(|(cell, of)| *cell -= factor * of);
            }
        }
    }
    Some(matrix.into_iter().map(|row| row[size..].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: f64, bytes_per_row: f64, seconds: f64) -> Observation {
        Observation { rows, bytes: rows * bytes_per_row, seconds }
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected.abs() * 1e-6 + 1e-12
    }

    #[test]
    fn what_made_the_runs_is_found_again() {
        let truth =
            |rows: f64, width: f64| run(rows, width, 1.5 + 3e-6 * rows + 2e-9 * rows * width);
        let runs: Vec<Observation> =
            [(2e5, 100.0), (5e5, 100.0), (1e6, 100.0), (2e5, 800.0), (1e6, 800.0)]
                .map(|(rows, width)| truth(rows, width))
                .to_vec();
        let model = Model::fit(&runs).unwrap();
        let [a, b, c] = model.coefficients;
        assert!(near(a, 1.5) && near(b, 3e-6) && near(c, 2e-9), "{model:?}");
        assert!(model.error.unwrap() < 1e-9);
        let predicted = model.predict(1e7, 4e9);
        assert!(near(predicted.seconds, 1.5 + 30.0 + 8.0) && !predicted.is_within);
        assert!(model.predict(5e5, 5e7).is_within);
        assert!(near(model.seconds_per_row(100.0), 3e-6 + 2e-7), "{model:?}");
    }

    #[test]
    fn terms_that_the_runs_do_not_tell_apart_are_left_out() {
        // One width: bytes are rows by another name.
        let runs = [2e5, 5e5, 1e6].map(|rows| run(rows, 100.0, 1.0 + 4e-6 * rows));
        let model = Model::fit(&runs).unwrap();
        assert!(near(model.coefficients[0], 1.0) && near(model.coefficients[1], 4e-6), "{model:?}");
        assert!(near(model.coefficients[2], 0.0), "{model:?}");
        // One size: nothing but a rate.
        let same = [4.0, 5.0, 4.5].map(|seconds| run(1e6, 100.0, seconds));
        let model = Model::fit(&same).unwrap();
        assert!(near(model.coefficients[0], 0.0) && model.coefficients[1] > 4e-6, "{model:?}");
        let (least, most) = model.predict(1e6, 1e8).interval.unwrap();
        assert!((1.0..4.0).contains(&least) && (5.0..8.0).contains(&most), "{least} {most}");
    }

    #[test]
    fn one_run_tells_a_rate_and_no_error() {
        let model = Model::fit(&[run(1e6, 100.0, 5.0)]).unwrap();
        let predicted = model.predict(2e6, 2e8);
        assert!(
            near(predicted.seconds, 10.0) && predicted.interval.is_none() && !predicted.is_within
        );
        assert_eq!(Model::fit(&[]), None);
        // Rows that are not measured are as long as those that were.
        assert!(near(model.bytes_per_row, 100.0) && near(model.seconds_per_row(100.0), 5e-6));
        assert_eq!(model.predict_rows(2e6), predicted);
        // A run of nothing tells nothing.
        assert_eq!(Model::fit(&[run(0.0, 0.0, 5.0), run(1e6, 1.0, 0.0)]), None);
    }

    #[test]
    fn no_coefficient_is_negative() {
        // Faster than proportional: a straight line would start below zero.
        let runs =
            [(1e5, 0.1), (1e6, 2.0), (1e7, 30.0)].map(|(rows, seconds)| run(rows, 100.0, seconds));
        let model = Model::fit(&runs).unwrap();
        assert!(model.coefficients.iter().all(|value| *value >= 0.0), "{model:?}");
        assert!(model.predict(1.0, 100.0).seconds >= 0.0);
    }

    #[test]
    fn what_grows_with_the_rows_is_added_beyond_the_largest_run_only() {
        let runs = [2e5, 5e5, 1e6].map(|rows| run(rows, 100.0, 1.0 + 4e-6 * rows));
        let plain = Model::fit(&runs).unwrap();
        let growing = plain.clone().growing(Growth::OF_REDIS);
        assert_eq!(growing.predict_rows(5e5), plain.predict_rows(5e5));
        let (plain, found) = (plain.predict_rows(1e7), growing.predict_rows(1e7));
        assert!(near(found.growth, 10_f64.powf(0.08)) && near(plain.growth, 1.0), "{found:?}");
        assert!(near(found.seconds, 1.0 + 40.0 * found.growth), "{found:?}");
        // These runs lie on a line, so all that is not known is the growth.
        let (least, most) = found.interval.unwrap();
        assert!(least < plain.seconds + 1.0 && most > found.seconds * 1.1, "{least} {most}");
        let (least, most) = plain.interval.unwrap();
        assert!(most - least < 1e-3, "{least} {most}");
    }

    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut state = 11_u64;
        // Uniform in -0.1 to 0.1.
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5) * 0.2
        };
        let truth = |rows: f64| 2.0 + 5e-6 * rows;
        let mut held = 0;
        for _ in 0..400 {
            let sizes = [2e5, 2e5, 5e5, 5e5, 1e6, 1e6];
            let runs = sizes.map(|rows| run(rows, 100.0, truth(rows) * (1.0 + noise())));
            let (least, most) = Model::fit(&runs).unwrap().predict(1e7, 1e9).interval.unwrap();
            held += u32::from((least..=most).contains(&(truth(1e7) * (1.0 + noise()))));
        }
        assert!(held >= 360, "{held} of 400");
    }
}
