//! Which parts of the tables are measured.
//!
//! Invariant: sizes grow, and no two are the same; nothing is measured of tables that nobody counted or that are empty.

use crate::share::Share;
use stages::{Error, Kind};

/// Sizes of tables that are smaller than what was asked for, as shares of all they have.
const OF_SMALL: [f64; 3] = [0.2, 0.5, 1.0];

/// One size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    /// Rows of all routes together, about.
    pub rows: u64,
    /// The part of every table; `None` for all of it.
    pub share: Option<Share>,
}

/// Turns rows into parts of tables whose estimated rows are `known`, by the name of the route.
///
/// Fails with `Kind::Config` where rows are unknown, or where there are none.
pub(super) fn sizes(known: &[(&str, Option<u64>)], asked: &[u64]) -> Result<Vec<Size>, Vec<Error>> {
    let uncounted: Vec<Error> = known
        .iter()
        .filter(|(_, rows)| rows.is_none())
        .map(|(name, _)| {
            let message = format!(
                "route {name}: nobody knows how many rows it has, so no part of it can be measured"
            );
            Error::new(Kind::Config, message).with_hint(
                "of a table: ANALYZE it; of a view or a query: name the other routes with --route",
            )
        })
        .collect();
    if !uncounted.is_empty() {
        return Err(uncounted);
    }
    let all: u64 = known.iter().filter_map(|(_, rows)| *rows).sum();
    if all == 0 {
        let message = "the tables of these routes have no rows by their statistics: there is nothing to measure";
        return Err(vec![
            Error::new(Kind::Config, message)
                .with_hint("ANALYZE the tables if they do have rows, then: rekindle plan"),
        ]);
    }
    let mut rows: Vec<u64> = asked.iter().map(|rows| (*rows).min(all)).collect();
    rows.sort_unstable();
    rows.dedup();
    if rows.len() < asked.len() {
        let most = rows.last().copied().unwrap_or(all);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rows")]
        let part = |share: f64| ((most as f64 * share) as u64).max(1);
        rows = OF_SMALL.map(part).to_vec();
        rows.dedup();
    }
    let size = |rows: u64| Size { rows, share: Share::of(rows as f64 / all as f64) };
    Ok(rows.into_iter().map(size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(known: &[u64], asked: &[u64]) -> Vec<(u64, Option<Share>)> {
        let known: Vec<(&str, Option<u64>)> = known.iter().map(|rows| ("r", Some(*rows))).collect();
        sizes(&known, asked).unwrap().into_iter().map(|size| (size.rows, size.share)).collect()
    }

    #[test]
    fn sizes_are_parts_of_all_routes_together() {
        let found = rows(&[6_000_000, 4_000_000], &[200_000, 500_000, 1_000_000]);
        let expected = [0.02, 0.05, 0.1].map(Share::of);
        assert_eq!(found.iter().map(|(_, share)| *share).collect::<Vec<_>>(), expected);
        // Tables that are smaller are measured in parts of what they have.
        assert_eq!(
            rows(&[100_000], &[200_000, 500_000]),
            [(20_000, Share::of(0.2)), (50_000, Share::of(0.5)), (100_000, None)]
        );
        assert_eq!(rows(&[1], &[5]), [(1, None)]);
        // What was asked for twice is one size, so there are too few.
        assert_eq!(rows(&[1_000], &[100, 100]).len(), 3);
    }

    #[test]
    fn what_nobody_counted_and_what_is_empty_is_refused_by_name() {
        let errors = sizes(&[("a", Some(5)), ("b", None), ("c", None)], &[1]).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].to_string().contains("route b") && errors[0].kind() == Kind::Config);
        let errors = sizes(&[("a", Some(0))], &[1]).unwrap_err();
        assert!(errors[0].to_string().contains("no rows"), "{errors:?}");
    }
}
