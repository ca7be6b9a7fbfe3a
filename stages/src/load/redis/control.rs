//! Control and read commands of the Redis sink, over redis-rs.
//!
//! Invariant: the sentinel is only ever written when absent and only ever removed by the run it names.

use super::READ_KEYS_MAX;
use crate::connect::redis::{from_redis, kind_of_reply};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_entries;
use crate::load::{Difference, Sentinel, TargetState};
use bytes::Bytes;
use deadpool_redis::Connection;
use redis::{Pipeline, RedisError, Value};
use schemas::layout::DocumentHasher;
use schemas::plan::Layout;
use schemas::version::Stored;
use schemas::{BoundRoute, layout};
use std::collections::HashMap;

/// Two clocks and a pipeline's travel time lie between a written and a read-back expiry.
const EXPIRY_TOLERANCE_MS: i64 = 2_000;

pub(super) fn failed(error: RedisError, doing: &str, address: &str) -> Error {
    from_redis(error, &format!("{doing} redis at {address}"))
}

/// Reads INFO and DBSIZE.
pub(crate) async fn state(connection: &mut Connection, address: &str) -> Result<TargetState> {
    let (info, entries): (String, u64) = redis::pipe()
        .cmd("INFO")
        .cmd("DBSIZE")
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot read INFO of", address))?;
    let fields: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default().to_owned();
    let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok());
    let product = if fields.contains_key("valkey_version") { "valkey" } else { "redis" };
    let version = number_or_text(&fields, "valkey_version", "redis_version");
    let limit = number("maxmemory").filter(|&bytes| bytes > 0);
    Ok(TargetState {
        process_id: text("run_id"),
        history_id: text("master_replid"),
        version: format!("{product} {version}"),
        entries,
        used_bytes: number("used_memory").unwrap_or(0),
        limit_bytes: limit,
        eviction: text("maxmemory_policy"),
        evicted: number("evicted_keys").unwrap_or(0),
        refusal: refusal(&fields, &text("redis_version")),
    })
}

fn number_or_text(fields: &HashMap<&str, &str>, first: &str, second: &str) -> String {
    fields.get(first).or_else(|| fields.get(second)).copied().unwrap_or("unknown").to_owned()
}

/// Why a server is refused whatever the plan says.
fn refusal(fields: &HashMap<&str, &str>, version: &str) -> Option<String> {
    if fields.get("cluster_enabled") == Some(&"1") {
        return Some("it runs in cluster mode (cluster_enabled), which is not built yet".into());
    }
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let release = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if release < (6, 2) {
        return Some(format!("version {version} is older than 6.2, which SET PXAT needs"));
    }
    None
}

pub(super) async fn sentinel(
    connection: &mut Connection,
    key: &str,
    address: &str,
    run_id: &str,
) -> Result<Sentinel> {
    let note: Option<String> = redis::cmd("GET")
        .arg(key)
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot read the sentinel of", address))?;
    Ok(match note {
        None => Sentinel::Missing,
        Some(note) if run_of(&note).as_deref() == Some(run_id) => Sentinel::Ours,
        Some(note) => Sentinel::Foreign(note),
    })
}

/// The run id is the first word of the note.
pub(super) fn run_of(note: &str) -> Option<String> {
    note.split_whitespace().next().map(str::to_owned)
}

pub(super) async fn claim(
    connection: &mut Connection,
    key: &str,
    address: &str,
    run_id: &str,
    note: &str,
) -> Result<Sentinel> {
    let _set: Option<String> = redis::cmd("SET")
        .arg(key)
        .arg(format!("{run_id} {note}"))
        .arg("NX")
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot write the sentinel of", address))?;
    sentinel(connection, key, address, run_id).await
}

pub(super) async fn annotate(
    connection: &mut Connection,
    key: &str,
    address: &str,
    run_id: &str,
    note: &str,
) -> Result<()> {
    const SCRIPT: &str = "local note = redis.call('GET', KEYS[1]) \
        if note and string.match(note, '^%S+') == ARGV[1] \
        then redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2]) end return 0";
    let _done: i64 = redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(key)
        .arg(run_id)
        .arg(note)
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot change the sentinel of", address))?;
    Ok(())
}

pub(super) async fn release(
    connection: &mut Connection,
    key: &str,
    address: &str,
    run_id: &str,
) -> Result<()> {
    // Compare and delete in one step, so that a mark another run left meanwhile survives.
    const SCRIPT: &str = "local note = redis.call('GET', KEYS[1]) \
        if note and string.match(note, '^%S+') == ARGV[1] \
        then return redis.call('DEL', KEYS[1]) end return 0";
    let _removed: i64 = redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(key)
        .arg(run_id)
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot remove the sentinel of", address))?;
    Ok(())
}

/// Commands per pipeline of the key-wise passes.
const COMMANDS_MAX: usize = 32;

pub(super) async fn count_existing(
    connection: &mut Connection,
    address: &str,
    keys: &[Bytes],
) -> Result<u64> {
    sum_over(connection, "EXISTS", keys)
        .await
        .map_err(|error| failed(error, "cannot count keys of", address))
}

pub(super) async fn remove(
    connection: &mut Connection,
    address: &str,
    keys: &[Bytes],
) -> Result<u64> {
    sum_over(connection, "DEL", keys)
        .await
        .map_err(|error| failed(error, "cannot remove keys of", address))
}

async fn sum_over(
    connection: &mut Connection,
    command: &str,
    keys: &[Bytes],
) -> std::result::Result<u64, RedisError> {
    let mut total = 0;
    for group in keys.chunks(READ_KEYS_MAX * COMMANDS_MAX) {
        let mut pipeline = Pipeline::with_capacity(COMMANDS_MAX);
        for slice in group.chunks(READ_KEYS_MAX) {
            let added = pipeline.cmd(command);
            for key in slice {
                added.arg(&key[..]);
            }
        }
        let counts: Vec<u64> = pipeline.query_async(connection).await?;
        total += counts.iter().sum::<u64>();
    }
    Ok(total)
}

pub(super) async fn compare(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    expected: &[(Bytes, u64, i64)],
) -> Result<Vec<(usize, Difference)>> {
    let keys = expected.iter().map(|(key, ..)| &key[..]);
    let (now_ms, found) = stored_entries(connection, address, route, keys).await?;
    let mut differences = Vec::new();
    for (index, ((_, hash, expires_ms), stored)) in expected.iter().zip(&found).enumerate() {
        if let Some(difference) = stored.differs_from(*hash, *expires_ms, now_ms) {
            differences.push((index, difference));
        }
    }
    Ok(differences)
}

/// Reads what is under each of the keys, and the server's clock in milliseconds since 1970.
pub(super) async fn stored_entries<'a>(
    connection: &mut Connection,
    address: &str,
    route: &BoundRoute,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<(i64, Vec<StoredEntry>)> {
    let read = match route.route.layout {
        Layout::Hash => "HGETALL",
        Layout::RedisJson => "JSON.GET",
        _ => "GET",
    };
    let mut pipeline = Pipeline::new();
    pipeline.ignore_errors().cmd("TIME");
    let mut count = 0;
    for key in keys {
        pipeline.cmd(read).arg(key);
        pipeline.cmd("PTTL").arg(key);
        count += 1;
    }
    let values: Vec<redis::RedisResult<Value>> = pipeline
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot read back from", address))?;
    let values =
        about_keys(values).map_err(|error| failed(error, "cannot read back from", address))?;
    let mut values = values.into_iter();
    let now_ms = server_ms(values.next())?;
    let entries = (0..count).map(|_| {
        let (value, ttl) = (values.next(), values.next());
        StoredEntry::of(route, value, ttl, now_ms)
    });
    Ok((now_ms, entries.collect()))
}

/// Lets an error stand that tells of its key, which holds another type, and fails with any other: what a server refuses
/// to say of a key is no word about the key.
pub(super) fn about_keys(
    replies: Vec<redis::RedisResult<Value>>,
) -> redis::RedisResult<Vec<redis::RedisResult<Value>>> {
    let is_of_its_key = |error: &RedisError| error.code().map(kind_of_reply) == Some(Kind::Refused);
    let standing = replies.into_iter().map(|reply| match reply {
        Err(error) if !is_of_its_key(&error) => Err(error),
        reply => Ok(reply),
    });
    standing.collect()
}

/// Reads the reply to `TIME`, in milliseconds since 1970.
pub(super) fn server_ms(reply: Option<redis::RedisResult<Value>>) -> Result<i64> {
    reply
        .and_then(redis::RedisResult::ok)
        .and_then(|value| redis::from_redis_value::<(i64, i64)>(value).ok())
        .map(|(seconds, micros)| seconds * 1000 + micros / 1000)
        .ok_or_else(|| Error::new(Kind::Internal, "redis did not tell its time"))
}

/// What was found under a key.
pub(super) struct StoredEntry {
    exists: bool,
    /// `None` when the value has another type.
    pub(super) value_hash: Option<u64>,
    /// What it says of its version, where the route compares versions.
    pub(super) version: Stored,
    /// Absolute expiry in ms; 0 when there is none.
    expires_ms: i64,
}

impl StoredEntry {
    fn of(
        route: &BoundRoute,
        value: Option<redis::RedisResult<Value>>,
        ttl: Option<redis::RedisResult<Value>>,
        now_ms: i64,
    ) -> Self {
        let found = value.and_then(redis::RedisResult::ok).and_then(|value| match value {
            Value::BulkString(bytes) if route.route.layout == Layout::RedisJson => {
                let hash = DocumentHasher::default().hash(&bytes);
                hash.map(|hash| (hash, Stored::in_json(route, &bytes)))
            }
            Value::BulkString(bytes) => {
                Some((layout::string_value_hash(&bytes), Stored::in_json(route, &bytes)))
            }
            Value::Array(_) | Value::Map(_) => {
                redis::from_redis_value::<Vec<(Vec<u8>, Vec<u8>)>>(value).ok().map(|pairs| {
                    let pairs = pairs.iter().map(|(name, value)| (&name[..], &value[..]));
                    let version = Stored::in_hash(route, pairs.clone());
                    (layout::hash_value_hash(route, pairs), version)
                })
            }
            _ => None,
        });
        let (value_hash, version) = found.unzip();
        Self::new(value_hash, version.unwrap_or(Stored::Nothing), ttl, now_ms)
    }

    /// Takes the hash of a value, its version and the reply to `PTTL`.
    pub(super) fn new(
        value_hash: Option<u64>,
        version: Stored,
        ttl: Option<redis::RedisResult<Value>>,
        now_ms: i64,
    ) -> Self {
        let ttl = ttl
            .and_then(redis::RedisResult::ok)
            .and_then(|value| redis::from_redis_value::<i64>(value).ok())
            .unwrap_or(-2);
        // -2: no such key; -1: no expiry (Redis command reference, PTTL).
        Self {
            exists: ttl != -2,
            value_hash,
            version,
            expires_ms: if ttl >= 0 { now_ms + ttl } else { 0 },
        }
    }

    /// Returns it as whoever compares it himself takes it.
    pub(super) fn stored(&self) -> redis_entries::Stored {
        let Self { exists, value_hash: value, version, expires_ms } = *self;
        if exists {
            redis_entries::Stored::There { value, expires_ms, version }
        } else {
            redis_entries::Stored::Missing
        }
    }

    pub(super) fn differs_from(
        &self,
        hash: u64,
        expires_ms: i64,
        now_ms: i64,
    ) -> Option<Difference> {
        if !self.exists {
            let has_expired = expires_ms != 0 && expires_ms <= now_ms + EXPIRY_TOLERANCE_MS;
            return (!has_expired).then_some(Difference::Missing);
        }
        if self.value_hash != Some(hash) {
            return Some(Difference::Value);
        }
        let is_same_expiry = (self.expires_ms == 0) == (expires_ms == 0)
            && (self.expires_ms - expires_ms).abs() <= EXPIRY_TOLERANCE_MS;
        (!is_same_expiry).then_some(Difference::Expiry)
    }
}
