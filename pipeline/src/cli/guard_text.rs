//! What a summary says of memory, pauses and what was left out.
//!
//! Invariant: it says what the JSON says; ranges beyond the first ones of a route are counted and are in the JSON.

use super::figures::{count, seconds, things};
use crate::guard::{GuardSummary, Omitted};

/// Ranges that are shown of each route.
const RANGES_SHOWN: usize = 5;

/// The lines, each with its label.
pub(super) fn lines(guard: &GuardSummary) -> Vec<(&'static str, String)> {
    let needs = guard.needs.iter().filter(|need| need.bytes != Some(0));
    let mut lines: Vec<_> = needs.map(|need| ("memory", need.told())).collect();
    let pauses = guard.pauses.iter();
    lines.extend(pauses.map(|(reason, pause)| {
        let told = format!("{reason}: {}, {}", things(pause.count, "time"), seconds(pause.seconds));
        ("paused", told)
    }));
    let mut routes: Vec<&str> = Vec::new();
    for omitted in &guard.omitted {
        if !routes.contains(&omitted.route.as_str()) {
            routes.push(&omitted.route);
        }
    }
    for route in routes {
        let ranges: Vec<&Omitted> =
            guard.omitted.iter().filter(|omitted| omitted.route == route).collect();
        let rows = ranges.iter().map(|omitted| omitted.rows).sum::<Option<u64>>();
        let rows = rows.map_or("unknown rows".to_owned(), |rows| format!("~{} rows", count(rows)));
        let all = things(ranges.len() as u64, "range");
        lines.push(("left out", format!("{route}: {rows} in {all}")));
        for omitted in ranges.iter().take(RANGES_SHOWN) {
            let of =
                omitted.relation.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
            lines.push(("", format!("  {}: {}{of}", omitted.partition, omitted.range)));
        }
        if ranges.len() > RANGES_SHOWN {
            let more = count((ranges.len() - RANGES_SHOWN) as u64);
            lines.push(("", format!("  and {more} more; --json lists them all")));
        }
    }
    lines
}
