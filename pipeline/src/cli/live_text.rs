//! What a summary says of a system in use: the stale window of each route, and which database serves.
//!
//! Invariant: it says what the JSON says; a window is told for every route that was read.

use super::figures::seconds;
use crate::summary::{CutOverSummary, Freshness, RunEnd, Summary};

/// The lines, each with its label.
pub(super) fn lines(summary: &Summary) -> Vec<(&'static str, String)> {
    let is_over = matches!(summary.status, RunEnd::Done | RunEnd::Unverified);
    let mut lines = Vec::new();
    if is_over {
        lines.extend(windows(summary, false).map(|told| {
            let what = "changes of the source since then are missing, and what an application wrote of them may be replaced";
            ("stale", format!("window: {told}; {what}"))
        }));
        lines.extend(windows(summary, true).map(|told| {
            let what = "changes since then are there only where an application wrote them";
            ("newest", format!("window: {told}; {what}"))
        }));
    }
    lines.extend(summary.cut_over.iter().flat_map(cut_over));
    lines
}

/// The windows of the routes that compare versions, or of the others; `None` where there are none.
fn windows(summary: &Summary, compares_versions: bool) -> impl Iterator<Item = String> {
    let of_route = |(name, freshness): (&str, &Freshness)| {
        let lag = freshness.lag_seconds.map(|lag| format!(", caught up to {}", seconds(lag)));
        format!("{} ({name}{})", seconds(freshness.stale_seconds), lag.unwrap_or_default())
    };
    let told: Vec<String> = summary
        .routes
        .iter()
        .filter_map(|route| Some((route.name.as_str(), route.freshness.as_ref()?)))
        .filter(|(_, freshness)| freshness.compares_versions == compares_versions)
        .map(of_route)
        .collect();
    (!told.is_empty()).then(|| told.join(", ")).into_iter()
}

fn cut_over(found: &CutOverSummary) -> Vec<(&'static str, String)> {
    let CutOverSummary { serving_db, build_db, is_swapped, way_back } = found;
    if !is_swapped {
        return vec![("cut-over", format!("not done: database {serving_db} serves as before"))];
    }
    vec![
        ("cut-over", format!("database {serving_db} serves what was built in {build_db}")),
        (
            "way back",
            format!(
                "{way_back}; what served before is in database {build_db}, with every key that was written to it meanwhile"
            ),
        ),
    ]
}
