//! Reading keys of many rows back: sets, sorted sets, lists, and hashes with a field per row.
//!
//! Invariant: memory is one page, whatever a key holds. A scan that tells another number of elements than the key has,
//! because the server moved them meanwhile, is made again before it counts as a difference.

use super::control::{StoredEntry, about_keys, failed, server_ms};
use crate::error::Result;
use crate::load::Difference;
use bytes::Bytes;
use deadpool_redis::Connection;
use redis::{Pipeline, RedisError, RedisResult, Value};
use schemas::BoundRoute;
use schemas::layout::ReadBackTally;
use schemas::plan::Layout;
use schemas::version::Stored;

/// Elements asked for at once; a key of more is read in pages.
const PAGE: u64 = 1_024;
/// Elements in one pipeline of smaller keys.
const ELEMENTS_MAX: u64 = 8 * PAGE;
/// Times a scan is made before its count is believed.
const SCANS_MAX: usize = 3;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Compares keys with what was written: `(key, value hash, expiry in ms or 0)`.
pub(super) async fn compare(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    expected: &[(Bytes, u64, i64)],
) -> Result<Vec<(usize, Difference)>> {
    let keys: Vec<&[u8]> = expected.iter().map(|(key, ..)| &key[..]).collect();
    let (now_ms, found) = stored_entries(connection, address, route, &keys).await?;
    let mut differences = Vec::new();
    for (index, ((_, hash, expires_ms), stored)) in expected.iter().zip(&found).enumerate() {
        if let Some(difference) = stored.differs_from(*hash, *expires_ms, now_ms) {
            differences.push((index, difference));
        }
    }
    Ok(differences)
}

/// Reads what is under each of the keys, and the server's clock in milliseconds since 1970.
pub(super) async fn stored_entries(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    keys: &[&[u8]],
) -> Result<(i64, Vec<StoredEntry>)> {
    let layout = route.route.layout;
    let cannot = |error| failed(error, "cannot read back from", address);
    let mut pipeline = Pipeline::with_capacity(keys.len() * 2 + 1);
    pipeline.ignore_errors().cmd("TIME");
    for key in keys {
        pipeline.cmd(counting(layout)).arg(*key).cmd("PTTL").arg(*key);
    }
    let found: Vec<RedisResult<Value>> = pipeline.query_async(connection).await.map_err(cannot)?;
    let mut found = about_keys(found).map_err(cannot)?.into_iter();
    let now_ms = server_ms(found.next())?;
    let mut sizes = Vec::with_capacity(keys.len());
    for _ in keys {
        // A key of another type answers with an error, and has no size.
        let size = found.next().and_then(RedisResult::ok);
        let size = size.and_then(|size| redis::from_redis_value::<u64>(size).ok());
        sizes.push((size, found.next()));
    }
    let mut hashes: Vec<Option<u64>> = vec![None; keys.len()];
    let mut group: Vec<usize> = Vec::new();
    let mut elements = 0;
    for (index, (size, _)) in sizes.iter().enumerate() {
        let Some(size) = size.filter(|size| *size > 0) else { continue };
        if size > PAGE {
            hashes[index] = large(connection, layout, keys[index], size).await.map_err(cannot)?;
            continue;
        }
        if elements + size > ELEMENTS_MAX {
            small(connection, layout, keys, &group, &mut hashes).await.map_err(cannot)?;
            group.clear();
            elements = 0;
        }
        group.push(index);
        elements += size;
    }
    small(connection, layout, keys, &group, &mut hashes).await.map_err(cannot)?;
    let entry = |(hash, (_, ttl))| StoredEntry::new(hash, Stored::Nothing, ttl, now_ms);
    Ok((now_ms, hashes.into_iter().zip(sizes).map(entry).collect()))
}

fn counting(layout: Layout) -> &'static str {
    match layout {
        Layout::Set => "SCARD",
        Layout::Zset => "ZCARD",
        Layout::List => "LLEN",
        _ => "HLEN",
    }
}

/// Reads keys that fit a page, whole.
async fn small(
    connection: &mut Connection,
    layout: Layout,
    keys: &[&[u8]],
    group: &[usize],
    hashes: &mut [Option<u64>],
) -> std::result::Result<(), RedisError> {
    if group.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::with_capacity(group.len());
    pipeline.ignore_errors();
    for index in group {
        let key = keys[*index];
        match layout {
            Layout::Set => pipeline.cmd("SMEMBERS").arg(key),
            Layout::Zset => pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
            Layout::List => pipeline.cmd("LRANGE").arg(key).arg(0).arg(-1),
            _ => pipeline.cmd("HGETALL").arg(key),
        };
    }
    let found: Vec<RedisResult<Value>> = pipeline.query_async(connection).await?;
    for (index, value) in group.iter().zip(about_keys(found)?) {
        let mut tally = ReadBackTally::new(layout);
        let is_read = value.ok().is_some_and(|value| add(layout, value, &mut tally));
        hashes[*index] = is_read.then(|| tally.value_hash());
    }
    Ok(())
}

/// Reads one key in pages; `None` where it changes its type or size meanwhile.
async fn large(
    connection: &mut Connection,
    layout: Layout,
    key: &[u8],
    size: u64,
) -> std::result::Result<Option<u64>, RedisError> {
    for _ in 0..SCANS_MAX {
        let mut tally = ReadBackTally::new(layout);
        let is_read = match layout {
            Layout::Zset | Layout::List => range(connection, layout, key, &mut tally).await?,
            _ => scan(connection, layout, key, &mut tally).await?,
        };
        // A set or hash that shrinks its table while it is scanned may show an element twice.
        if is_read && tally.count() == size {
            return Ok(Some(tally.value_hash()));
        }
    }
    Ok(None)
}

async fn range(
    connection: &mut Connection,
    layout: Layout,
    key: &[u8],
    tally: &mut ReadBackTally,
) -> std::result::Result<bool, RedisError> {
    loop {
        let start = tally.count();
        let mut command = redis::cmd(if layout == Layout::Zset { "ZRANGE" } else { "LRANGE" });
        command.arg(key).arg(start).arg(start + PAGE - 1);
        if layout == Layout::Zset {
            command.arg("WITHSCORES");
        }
        let value: Value = command.query_async(connection).await?;
        if !add(layout, value, tally) {
            return Ok(false);
        }
        if tally.count() < start + PAGE {
            return Ok(true);
        }
    }
}

async fn scan(
    connection: &mut Connection,
    layout: Layout,
    key: &[u8],
    tally: &mut ReadBackTally,
) -> std::result::Result<bool, RedisError> {
    let mut cursor = 0_u64;
    loop {
        let mut command = redis::cmd(if layout == Layout::Set { "SSCAN" } else { "HSCAN" });
        command.arg(key).arg(cursor).arg("COUNT").arg(PAGE);
        let (next, value): (u64, Value) = command.query_async(connection).await?;
        if !add(layout, value, tally) {
            return Ok(false);
        }
        cursor = next;
        if cursor == 0 {
            return Ok(true);
        }
    }
}

/// Adds the elements of a reply; returns false where it is no such reply.
fn add(layout: Layout, value: Value, tally: &mut ReadBackTally) -> bool {
    if matches!(layout, Layout::Set | Layout::List) {
        let members = redis::from_redis_value::<Vec<Vec<u8>>>(value);
        return members.is_ok_and(|members| members.iter().all(|member| tally.add(member, b"")));
    }
    let pairs = redis::from_redis_value::<Pairs>(value);
    pairs.is_ok_and(|pairs| pairs.iter().all(|(member, extra)| tally.add(member, extra)))
}
