//! Streams that rebuilds make, one per partition: finding those of earlier runs, and reading them back.
//!
//! Invariant: memory is one page, whatever a stream holds. A stream counts as read only where its entries are numbered
//! from 1 without a gap, as they were written.

use super::control::{StoredEntry, about_keys, failed, server_ms};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_streams::Paging;
use crate::extract::redis_values::escaped;
use crate::load::{Difference, Numbered};
use bytes::Bytes;
use deadpool_redis::Connection;
use redis::{Pipeline, RedisResult, Value};
use schemas::BoundRoute;
use schemas::layout::{StoredHash, Tally};
use schemas::version::Stored;

/// Keys that the server looks at per request.
const KEYS_PER_REQUEST: usize = 1_000;
/// Streams that a route is believed to have made: far more than any cut has partitions.
const STREAMS_MAX: usize = 100_000;
/// Keys named of those that are no streams.
const EXAMPLES_MAX: usize = 5;
/// Streams removed in one exchange.
const REMOVED_AT_ONCE: usize = 256;

/// The id of an entry, and the names and values of its fields.
type Entry = (Vec<u8>, Vec<Vec<u8>>);

/// Walks over all keys for those that are named as the streams of a route.
pub(super) async fn numbered(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
) -> Result<Numbered> {
    let cannot = |error| failed(error, "cannot scan the keys of", address);
    let pattern = format!("{}*", escaped(&route.route.keys_begin_with()));
    let mut found = Numbered::default();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_PER_REQUEST);
        let (next, keys): (u64, Vec<Vec<u8>>) =
            scan.query_async(connection).await.map_err(cannot)?;
        let keys: Vec<Vec<u8>> =
            keys.into_iter().filter(|key| route.route.stream_number(key).is_some()).collect();
        if !keys.is_empty() {
            let mut types = Pipeline::with_capacity(keys.len());
            for key in &keys {
                types.cmd("TYPE").arg(key);
            }
            let types: Vec<String> = types.query_async(connection).await.map_err(cannot)?;
            for (key, kind) in keys.into_iter().zip(types) {
                take(&mut found, route, key, &kind)?;
            }
        }
        cursor = next;
        if cursor == 0 {
            // SCAN may tell a key twice.
            found.streams.sort();
            found.streams.dedup();
            return Ok(found);
        }
    }
}

fn take(found: &mut Numbered, route: &BoundRoute, key: Vec<u8>, kind: &str) -> Result<()> {
    match kind {
        "none" => {}
        "stream" if found.streams.len() == STREAMS_MAX => {
            let (name, start) = (&route.route.name, route.route.keys_begin_with());
            let message = format!(
                "route {name}: more than {STREAMS_MAX} streams are named {start}<number>, more than a rebuild makes"
            );
            return Err(Error::new(Kind::Config, message)
                .with_hint("give the route a key prefix of its own, then: rekindle plan"));
        }
        "stream" => found.streams.push(Bytes::from(key)),
        other => {
            found.others += 1;
            if found.examples.len() < EXAMPLES_MAX {
                found.examples.push(format!("{} ({other})", String::from_utf8_lossy(&key)));
            }
        }
    }
    Ok(())
}

/// Removes streams without holding the server for as long as their entries take.
pub(super) async fn unlink(
    connection: &mut Connection,
    address: &str,
    keys: &[Bytes],
) -> Result<u64> {
    let mut removed = 0;
    for slice in keys.chunks(REMOVED_AT_ONCE) {
        let mut command = redis::cmd("UNLINK");
        for key in slice {
            command.arg(&key[..]);
        }
        let count: u64 = command
            .query_async(connection)
            .await
            .map_err(|error| failed(error, "cannot remove streams of", address))?;
        removed += count;
    }
    Ok(removed)
}

/// Compares streams with what was written: `(key, value hash, expiry in ms or 0)`.
pub(super) async fn compare(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    expected: &[(Bytes, u64, i64)],
) -> Result<Vec<(usize, Difference)>> {
    let mut differences = Vec::new();
    for (index, (key, hash, expires_ms)) in expected.iter().enumerate() {
        let (stored, now_ms) = read(connection, address, route, key).await?;
        if let Some(difference) = stored.differs_from(*hash, *expires_ms, now_ms) {
            differences.push((index, difference));
        }
    }
    Ok(differences)
}

/// Reads one stream, page by page.
async fn read(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    key: &[u8],
) -> Result<(StoredEntry, i64)> {
    let cannot = |error| failed(error, "cannot read back from", address);
    let mut pipeline = Pipeline::with_capacity(3);
    pipeline.ignore_errors().cmd("TIME").cmd("PTTL").arg(key).cmd("XLEN").arg(key);
    let found: Vec<RedisResult<Value>> = pipeline.query_async(connection).await.map_err(cannot)?;
    let mut found = about_keys(found).map_err(cannot)?.into_iter();
    let now_ms = server_ms(found.next())?;
    let ttl = found.next();
    // A key of another type answers with an error, and has no length.
    let length = found.next().and_then(RedisResult::ok);
    let length = length.and_then(|length| redis::from_redis_value::<u64>(length).ok());
    let mut tally = Tally::default();
    let mut is_as_written = length.is_some_and(|length| length > 0);
    let mut fields = StoredHash::new(route);
    let mut paging = Paging::default();
    while is_as_written {
        let next = tally.count() + 1;
        let mut range = redis::cmd("XRANGE");
        range.arg(key).arg(format!("{next}-0")).arg("+").arg("COUNT").arg(paging.entries());
        let page: RedisResult<Vec<Entry>> = range.query_async(connection).await;
        let page = match page {
            Ok(page) => page,
            // It became another type meanwhile.
            Err(error) if error.code() == Some("WRONGTYPE") => {
                is_as_written = false;
                break;
            }
            Err(error) => return Err(cannot(error)),
        };
        let entries = page.len() as u64;
        is_as_written = add(&page, &mut tally, &mut fields);
        if entries < paging.entries() {
            break;
        }
        let words = page.iter().flat_map(|(_, words)| words);
        paging.learn(entries, words.map(|word| word.len() as u64).sum());
    }
    let is_whole = is_as_written && length == Some(tally.count());
    let hash = is_whole.then(|| tally.value_hash());
    Ok((StoredEntry::new(hash, Stored::Nothing, ttl, now_ms), now_ms))
}

/// Adds a page of entries; returns false where one is not the next by its id.
fn add(page: &[Entry], tally: &mut Tally, fields: &mut StoredHash<'_>) -> bool {
    page.iter().all(|(id, words)| {
        fields.begin();
        for pair in words.chunks(2) {
            fields.push(&pair[0], pair.get(1).map_or(&[][..], |value| value));
        }
        let is_next = *id == format!("{}-0", tally.count() + 1).into_bytes();
        tally.push_entry(fields.value_hash());
        is_next
    })
}
