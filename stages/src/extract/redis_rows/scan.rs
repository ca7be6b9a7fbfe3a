//! Looking for rows: gentle SCAN pages, and what `XINFO STREAM` says of streams.
//!
//! Invariant: a key that is there from the first page to the last is in one of them; it may be in several.

use super::{Commands, Held, Replies, Reply, RowReader};
use crate::connect::redis::{Endpoint, from_pool, from_redis};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_values::escaped;
use crate::load::TargetState;
use crate::load::redis::control;
use deadpool_redis::{Connection, Pool};
use std::fmt;

/// Keys a server looks at per call of SCAN.
const SCAN_COUNT: usize = 1000;
/// Connections for everything but the pages of rows.
const CONNECTIONS: usize = 2;

/// The id of a stream entry: milliseconds, and a number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Milliseconds since 1970, unless the application gives ids of its own.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl EntryId {
    /// Before every entry.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// Behind every entry.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// Reads `ms-seq`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// Returns the id as one number that orders like it.
    pub fn number(self) -> u128 {
        (u128::from(self.ms) << 64) | u128::from(self.seq)
    }

    /// Returns the id of such a number.
    pub fn of_number(number: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
        let (ms, seq) = ((number >> 64) as u64, number as u64);
        Self { ms, seq }
    }

    /// Returns the next id, if there is one.
    pub fn after(self) -> Option<Self> {
        self.number().checked_add(1).map(Self::of_number)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What a stream held when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// Number of entries.
    pub entries: u64,
    /// The first entry.
    pub first: EntryId,
    /// The last id given; later entries have greater ones.
    pub last: EntryId,
}

/// Some of the keys.
#[derive(Debug)]
pub struct ScanPage {
    /// Where to go on; 0 is the end.
    pub next: u64,
    /// Keys of the type that was asked for.
    pub keys: Vec<Vec<u8>>,
}

/// A Redis with rows of an application. Cheap to clone.
#[derive(Clone)]
pub struct RedisRows {
    endpoint: Endpoint,
    pool: Pool,
}

impl RedisRows {
    /// Names the server; nothing is connected yet.
    pub fn new(endpoint: Endpoint) -> Result<Self> {
        let pool = endpoint.pool(CONNECTIONS)?;
        Ok(Self { endpoint, pool })
    }

    /// Where it is, without credentials.
    pub fn address(&self) -> &str {
        &self.endpoint.address
    }

    /// Makes a reader with a connection of its own.
    pub fn reader(&self) -> RowReader {
        RowReader::new(&self.endpoint)
    }

    /// Reads who the server is and what it holds.
    pub async fn state(&self) -> Result<TargetState> {
        control::state(&mut self.connection().await?, &self.endpoint.address).await
    }

    /// Returns one page of the keys of a type that begin with a prefix.
    pub async fn scan(&self, cursor: u64, held: Held, prefix: &str) -> Result<ScanPage> {
        let (next, keys) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{}*", escaped(prefix)))
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .arg("TYPE")
            .arg(held.redis_type())
            .query_async(&mut self.connection().await?)
            .await
            .map_err(|error| {
                from_redis(error, &format!("cannot look for rows in redis at {}", self.address()))
            })?;
        Ok(ScanPage { next, keys })
    }

    async fn connection(&self) -> Result<Connection> {
        let what = format!("cannot reach redis at {}", self.address());
        self.pool.get().await.map_err(|error| from_pool(error, &what))
    }
}

impl RowReader {
    /// Looks at streams; `None` for a key that is none (any more), or holds no entry.
    pub async fn streams(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<StreamState>>> {
        let mut commands = Commands::default();
        for key in keys {
            commands.push(&[b"XINFO", b"STREAM", key]);
        }
        let bytes = self.ask(&commands).await?;
        let mut replies = Replies::new(&bytes);
        keys.iter().map(|_| stream(&mut replies)).collect()
    }
}

/// Reads one reply of `XINFO STREAM`.
fn stream(replies: &mut Replies<'_>) -> Result<Option<StreamState>> {
    let Reply::Array(elements) = replies.token()? else { return Ok(None) };
    let (mut entries, mut first, mut last) = (None, None, None);
    for _ in 0..elements / 2 {
        let name = replies.token()?;
        let mut value = replies.clone();
        match (name, value.token()?) {
            (Reply::Text(b"length"), Reply::Integer(length)) => {
                entries = u64::try_from(length).ok();
            }
            (Reply::Text(b"last-generated-id"), Reply::Text(id)) => last = EntryId::parse(id),
            (Reply::Text(b"first-entry"), Reply::Array(_)) => {
                if let Reply::Text(id) = value.token()? {
                    first = EntryId::parse(id);
                }
            }
            _ => {}
        }
        replies.skip()?;
    }
    match (entries, first, last) {
        (Some(0), _, _) => Ok(None),
        (Some(entries), Some(first), Some(last)) => Ok(Some(StreamState { entries, first, last })),
        _ => Err(Error::new(Kind::Internal, "redis does not tell what a stream holds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_as_numbers() {
        let id = EntryId::parse(b"1700000000000-3").unwrap();
        assert_eq!(EntryId::of_number(id.number()), id);
        assert_eq!(id.after().unwrap().to_string(), "1700000000000-4");
        assert_eq!(EntryId { ms: 5, seq: u64::MAX }.after(), Some(EntryId { ms: 6, seq: 0 }));
        assert_eq!(EntryId::MAX.after(), None);
        assert_eq!(EntryId::parse(b"5"), None);
    }

    #[test]
    fn a_stream_is_described_and_what_is_none_is_none() {
        let text = "*6\r\n$6\r\nlength\r\n:2\r\n$17\r\nlast-generated-id\r\n$3\r\n9-1\r\n\
            $11\r\nfirst-entry\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n-ERR no such key\r\n";
        let mut replies = Replies::new(text.as_bytes());
        let (first, last) = (EntryId { ms: 5, seq: 0 }, EntryId { ms: 9, seq: 1 });
        assert_eq!(stream(&mut replies).unwrap(), Some(StreamState { entries: 2, first, last }));
        assert_eq!(stream(&mut replies).unwrap(), None);
        assert!(replies.is_empty());
    }
}
