//! Real rows of a route as the keys they become, to find out what they take.
//!
//! Invariant: it reads the beginning of a few partitions and lets go of each read at once; a route that gives nothing in
//! time is unknown, never small.

use crate::lane::now_ms;
use crate::plan::commands;
use crate::route::RouteRun;
use schemas::{Partition, Position};
use stages::load::Sampled;
use stages::transform::{Attempt, Style};
use stages::{Encoded, Result};
use std::collections::HashMap;
use std::time::Duration;

/// Partitions whose beginning is read.
pub(crate) const PARTITIONS_MAX: usize = 4;
/// Rows read of each, where the source can be told.
const ROWS_MAX: usize = 2000;
/// Keys taken of each.
const KEYS_MAX: usize = 24;
/// Bytes of keys taken of each, so that a sample does not fill what it is to protect.
const BYTES_MAX: usize = 256 * 1024;
/// Entries taken of a stream: enough to fill some of its nodes.
const ENTRIES_MAX: usize = 400;
/// How long one read may take: a partition that is sorted first may take long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Keys of a route, with the rows behind them.
#[derive(Debug, Default)]
pub(super) struct RouteSample {
    pub(super) keys: Vec<Sampled>,
    /// Rows that make those keys, about: of a route of many rows per key, elements.
    pub(super) rows: u64,
    /// Keys per row: 1, less where rows are left out, rejected or have expired, or share a key.
    pub(super) keys_per_row: f64,
}

/// Takes rows from the beginnings of some of the partitions.
pub(super) async fn sample(
    route: &RouteRun,
    partitions: &[(Partition, Position)],
) -> Result<RouteSample> {
    if route.bound.is_many() && route.source.held_bytes() > 0 {
        // Its rows are sorted before the first one is there; reading all of them twice, and being billed, is no sample.
        return Ok(RouteSample { keys_per_row: 1.0, ..RouteSample::default() });
    }
    let is_many = route.bound.is_many() || route.bound.is_stream();
    let step = partitions.len().div_ceil(PARTITIONS_MAX).max(1);
    let (mut found, mut read, mut carried) = (RouteSample::default(), 0, 0);
    for (partition, position) in partitions.iter().step_by(step) {
        let reading = tokio::time::timeout(PATIENCE, first_batch(route, partition, position));
        let Ok(batch) = reading.await else { continue };
        for encoded in batch? {
            read += encoded.rows_read;
            let keys = take(&encoded, is_many);
            // Of keys of one row each, as many as there are entries; of others, as many as their elements tell.
            carried += encoded.entries.len() as u64;
            found.rows += keys.iter().map(|key| rows_of(key, is_many)).sum::<u64>();
            found.keys.extend(keys);
        }
    }
    found.keys_per_row = if read == 0 { 1.0 } else { carried as f64 / read as f64 };
    Ok(found)
}

/// Encodes the first rows behind a position, as a run would.
pub(crate) async fn first_batch(
    route: &RouteRun,
    partition: &Partition,
    position: &Position,
) -> Result<Vec<Encoded>> {
    let session = route.source.open().await?;
    let mut stream = session.sample(partition, position, ROWS_MAX);
    let Some(raw) = stream.next().await else { return Ok(Vec::new()) };
    let mut raw = raw?;
    // Whatever follows is not read: the last key is what it is so far.
    raw.is_last = true;
    let transform = (route.transform)(&partition.bounds, Style::Blank);
    let mut encoded = transform.apply(raw, now_ms())?;
    let attempt = Attempt { name: "sample", number: 0 };
    match (encoded.open.take(), transform.stitcher(&attempt)) {
        (Some(open), Some(mut stitcher)) => stitcher.take(open),
        _ => Ok(vec![encoded]),
    }
}

/// Some of the keys that the commands write, spread over all of them.
fn take(encoded: &Encoded, is_many: bool) -> Vec<Sampled> {
    let Ok(commands) = commands(&encoded.payload) else { return Vec::new() };
    let mut keys: Vec<Sampled> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for words in commands.into_iter().flat_map(writes) {
        if is_many && let Some(place) = places.get(&words[1]) {
            let commands = &mut keys[*place].commands;
            if words[0] != b"XADD" || commands.len() < ENTRIES_MAX {
                commands.push(words);
            }
            continue;
        }
        places.insert(words[1].clone(), keys.len());
        keys.push(Sampled { commands: vec![words] });
    }
    let step = keys.len().div_ceil(KEYS_MAX).max(1);
    let mut bytes = 0;
    let is_small = |key: &Sampled| {
        bytes += key.commands.iter().flatten().map(Vec::len).sum::<usize>();
        bytes <= BYTES_MAX
    };
    keys.into_iter().step_by(step).take_while(is_small).collect()
}

/// The commands that put something under a key, one key each.
fn writes(mut words: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    match words.first().map(Vec::as_slice) {
        Some(b"MSET") => {
            let pairs = words[1..].chunks_exact(2);
            pairs.map(|pair| vec![b"SET".to_vec(), pair[0].clone(), pair[1].clone()]).collect()
        }
        // Without the options: an expiry that is near would remove the sample.
        Some(b"SET") if words.len() >= 3 => {
            words.truncate(3);
            vec![words]
        }
        Some(b"HSET" | b"SADD" | b"ZADD" | b"RPUSH" | b"JSON.SET" | b"XADD")
            if words.len() >= 3 =>
        {
            vec![words]
        }
        _ => Vec::new(),
    }
}

fn rows_of(key: &Sampled, is_many: bool) -> u64 {
    if !is_many {
        return 1;
    }
    let per_element = match key.commands[0][0].as_slice() {
        b"XADD" => return key.commands.len() as u64,
        b"HSET" | b"ZADD" => 2,
        _ => 1,
    };
    key.commands.iter().map(|words| (words.len() - 2) as u64 / per_element).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn encoded(payload: &str) -> Encoded {
        let resp = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let bulk = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
            format!("*{}\r\n{}", words.len(), bulk.collect::<String>())
        };
        let payload: String = payload.lines().map(resp).collect();
        Encoded { payload: Bytes::from(payload), ..Encoded::empty() }
    }

    #[test]
    fn commands_become_keys() {
        let keys = take(&encoded("MSET a 1 b 2\nMULTI\nHSET h f v\nPEXPIREAT h 9\nEXEC"), false);
        let names: Vec<&[u8]> = keys.iter().map(Sampled::key).collect();
        assert_eq!(names, [b"a", b"b", b"h"]);
        let keys = take(&encoded("SET a 1 PXAT 99"), false);
        assert_eq!(keys[0].commands[0].len(), 3);
    }

    #[test]
    fn pieces_of_one_key_of_many_rows_are_one() {
        let keys = take(&encoded("ZADD z 1 a 2 b\nZADD z 3 c\nZADD y 1 a"), true);
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.iter().map(|key| rows_of(key, true)).sum::<u64>(), 4);
        let keys = take(&encoded("XADD s 1-0 f v g w\nXADD s 2-0 f v"), true);
        assert_eq!((keys.len(), rows_of(&keys[0], true)), (1, 2));
    }
}
