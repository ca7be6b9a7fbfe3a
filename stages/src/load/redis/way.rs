//! Which way hashes reach this server: `RESTORE` where it takes the payloads and they cost it less, else `HSET`.
//!
//! Invariant: `RESTORE` is chosen only after this very server gave back, field by field, what was restored; the
//! trial removes its keys again.

use super::pipe::Pipe;
use crate::connect::redis::from_redis;
use crate::error::{Error, Kind, Result};
use crate::transform::redis_command::{
    ListpackLimits, TrialEntry, Way, trial_edges, trial_entries, trial_payload, trial_removal,
};
use deadpool_redis::Connection;
use redis::{RedisResult, Value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows per round: long enough to be timed, short enough to be nothing on a busy server (a few milliseconds).
const TRIAL_ROWS: usize = 1024;
/// Rounds of each way; they alternate and the medians count.
const TRIAL_ROUNDS: usize = 5;

/// How the way is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayChoice {
    /// By a trial on the server.
    Auto,
    /// `HSET`, untried.
    Command,
    /// `RESTORE` where the server takes it, however fast; what is too long for its listpacks goes as `RedisCommands` says.
    Restore,
}

/// The way that was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The way.
    pub way: Way,
    /// Why, for people.
    pub reason: String,
}

impl Chosen {
    /// `HSET`, for a reason.
    pub(super) fn command(reason: impl Into<String>) -> Self {
        Self { way: Way::Command, reason: format!("HSET: {}", reason.into()) }
    }
}

/// Chooses the way for one server.
///
/// Errors only where the server cannot be reached; that it refuses `RESTORE` is a reason, not an error.
pub(super) async fn choose(
    choice: WayChoice,
    connection: &mut Connection,
    pipe: &Pipe,
    address: &str,
) -> Result<Chosen> {
    if choice == WayChoice::Command {
        return Ok(Chosen::command("asked for"));
    }
    let limits = limits(connection).await;
    let refusal = try_out(connection, pipe, limits, address).await?;
    if let Some(reason) = refusal {
        return Ok(Chosen::command(reason));
    }
    let way = Way::Restore(limits);
    if choice == WayChoice::Restore {
        return Ok(Chosen { way, reason: "RESTORE: asked for, and taken by the server".into() });
    }
    let [command, restore] = time_both(pipe, way).await?;
    let ratio = command.as_secs_f64() / restore.as_secs_f64().max(1e-9);
    if ratio <= 1.0 {
        return Ok(Chosen::command(format!(
            "in a trial RESTORE was only {ratio:.2} times as fast"
        )));
    }
    Ok(Chosen { way, reason: format!("RESTORE: in a trial {ratio:.2} times as fast as HSET") })
}

/// Reads the limits of the listpack encoding; a server that does not tell has the defaults of Redis 7.0.
async fn limits(connection: &mut Connection) -> ListpackLimits {
    let told: RedisResult<BTreeMap<String, usize>> =
        redis::cmd("CONFIG").arg("GET").arg("hash-max-listpack-*").query_async(connection).await;
    let told = told.unwrap_or_default();
    let defaults = ListpackLimits::default();
    let of = |name: &str, default| told.get(name).copied().unwrap_or(default);
    ListpackLimits {
        fields_max: of("hash-max-listpack-entries", defaults.fields_max),
        value_bytes_max: of("hash-max-listpack-value", defaults.value_bytes_max),
    }
    .bounded()
}

/// Restores entries that reach every branch of the payload and reads them back; returns why not, if not.
async fn try_out(
    connection: &mut Connection,
    pipe: &Pipe,
    limits: ListpackLimits,
    address: &str,
) -> Result<Option<String>> {
    let entries = trial_edges(limits);
    let rows = entries.len() as u64;
    let payload = trial_payload(&entries, Way::Restore(limits));
    match pipe.send(payload, Vec::new(), rows, false).await {
        Ok(_) => {}
        Err(error) if error.kind().is_transient() || error.kind() == Kind::Capacity => {
            return Err(error);
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let why = source.unwrap_or_else(|| error.to_string());
            return Ok(Some(format!("the server refuses RESTORE: {why}")));
        }
    }
    let mut pipeline = redis::pipe();
    for (key, _) in &entries {
        pipeline.cmd("HGETALL").arg(key);
    }
    let found: Vec<Value> = pipeline.query_async(connection).await.map_err(|error| {
        from_redis(error, &format!("cannot read trial keys back from redis at {address}"))
    })?;
    let is_same = found.len() == entries.len()
        && entries.iter().zip(found).all(|((_, fields), found)| is_equal(fields, found));
    remove(pipe, &entries).await?;
    Ok((!is_same).then(|| "the server gave back something else than was restored".to_owned()))
}

fn is_equal(fields: &[(&'static str, Vec<u8>)], found: Value) -> bool {
    let Ok(found) = redis::from_redis_value::<BTreeMap<Vec<u8>, Vec<u8>>>(found) else {
        return false;
    };
    found.len() == fields.len()
        && fields.iter().all(|(name, value)| found.get(name.as_bytes()) == Some(value))
}

/// Returns the median times of `HSET` and of `way` for the same entries.
async fn time_both(pipe: &Pipe, way: Way) -> Result<[Duration; 2]> {
    let entries = trial_entries(TRIAL_ROWS);
    let payloads = [trial_payload(&entries, Way::Command), trial_payload(&entries, way)];
    let mut times = [Vec::new(), Vec::new()];
    remove(pipe, &entries).await?;
    for _ in 0..TRIAL_ROUNDS {
        for (payload, times) in payloads.iter().zip(&mut times) {
            let started = Instant::now();
            let sent = pipe.send(payload.clone(), Vec::new(), TRIAL_ROWS as u64, false).await;
            times.push(started.elapsed());
            // Whatever became of it: nothing of the trial stays behind.
            remove(pipe, &entries).await?;
            sent?;
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    }))
}

async fn remove(pipe: &Pipe, entries: &[TrialEntry]) -> Result<()> {
    // DEL answers 0 for a key that is not there, which is no failure here.
    let removed = pipe.send(trial_removal(entries), Vec::new(), entries.len() as u64, true).await?;
    if removed.written + removed.kept == entries.len() as u64 {
        return Ok(());
    }
    Err(Error::new(Kind::Internal, "redis did not answer every removal of a trial key"))
}
