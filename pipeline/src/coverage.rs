//! `check --coverage`: what of a Redis in use the plan explains, and so what a rebuild would bring back.
//!
//! Invariant: nothing is written to Redis and no value is read; a key counts as a route's only when its name fits the
//! route's key template and its type is the one that the route writes.

pub(crate) mod explain;
pub mod left_out;
mod pattern;
mod tally;

pub use tally::{OTHERS, PATTERNS_MAX};

use crate::lane::now_ms;
use crate::summarize::rfc3339;
use crate::wiring::CONNECT_TIMEOUT;
use explain::{Explainer, Named, redis_type};
use pattern::pattern_of;
use schemas::Plan;
use serde::{Deserialize, Serialize};
use stages::connect::redis::Endpoint;
use stages::extract::redis_keys::KeyScan;
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use tally::{Counted, Group, Tally};

/// The part of the time in which a request of the scan may be on its way.
pub const SHARE_MAX: f64 = 0.1;

/// What explains the keys of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A route that rebuilds them.
    Route,
    /// A route that keeps a duplicate of BigQuery.
    Duplicate,
    /// rekindle itself.
    Rekindle,
    /// An `[[unrouted]]` entry.
    Unrouted,
    /// Nothing.
    Unknown,
}

/// Keys and about how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Keys seen.
    pub keys: u64,
    /// Their share of all keys, in percent.
    pub keys_percent: f64,
    /// Estimated bytes of keys and values; absent where the server does not tell sizes.
    pub bytes_estimate: Option<u64>,
    /// Their share of all bytes, in percent.
    pub bytes_percent: Option<f64>,
}

/// Keys that one thing explains, or that share a pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pattern {
    /// What explains them.
    pub by: By,
    /// Route, prefix of the `[[unrouted]]` entry, or the pattern itself.
    pub name: String,
    /// Key template, prefix, or pattern.
    pub pattern: String,
    /// How many, and how large.
    #[serde(flatten)]
    pub share: Share,
    /// Sizes that the estimate rests on.
    pub bytes_sampled: u64,
    /// A few names.
    pub examples: Vec<String>,
    /// The most frequent patterns among them, with their keys.
    pub shapes: BTreeMap<String, u64>,
    /// Keys of further shapes.
    pub other_shapes: u64,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// How they come back after a loss; absent where that is unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comes_back: Option<String>,
    /// Why a route whose key template fits is not the explanation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// When the scan ended, RFC 3339.
    pub checked_at: String,
    /// `host:port/database`.
    pub address: String,
    /// Fingerprint of the plan's routes.
    pub plan: String,
    /// Keys the database said to hold when the scan began.
    pub entries: u64,
    /// Keys seen; those written during the scan may be among them or not.
    pub keys: u64,
    /// Estimated bytes of keys and values.
    pub bytes_estimate: Option<u64>,
    /// Why there is no estimate of bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_refused: Option<String>,
    /// Seconds the scan took.
    pub seconds: f64,
    /// Part of this time, in percent, in which a request was on its way: the server was at work for at most as long.
    pub server_percent: f64,
    /// The bound of that part, in percent.
    pub server_percent_max: f64,
    /// What routes explain.
    pub routes: Share,
    /// What the duplicates of BigQuery are.
    pub duplicates: Share,
    /// What rekindle's own keys are.
    pub rekindle: Share,
    /// What is declared.
    pub unrouted: Share,
    /// What nothing explains.
    pub unknown: Share,
    /// Everything in detail: routes, duplicates, own keys and declared ones in plan order, unknown ones by count.
    pub patterns: Vec<Pattern>,
}

/// Scans the Redis of a plan; `told` hears of keys seen and of how many there are.
pub async fn cover(plan: &Plan, told: &(dyn Fn(u64, u64) + Sync)) -> Result<Coverage> {
    let Some(url) = &plan.redis else {
        return Err(Error::new(Kind::Config, "the plan has no [redis] url"));
    };
    let endpoint = Endpoint::parse(&url.0, CONNECT_TIMEOUT)?;
    let explainer = Explainer::new(plan, has_duplicate(plan, &endpoint)?);
    let mut scan = KeyScan::begin(&endpoint, SHARE_MAX).await?;
    let entries = scan.entries().await?;
    let mut tally = Tally::default();
    let mut seen = 0;
    while let Some(keys) = scan.next().await? {
        seen += page(&mut scan, &explainer, plan, &mut tally, &keys).await?;
        told(seen, entries.max(seen));
    }
    Ok(report(plan, &endpoint, &scan, entries, tally))
}

/// Whether the duplicate of BigQuery lives in the database that is looked at.
pub(crate) fn has_duplicate(plan: &Plan, endpoint: &Endpoint) -> Result<bool> {
    match &plan.duplicate {
        None => Ok(true),
        Some(section) => {
            let other = Endpoint::parse(&section.url.0, CONNECT_TIMEOUT)?;
            Ok(other.address == endpoint.address)
        }
    }
}

/// Counts one page of keys; returns how many of them are still there.
async fn page(
    scan: &mut KeyScan,
    explainer: &Explainer<'_>,
    plan: &Plan,
    tally: &mut Tally,
    keys: &[Vec<u8>],
) -> Result<u64> {
    let named: Vec<Named> = keys.iter().map(|key| explainer.named(key)).collect();
    let is_fitting = |named: &Named| matches!(named, Named::Routes(_));
    let asked: Vec<&[u8]> =
        keys.iter().zip(&named).filter(|(_, n)| is_fitting(n)).map(|(k, _)| &k[..]).collect();
    let mut types = scan.types(&asked).await?.into_iter();
    let (mut wanted, mut measured) = (Vec::new(), Vec::new());
    let mut seen = 0;
    for (key, named) in keys.iter().zip(named) {
        let pattern = pattern_of(key);
        let group = match named {
            Named::Own => Group::Own,
            Named::Duplicate(index) => Group::Duplicate(index),
            Named::Unrouted(index) => Group::Unrouted(index),
            Named::Unknown => Group::Unknown(pattern.clone(), None),
            Named::Routes(fitting) => {
                let type_name = types.next().unwrap_or_default();
                if type_name == "none" {
                    continue;
                }
                if let Some(index) = explainer.of_type(&fitting, &type_name) {
                    Group::Route(index)
                } else {
                    let why = why_not(plan, &fitting, &type_name);
                    Group::Unknown(pattern.clone(), Some(why))
                }
            }
        };
        seen += 1;
        if let Some(one) = tally.count(group, pattern, key) {
            wanted.push(one);
            measured.push(&key[..]);
        }
    }
    if let Some(sizes) = scan.sizes(&measured).await? {
        for (one, bytes) in wanted.iter().zip(sizes) {
            tally.measured(one, bytes);
        }
    }
    Ok(seen)
}

fn why_not(plan: &Plan, fitting: &[usize], type_name: &str) -> String {
    let of_route = |index: &usize| {
        let route = &plan.routes[*index];
        format!("route {} writes a {} there", route.name, redis_type(route))
    };
    let routes: Vec<String> = fitting.iter().map(of_route).collect();
    format!("it is a {type_name}, and {}", routes.join(", "))
}

fn report(
    plan: &Plan,
    endpoint: &Endpoint,
    scan: &KeyScan,
    entries: u64,
    tally: Tally,
) -> Coverage {
    let groups = with_everything_declared(plan, tally.finish());
    let keys: u64 = groups.values().map(|counted| counted.keys).sum();
    let bytes_of = |counted: &Counted| -> Option<f64> {
        let (_, mean) = counted.mean_bytes()?;
        Some(mean * counted.keys as f64)
    };
    let is_measured = scan.sizes_refused().is_none();
    let bytes: f64 = groups.values().filter_map(bytes_of).sum();
    let share = |keys_of: u64, bytes_of: f64| Share {
        keys: keys_of,
        keys_percent: percent(keys_of as f64, keys as f64),
        bytes_estimate: is_measured.then(|| whole(bytes_of)),
        bytes_percent: is_measured.then(|| percent(bytes_of, bytes)),
    };
    let mut patterns: Vec<Pattern> = groups
        .iter()
        .map(|(group, counted)| {
            let share = share(counted.keys, bytes_of(counted).unwrap_or(0.0));
            described(plan, group, counted, share)
        })
        .collect();
    // The groups are in plan order; only among the unknown ones does the count decide.
    patterns.sort_by_key(|pattern| match pattern.by {
        By::Unknown => (true, u64::MAX - pattern.share.keys),
        _ => (false, 0),
    });
    let total = |by: By| {
        let of_kind = patterns.iter().filter(|pattern| pattern.by == by);
        let (keys, bytes) = of_kind.fold((0, 0.0), |(keys, bytes), pattern| {
            let own = pattern.share.bytes_estimate.unwrap_or(0) as f64;
            (keys + pattern.share.keys, bytes + own)
        });
        share(keys, bytes)
    };
    let cost = scan.cost();
    Coverage {
        checked_at: rfc3339(now_ms()),
        address: endpoint.address.clone(),
        plan: plan.fingerprint(),
        entries,
        keys,
        bytes_estimate: is_measured.then(|| whole(bytes)),
        bytes_refused: scan.sizes_refused().map(str::to_owned),
        seconds: cost.seconds,
        server_percent: percent(cost.asked_seconds, cost.seconds),
        server_percent_max: SHARE_MAX * 100.0,
        routes: total(By::Route),
        duplicates: total(By::Duplicate),
        rekindle: total(By::Rekindle),
        unrouted: total(By::Unrouted),
        unknown: total(By::Unknown),
        patterns,
    }
}

/// Adds what the plan names and no key was found of.
fn with_everything_declared(
    plan: &Plan,
    mut groups: BTreeMap<Group, Counted>,
) -> BTreeMap<Group, Counted> {
    for (index, _) in plan.routes.iter().enumerate().filter(|(_, route)| route.uses.rebuild) {
        groups.entry(Group::Route(index)).or_default();
    }
    for index in 0..plan.unrouted.len() {
        groups.entry(Group::Unrouted(index)).or_default();
    }
    groups
}

fn described(plan: &Plan, group: &Group, counted: &Counted, share: Share) -> Pattern {
    let (mut owner, mut why) = (None, None);
    let (by, name, pattern, comes_back) = match group {
        Group::Route(index) | Group::Duplicate(index) => {
            let route = &plan.routes[*index];
            let is_rebuilt = matches!(group, Group::Route(_)) && route.uses.rebuild;
            let (by, command) = if is_rebuilt {
                (By::Route, "rekindle rebuild redis")
            } else {
                (By::Duplicate, "rekindle backup bigquery")
            };
            (by, route.name.clone(), route.key.text().to_owned(), Some(command.to_owned()))
        }
        Group::Own => {
            let pattern = format!("{}*", schemas::plan::OWN_KEYS);
            (By::Rekindle, "rekindle".to_owned(), pattern, Some("by itself".to_owned()))
        }
        Group::Unrouted(index) => {
            let entry = &plan.unrouted[*index];
            owner = Some(entry.owner.clone());
            let pattern = format!("{}*", entry.prefix);
            (By::Unrouted, entry.prefix.clone(), pattern, Some(entry.comes_back.clone()))
        }
        Group::Unknown(pattern, reason) => {
            why.clone_from(reason);
            (By::Unknown, pattern.clone(), pattern.clone(), None)
        }
    };
    Pattern {
        by,
        name,
        pattern,
        share,
        bytes_sampled: counted.mean_bytes().map_or(0, |(sampled, _)| sampled),
        examples: counted.examples.clone(),
        shapes: counted.shapes.clone(),
        other_shapes: counted.other_shapes,
        owner,
        comes_back,
        why,
    }
}

/// A share in percent with two decimals; 0 of nothing.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 10_000.0).round() / 100.0 } else { 0.0 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, not negative; casts saturate"
)]
fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}
