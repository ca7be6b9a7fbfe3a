//! Reads how full and how busy a Redis is, and what sampled keys take in it.
//!
//! Invariant: what is written to find that out has a name of its own, comes with its expiry in one transaction, so that
//! no end of this process leaves it for good, and is removed at once.

use super::control::failed;
use crate::error::{Error, Result};
use crate::load::{Footprint, Limit, Pressure, Sampled};
use crate::transform::many_rows::TEMPORARY_PREFIX;
use deadpool_redis::Connection;
use redis::{RedisResult, Value};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Below this many bytes in use, what the process itself takes hides how its memory is fragmented.
const FRAGMENTATION_FROM: u64 = 64 << 20;
/// How long a sampled key stays, should nobody remove it.
const SAMPLE_TTL_MS: u64 = 60_000;

/// Reads INFO and DBSIZE.
pub(super) async fn read(connection: &mut Connection, address: &str) -> Result<Pressure> {
    let (info, entries): (String, u64) = redis::pipe()
        .cmd("INFO")
        .cmd("DBSIZE")
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot read INFO of", address))?;
    Ok(Pressure { entries, ..of_info(&info) })
}

fn of_info(info: &str) -> Pressure {
    let fields: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default().to_owned();
    let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok());
    let used = number("used_memory").unwrap_or(0);
    let resident = number("used_memory_rss").unwrap_or(used);
    let own = number("maxmemory").filter(|&bytes| bytes > 0).map(Limit::Own);
    let machine = number("total_system_memory").filter(|&bytes| bytes > 0).map(Limit::Machine);
    // A limit is kept by what the allocator gave out, a machine by what is resident.
    let used_bytes = match own {
        Some(_) => used.saturating_sub(number("mem_not_counted_for_evict").unwrap_or(0)),
        None => resident.max(used),
    };
    let fragmentation = if used < FRAGMENTATION_FROM {
        1.0
    } else {
        (resident as f64 / used as f64).clamp(1.0, 2.0)
    };
    Pressure {
        process_id: text("run_id"),
        used_bytes,
        limit: own.or(machine),
        eviction: text("maxmemory_policy"),
        evicted: number("evicted_keys").unwrap_or(0),
        entries: 0,
        replica_lag_bytes: replica_lag(&fields),
        cpu: cpu(&fields),
        fragmentation,
    }
}

/// The time of the main thread (from Redis 6.2 on), or else of the whole process.
fn cpu(fields: &HashMap<&str, &str>) -> Option<Duration> {
    let seconds = |name: &str| fields.get(name)?.parse::<f64>().ok();
    let sum = |suffix: &str| {
        let parts = ["user", "sys"].map(|part| seconds(&format!("used_cpu_{part}{suffix}")));
        parts.into_iter().sum::<Option<f64>>()
    };
    let seconds = sum("_main_thread").or_else(|| sum(""))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `slave0:ip=…,port=…,state=online,offset=…,lag=…`; one that is not online yet is sent a whole copy, not a stream.
fn replica_lag(fields: &HashMap<&str, &str>) -> Option<u64> {
    let written: u64 = fields.get("master_repl_offset")?.parse().ok()?;
    let replicas = fields.iter().filter(|(name, _)| {
        name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    replicas
        .filter_map(|(_, line)| {
            let part = |name: &str| {
                line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            };
            let offset: u64 = part("offset")?.parse().ok()?;
            (part("state") == Some("online")).then(|| written.saturating_sub(offset))
        })
        .max()
}

/// Times one PING.
pub(super) async fn ping(connection: &mut Connection, address: &str) -> Result<Duration> {
    let asked = Instant::now();
    redis::cmd("PING")
        .query_async::<String>(connection)
        .await
        .map_err(|error| failed(error, "cannot ping", address))?;
    Ok(asked.elapsed())
}

/// Writes the keys under temporary names, asks what they and those in their places take, and removes them.
pub(super) async fn measure(
    connection: &mut Connection,
    address: &str,
    samples: &[Sampled],
    nonce: &str,
) -> Result<Vec<Footprint>> {
    let name = |index: usize, key: &[u8]| {
        [format!("{TEMPORARY_PREFIX}{nonce}:{index}:").as_bytes(), key].concat()
    };
    let names: Vec<Vec<u8>> =
        samples.iter().enumerate().map(|(index, sample)| name(index, sample.key())).collect();
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    let mut replies = Vec::with_capacity(samples.len());
    let mut count = 0;
    for (sample, name) in samples.iter().zip(&names) {
        pipeline.cmd("MULTI");
        for words in &sample.commands {
            let command = pipeline.cmd(&String::from_utf8_lossy(&words[0])).arg(name);
            for word in words.iter().skip(2) {
                command.arg(word);
            }
        }
        pipeline.cmd("PEXPIRE").arg(name).arg(SAMPLE_TTL_MS);
        pipeline.cmd("EXEC");
        pipeline.cmd("MEMORY").arg("USAGE").arg(name).arg("SAMPLES").arg(0);
        // Of what is there only some elements are looked at: it may be large, and the server waits.
        pipeline.cmd("MEMORY").arg("USAGE").arg(sample.key());
        pipeline.cmd("DEL").arg(name);
        // MULTI, PEXPIRE and EXEC are answered as well.
        count += sample.commands.len() + 3;
        replies.push(count);
        count += 3;
    }
    let answers: Vec<RedisResult<Value>> = pipeline
        .query_async(connection)
        .await
        .map_err(|error| failed(error, "cannot measure keys in", address))?;
    let told = |at: usize| match answers.get(at) {
        Some(Ok(Value::Int(bytes))) => u64::try_from(*bytes).ok(),
        Some(Ok(Value::Nil)) => Some(0),
        _ => None,
    };
    if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
        full(error, address)?;
    }
    Ok(replies
        .into_iter()
        .zip(samples)
        .zip(&names)
        .map(|((at, sample), name)| {
            // The name of the sample is longer than the key.
            let longer = (name.len() - sample.key().len()) as u64;
            let bytes = told(at).filter(|bytes| *bytes > 0);
            Footprint {
                bytes: bytes.map(|bytes| bytes.saturating_sub(longer)),
                replaced_bytes: told(at + 1),
            }
        })
        .collect())
}

/// A server that has no room for a sample has none for a run; any other refusal leaves the figure unknown.
fn full(error: &redis::RedisError, address: &str) -> Result<()> {
    let shaped: Error = failed(error.clone(), "cannot write a sample to", address);
    tracing::debug!(error = %shaped, "a sampled key could not be measured");
    if shaped.kind() == crate::error::Kind::Capacity { Err(shaped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nrun_id:abc\r\n# Memory\r\nused_memory:200000000\r\n\
        used_memory_rss:260000000\r\nmaxmemory:0\r\ntotal_system_memory:1000000000\r\n\
        maxmemory_policy:allkeys-lru\r\nmem_not_counted_for_evict:50\r\n# Stats\r\nevicted_keys:3\r\n\
        # Replication\r\nmaster_repl_offset:1000\r\n\
        slave0:ip=10.0.0.1,port=1,state=online,offset=400,lag=1\r\n\
        slave1:ip=10.0.0.2,port=1,state=wait_bgsave,offset=0,lag=0\r\nslave_expires_tracked_keys:7\r\n";

    #[test]
    fn without_a_limit_the_machine_bounds_what_is_resident() {
        let found = of_info(INFO);
        assert_eq!(found.limit, Some(Limit::Machine(1_000_000_000)));
        assert_eq!((found.used_bytes, found.evicted), (260_000_000, 3));
        assert!((found.fragmentation - 1.3).abs() < 1e-9, "{found:?}");
        // A replica that takes a whole copy is no slow one.
        assert_eq!(found.replica_lag_bytes, Some(600));
    }

    #[test]
    fn a_limit_does_not_count_the_buffers_of_replicas() {
        let found = of_info(&INFO.replace("maxmemory:0", "maxmemory:300000000"));
        assert_eq!(found.limit, Some(Limit::Own(300_000_000)));
        assert_eq!(found.used_bytes, 199_999_950);
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let found = of_info("used_memory:1000\r\nused_memory_rss:9000\r\n");
        assert_eq!((found.limit, found.replica_lag_bytes), (None, None));
        assert!((found.fragmentation - 1.0).abs() < 1e-9);
    }
}
