//! The controls of `--coverage`: what of a Redis in use the plan explains, one line per pattern.
//!
//! Invariant: names of keys are shown, values are not even read; what nothing explains is FAILED.

use super::controls::Control;
use crate::cli::args::{Progress, Shared};
use crate::cli::failure::say;
use crate::cli::figures::{bytes, count, seconds, things};
use crate::cli::loading;
use crate::coverage::{By, Coverage, PATTERNS_MAX, Pattern, Share, cover, left_out};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A scan says how far it is this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Scans the target, adds the controls, and keeps the result under `--state`.
///
/// A plan that cannot be read is told by another control.
pub(super) async fn add(shared: &Shared, controls: &mut Vec<Control>) -> Option<Coverage> {
    let plan = loading::load(&shared.plan, &[]).ok()?;
    let last = Mutex::new(Instant::now());
    let told = |seen: u64, all: u64| {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shared.progress != Progress::None && last.elapsed() >= TOLD_EVERY {
            *last = Instant::now();
            say(&format!("coverage: {} of about {}\n", count(seen), things(all, "key")));
        }
    };
    match cover(&plan, &told).await {
        Ok(coverage) => {
            controls.push(all(&coverage));
            controls.extend(coverage.patterns.iter().map(one));
            if let Err(error) = left_out::keep(&shared.state, &coverage) {
                controls.push(Control::unknown("coverage record", format!("not kept: {error}")));
            }
            Some(coverage)
        }
        Err(error) => {
            controls.push(Control::of_error("coverage", &error));
            None
        }
    }
}

fn all(coverage: &Coverage) -> Control {
    const NAME: &str = "coverage";
    let size = match (coverage.bytes_estimate, &coverage.bytes_refused) {
        (Some(total), _) => format!(", about {}", bytes(total)),
        (None, Some(why)) => format!(", sizes unknown: {why}"),
        (None, None) => String::new(),
    };
    let part = |share: &Share, what: &str| {
        let bytes = share.bytes_percent.map(|percent| format!(" ({percent} % of bytes)"));
        format!("{what} {} %{}", share.keys_percent, bytes.unwrap_or_default())
    };
    let mut parts = vec![part(&coverage.routes, "routes")];
    for (share, what) in [
        (&coverage.duplicates, "duplicates of bigquery"),
        (&coverage.unrouted, "unrouted"),
        (&coverage.unknown, "unknown"),
    ] {
        if share.keys > 0 {
            parts.push(part(share, what));
        }
    }
    let detail = format!(
        "{} at {}{size}: {}; scanned in {}, a request was on its way for {} % of that time (at most {} %)",
        things(coverage.keys, "key"),
        coverage.address,
        parts.join(", "),
        seconds(coverage.seconds),
        coverage.server_percent,
        coverage.server_percent_max
    );
    if coverage.unknown.keys == 0 {
        return Control::ok(NAME, detail);
    }
    Control::failed(NAME, detail).with_fix(Some(
        "write a [[route]] for what must come back, an [[unrouted]] for what comes back otherwise",
    ))
}

fn one(pattern: &Pattern) -> Control {
    let mut detail = size_of(pattern);
    match pattern.by {
        By::Route => {
            let name = format!("coverage of route {}", pattern.name);
            Control::ok(name, format!("{detail} of {}{}", pattern.pattern, shapes(pattern)))
        }
        By::Duplicate => {
            let name = format!("coverage of duplicate {}", pattern.name);
            let back = pattern.comes_back.as_deref().unwrap_or_default();
            Control::ok(name, format!("{detail}; not rebuilt, comes back by {back}"))
        }
        By::Rekindle => Control::ok("coverage of rekindle's own keys", detail),
        By::Unrouted => {
            let owner = pattern.owner.as_deref().unwrap_or_default();
            let back = pattern.comes_back.as_deref().unwrap_or_default();
            detail = format!("{detail}; not rebuilt, owner {owner}, comes back: {back}");
            Control::ok(format!("coverage of unrouted {}", pattern.name), detail)
        }
        By::Unknown => {
            detail = format!("{detail}, for example {}", pattern.examples.join(", "));
            if let Some(why) = &pattern.why {
                detail = format!("{detail}; {why}");
            }
            if pattern.name == crate::coverage::OTHERS {
                detail = format!("{detail}; more patterns than the {PATTERNS_MAX} told apart");
            }
            Control::failed(format!("coverage: unknown {}", pattern.name), detail).with_fix(Some(
                "add a [[route]] that writes them, or an [[unrouted]] with their prefix",
            ))
        }
    }
}

fn size_of(pattern: &Pattern) -> String {
    let share = &pattern.share;
    let keys = format!("{} ({} %)", things(share.keys, "key"), share.keys_percent);
    match (share.bytes_estimate, share.bytes_percent) {
        (Some(estimate), Some(percent)) if pattern.bytes_sampled > 0 => format!(
            "{keys}, about {} ({percent} %, by {})",
            bytes(estimate),
            things(pattern.bytes_sampled, "measured size")
        ),
        _ => keys,
    }
}

/// A route's keys of another shape may be somebody else's.
fn shapes(pattern: &Pattern) -> String {
    if pattern.shapes.len() < 2 {
        return String::new();
    }
    let mut shapes: Vec<(&String, u64)> =
        pattern.shapes.iter().map(|(shape, keys)| (shape, *keys)).collect();
    shapes.sort_by_key(|(_, keys)| std::cmp::Reverse(*keys));
    let mut texts: Vec<String> =
        shapes.iter().map(|(shape, keys)| format!("{} {shape}", count(*keys))).collect();
    if pattern.other_shapes > 0 {
        texts.push(format!("{} of other shapes", count(pattern.other_shapes)));
    }
    format!("; by shape: {}", texts.join(", "))
}
