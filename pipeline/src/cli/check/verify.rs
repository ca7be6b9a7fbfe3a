//! The controls of `verify`: whether every right that it needs is there, on each system that it asks.
//!
//! Invariant: access to Redis is asked about, not tried out; of BigQuery a read session is made, which costs nothing,
//! and no row is fetched.

use super::acl::{self, Asked, KEY, SENTINEL};
use super::controls::Control;
use crate::backup::rows::{is_row_route, keys_of};
use crate::backup::source::{self, now_us};
use crate::wiring::{CONNECT_TIMEOUT, connect_backup_source};
use schemas::plan::{Layout, Origin};
use schemas::{Plan, Route};
use stages::Error;
use stages::connect::bigquery::BigQuery;
use stages::connect::redis::{Endpoint, Stream};
use stages::extract::table_rows::{self, Reading};
use std::time::Duration;

/// Who the server is, how many keys it has, and a walk over them.
const SERVER: [&[&str]; 3] = [&["INFO"], &["DBSIZE"], &["SCAN", "0", "COUNT", "1"]];
/// What a route's keys are compared by.
const KEYS: [&[&str]; 1] = [&["PTTL", KEY]];
/// How blocks and what is recorded of them are read.
const VALUES: [&[&str]; 4] =
    [&["GET", KEY], &["GETRANGE", KEY, "0", "1"], &["STRLEN", KEY], &["PTTL", KEY]];

/// Tells whether `verify redis` may be used, as far as rights decide it; nothing where no route is rebuilt.
///
/// `is_document` tells whether the server has the module of documents; where it lacks it, another control says so.
pub(super) async fn redis(
    stream: &mut dyn Stream,
    plan: &Plan,
    is_document: bool,
) -> Option<Control> {
    let routes: Vec<&Route> = plan.routes.iter().filter(|route| route.uses.rebuild).collect();
    if routes.is_empty() {
        return None;
    }
    let mut asked = Wanted::default();
    asked.add(&SERVER, "");
    asked.add(&[&["TIME"]], "");
    asked.add(&[&["GET", KEY]], SENTINEL);
    for route in routes {
        let key = format!("{}0", route.keys_begin_with());
        asked.add(&KEYS, &key);
        if route.layout != Layout::RedisJson || is_document {
            asked.add(reads(route), &key);
        }
    }
    Some(told(stream, "redis verify", &asked.0, "verify redis").await)
}

/// Tells whether `verify bigquery` may be used: on the servers of the duplicate and of rows, and in BigQuery.
pub(super) async fn bigquery(plan: &Plan, names: &[String]) -> Vec<Control> {
    let is_asked =
        |route: &&Route| route.uses.backup && (names.is_empty() || names.contains(&route.name));
    let routes: Vec<&Route> = plan.routes.iter().filter(is_asked).collect();
    if routes.is_empty() {
        return Vec::new();
    }
    let (mut duplicate, mut rows) = (Wanted::default(), Wanted::default());
    duplicate.add(&SERVER, "");
    for route in &routes {
        let keys = keys_of(route);
        duplicate.add(&VALUES, &keys.run());
        if is_row_route(route) {
            let key = format!("{}0", route.keys_begin_with());
            rows.add(&SERVER, "");
            rows.add(reads(route), &key);
        } else {
            duplicate.add(&VALUES, &keys.manifest("0"));
            duplicate.add(&VALUES, &keys.block("0", 0, 0));
        }
    }
    let own = plan.duplicate.as_ref().map(|section| section.url.0.as_str());
    let shared = plan.redis.as_ref().map(|url| url.0.as_str());
    let mut controls =
        vec![server("duplicate verify", own.or(shared), &duplicate.0, "verify bigquery").await];
    if !rows.0.is_empty() {
        controls.push(server("rows verify", shared, &rows.0, "verify bigquery").await);
    }
    controls.extend(tables(plan, &routes).await);
    controls
}

/// How the value of a key is read back.
fn reads(route: &Route) -> &'static [&'static [&'static str]] {
    match (route.layout, route.many.is_some()) {
        (Layout::Hash, false) => &[&["HGETALL", KEY]],
        (Layout::Hash, true) => &[&["HLEN", KEY], &["HGETALL", KEY], &["HSCAN", KEY, "0"]],
        (Layout::String | Layout::Json, _) => &[&["GET", KEY]],
        (Layout::RedisJson, _) => &[&["JSON.GET", KEY]],
        (Layout::Set, _) => &[&["SCARD", KEY], &["SMEMBERS", KEY], &["SSCAN", KEY, "0"]],
        (Layout::Zset, _) => &[&["ZCARD", KEY], &["ZRANGE", KEY, "0", "1"]],
        (Layout::List, _) => &[&["LLEN", KEY], &["LRANGE", KEY, "0", "1"]],
        (Layout::Stream, _) if route.is_rebuilt_stream() => {
            &[&["TYPE", KEY], &["XINFO", "STREAM", KEY], &["XRANGE", KEY, "-", "+"]]
        }
        (Layout::Stream, _) => &[&["XRANGE", KEY, "-", "+"], &["XINFO", "STREAM", KEY]],
        (Layout::Blocks, _) => &[],
    }
}

/// Commands to ask about, each once with all its keys.
#[derive(Default)]
struct Wanted(Vec<Asked>);

impl Wanted {
    fn add(&mut self, commands: &[&'static [&'static str]], key: &str) {
        for command in commands {
            let known = self.0.iter().position(|asked| asked.command == *command);
            let place = known.unwrap_or_else(|| {
                self.0.push(Asked { command, keys: Vec::new() });
                self.0.len() - 1
            });
            let keys = &mut self.0[place].keys;
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
    }
}

async fn server(name: &str, url: Option<&str>, asked: &[Asked], purpose: &str) -> Control {
    let Some(url) = url else { return Control::unknown(name, "the plan names no server") };
    let endpoint = match Endpoint::parse(url, CONNECT_TIMEOUT) {
        Ok(endpoint) => endpoint,
        Err(error) => return Control::of_error(name, &error),
    };
    match endpoint.stream().await {
        Ok(mut stream) => told(&mut *stream, name, asked, purpose).await,
        Err(error) => Control::of_error(name, &error),
    }
}

async fn told(stream: &mut dyn Stream, name: &str, asked: &[Asked], purpose: &str) -> Control {
    let timeout: Duration = CONNECT_TIMEOUT;
    match tokio::time::timeout(timeout, acl::rights(stream, name, asked, purpose)).await {
        Ok(Ok(control)) => control,
        Ok(Err(error)) => Control::unknown(name, error.to_string()),
        Err(_) => Control::unknown(name, format!("no answer within {} s", timeout.as_secs())),
    }
}

/// Asks BigQuery for everything but rows, table by table.
async fn tables(plan: &Plan, routes: &[&Route]) -> Vec<Control> {
    const NAME: &str = "bigquery verify";
    let connected = async {
        let bigquery = connect_backup_source(plan).await?;
        let snapshot_us = now_us(&bigquery).await?;
        Ok::<_, Error>((bigquery, snapshot_us))
    };
    let (bigquery, snapshot_us) = match connected.await {
        Ok(connected) => connected,
        Err(error) => return vec![Control::of_error(NAME, &error)],
    };
    let mut controls = Vec::with_capacity(routes.len());
    for route in routes {
        let Origin::Table { schema, table, .. } = &route.origin else { continue };
        let name = format!("{NAME} of {schema}.{table}");
        controls.push(match readable(&bigquery, schema, table, snapshot_us).await {
            Ok(true) => {
                Control::ok(name, "its resource, its table partitions and its rows may be read")
            }
            Ok(false) => Control::failed(name, "there is no such table (any more)")
                .with_fix(Some(&format!("rekindle restore bigquery --route {}", route.name))),
            Err(error) => Control::of_error(name, &error),
        });
    }
    controls
}

/// Whether there is the table, after everything was asked that a verification asks.
async fn readable(
    bigquery: &BigQuery,
    dataset: &str,
    table: &str,
    snapshot_us: i64,
) -> stages::Result<bool> {
    if source::inspect(bigquery, dataset, table).await?.is_none() {
        return Ok(false);
    }
    let reading = Reading {
        dataset: dataset.to_owned(),
        table: table.to_owned(),
        filter: None,
        snapshot_us,
        streams: 1,
    };
    // Its rows are sent where somebody asks for them, and nobody does.
    table_rows::open(bigquery, &reading).await?;
    Ok(true)
}
