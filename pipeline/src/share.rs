//! A part of every table, for runs that measure and do not rebuild.
//!
//! Invariant: the part is made of whole partitions spread evenly over the cut, and their bounds are those of a finer cut of
//! the whole table; no table gives none.

use schemas::{Partition, PartitionId};
use stages::Result;
use stages::extract::Source;

/// Partitions that a table is cut into at most.
const CUT_MAX: usize = 1 << 14;

/// Which part of the rows of every table is read, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// Takes this part of the rows; `None` unless it is more than nothing and less than all.
    pub fn of(part: f64) -> Option<Self> {
        (part > 0.0 && part < 1.0).then_some(Self(part))
    }

    /// Cuts the rows into about `wanted` partitions that together hold this part of them, named `<route>/<first>..`.
    ///
    /// Errors are those of [`Source::partitions`].
    pub async fn partitions(
        self,
        source: &dyn Source,
        wanted: usize,
        first: usize,
    ) -> Result<Vec<Partition>> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let finer = (wanted as f64 / self.0).min(CUT_MAX as f64).ceil() as usize;
        Ok(self.spread(source.partitions(finer, first).await?, first))
    }

    /// Takes of everything, in its order, what holds this part of all rows so far; something of anything.
    pub(crate) fn of_all<T>(self, all: Vec<T>, rows_of: impl Fn(&T) -> u64) -> Vec<T> {
        let middle = all.len() / 2;
        let (mut seen, mut taken) = (0.0, 0.0);
        let mut is_due: Vec<bool> = all
            .iter()
            .map(|one| {
                // What nobody has counted weighs the same everywhere.
                let rows = rows_of(one).max(1) as f64;
                seen += rows;
                let is_due = taken + rows / 2.0 <= seen * self.0;
                taken += if is_due { rows } else { 0.0 };
                is_due
            })
            .collect();
        if !is_due.contains(&true)
            && let Some(middle) = is_due.get_mut(middle)
        {
            *middle = true;
        }
        all.into_iter().zip(is_due).filter_map(|(one, is_due)| is_due.then_some(one)).collect()
    }

    /// Takes partitions until they hold their part of all rows so far, and numbers them anew.
    fn spread(self, cut: Vec<Partition>, first: usize) -> Vec<Partition> {
        let mut part = self.of_all(cut, |partition| partition.rows_estimate);
        for (number, partition) in part.iter_mut().enumerate() {
            partition.id = PartitionId(format!("{}/{}", partition.route, first + number));
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Bounds;

    fn cut(rows: &[u64]) -> Vec<Partition> {
        let partition = |(number, rows): (usize, &u64)| Partition {
            id: PartitionId(format!("builds/{number}")),
            route: "builds".to_owned(),
            bounds: Bounds::Whole,
            rows_estimate: *rows,
            bytes_estimate: number as u64,
            newest_us: None,
        };
        rows.iter().enumerate().map(partition).collect()
    }

    /// The places in the cut of what was taken.
    fn places(part: &[Partition]) -> Vec<u64> {
        part.iter().map(|partition| partition.bytes_estimate).collect()
    }

    #[test]
    fn a_part_is_spread_over_the_whole_and_numbered_anew() {
        let part = Share::of(0.25).unwrap().spread(cut(&[100; 16]), 7);
        assert_eq!(places(&part), [1, 5, 9, 13]);
        let ids: Vec<&str> = part.iter().map(|partition| partition.id.0.as_str()).collect();
        assert_eq!(ids, ["builds/7", "builds/8", "builds/9", "builds/10"]);
        // Partitions of unequal size, and such whose rows nobody knows.
        let rows: u64 = Share::of(0.5)
            .unwrap()
            .spread(cut(&[1_000, 10, 10, 500, 10, 480, 990]), 0)
            .iter()
            .map(|partition| partition.rows_estimate)
            .sum();
        assert!((1_000..2_000).contains(&rows), "{rows}");
        assert_eq!(Share::of(0.1).unwrap().spread(cut(&[0; 100]), 0).len(), 10);
    }

    #[test]
    fn every_table_gives_something_and_nothing_else_is_a_share() {
        assert_eq!(places(&Share::of(0.01).unwrap().spread(cut(&[50; 5]), 0)), [2]);
        assert!(Share::of(0.5).unwrap().spread(Vec::new(), 0).is_empty());
        for part in [0.0, 1.0, -0.5, 2.0, f64::NAN] {
            assert_eq!(Share::of(part), None, "{part}");
        }
    }
}
