//! Rows that an application keeps in a Redis: looked for by SCAN, read in pipelined pages, handed over as raw replies.
//!
//! Invariant: it only reads. A page is complete when every reply to it was counted; what a reply says is left to the
//! CPU pool (`transform::redis_rows`), but for errors that concern the server and not a key.

mod replies;
mod scan;

pub use replies::{Replies, Reply};
pub use scan::{EntryId, RedisRows, ScanPage, StreamState};

use crate::connect::redis::{Endpoint, Stream, from_reply};
use crate::error::{Error, Kind, Result};
use crate::load::redis::reply::{Reply as Counted, Scanner};
use crate::policy;
use crate::transform::redis_command::resp::{write_array, write_bulk};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Room made in the buffer per read.
const READ_BYTES: usize = 256 << 10;

/// What rows are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// One hash per row.
    Hashes,
    /// One string with a JSON object per row.
    Texts,
    /// Many entries in a stream, one per row.
    Streams,
}

impl Held {
    /// Returns the word of `TYPE`.
    pub fn redis_type(self) -> &'static str {
        match self {
            Self::Hashes => "hash",
            Self::Texts => "string",
            Self::Streams => "stream",
        }
    }
}

/// Commands in their wire format, and how many replies they bring.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

impl Commands {
    /// Adds one command.
    pub fn push(&mut self, words: &[&[u8]]) {
        write_array(words.len(), &mut self.bytes);
        for word in words {
            write_bulk(word, &mut self.bytes);
        }
        self.count += 1;
    }

    /// Adds the command that reads the row under a key.
    pub fn read(&mut self, held: Held, key: &[u8]) {
        match held {
            Held::Hashes => self.push(&[b"HGETALL", key]),
            Held::Texts => self.push(&[b"GET", key]),
            Held::Streams => self.push(&[b"XRANGE", key, b"-", b"+"]),
        }
    }

    /// Adds the command that reads entries of a stream, both ends included, at most so many.
    pub fn range(&mut self, key: &[u8], from: EntryId, to: EntryId, entries: u64) {
        let (from, to, entries) = (from.to_string(), to.to_string(), entries.to_string());
        self.push(&[b"XRANGE", key, from.as_bytes(), to.as_bytes(), b"COUNT", entries.as_bytes()]);
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A connection of its own for the pages of one partition.
pub struct RowReader {
    endpoint: Endpoint,
    stream: Option<Box<dyn Stream>>,
    buffer: BytesMut,
}

impl RowReader {
    /// Names the server; the first page connects.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), stream: None, buffer: BytesMut::new() }
    }

    /// Takes a stream that was opened before.
    pub(crate) fn on(endpoint: &Endpoint, stream: Box<dyn Stream>) -> Self {
        Self { endpoint: endpoint.clone(), stream: Some(stream), buffer: BytesMut::new() }
    }

    /// Gives the stream back; none after a failure. Nothing that was received is left behind: `ask` takes it whole.
    pub(crate) fn into_stream(self) -> Option<Box<dyn Stream>> {
        self.stream
    }

    /// Sends commands and returns their replies as the wire carried them.
    ///
    /// An error reply about a key (`WRONGTYPE`, no such key) is one of the replies; any other fails the page. After a
    /// failure, and after a page that was dropped on its way, the next page connects anew.
    pub async fn ask(&mut self, commands: &Commands) -> Result<Bytes> {
        self.buffer.clear();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.endpoint.stream().await?,
        };
        // Kept only now: what was asked and not received would be taken for the answers of the next page.
        let asked = self.exchange(&mut *stream, commands).await?;
        self.stream = Some(stream);
        Ok(asked)
    }

    async fn exchange(&mut self, stream: &mut dyn Stream, commands: &Commands) -> Result<Bytes> {
        let address = &self.endpoint.address;
        let lost = |error: std::io::Error| {
            Error::new(Kind::Connection, format!("lost redis at {address} while reading rows"))
                .with_source(error)
        };
        let answer_max = policy::answer_max();
        let late = |_| policy::silent(&format!("redis at {address}"), answer_max);
        let write = async {
            stream.write_all(&commands.bytes).await?;
            stream.flush().await
        };
        tokio::time::timeout(answer_max, write).await.map_err(late)?.map_err(lost)?;
        let mut scanner = Scanner::default();
        let (mut taken, mut counted) = (0, 0);
        let mut failure = None;
        while counted < commands.count {
            self.buffer.reserve(READ_BYTES);
            let read = stream.read_buf(&mut self.buffer);
            let bytes =
                tokio::time::timeout(answer_max, read).await.map_err(late)?.map_err(lost)?;
            if bytes == 0 {
                return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
            taken += scanner.scan(&self.buffer[taken..], &mut |reply| {
                counted += 1;
                if let Counted::Error(text) = reply
                    && failure.is_none()
                    && !concerns_a_key(&text)
                {
                    failure = Some(text);
                }
            })?;
        }
        if let Some(text) = failure {
            return Err(from_reply(&text, &format!("cannot read rows from redis at {address}")));
        }
        if taken != self.buffer.len() || counted != commands.count {
            return Err(Error::new(
                Kind::Connection,
                format!("redis at {address} sent more than it was asked for"),
            ));
        }
        Ok(self.buffer.split().freeze())
    }
}

/// Whether an error reply is about the key that was asked for.
fn concerns_a_key(text: &str) -> bool {
    // The second is what the JSON module says for WRONGTYPE.
    ["WRONGTYPE", "Existing key has wrong Redis type", "ERR no such key"]
        .iter()
        .any(|known| text.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_framed_as_redis_reads_them() {
        let mut commands = Commands::default();
        commands.read(Held::Hashes, b"log:1");
        commands.range(b"s", EntryId { ms: 5, seq: 1 }, EntryId::MAX, 10);
        assert_eq!(commands.len(), 2);
        let text = String::from_utf8(commands.bytes).unwrap();
        assert!(text.starts_with("*2\r\n$7\r\nHGETALL\r\n$5\r\nlog:1\r\n*6\r\n"), "{text}");
        assert!(
            text.contains("$3\r\n5-1\r\n") && text.ends_with("COUNT\r\n$2\r\n10\r\n"),
            "{text}"
        );
    }

    #[test]
    fn only_errors_about_the_server_fail_a_page() {
        assert!(concerns_a_key(
            "WRONGTYPE Operation against a key holding the wrong kind of value"
        ));
        assert!(concerns_a_key("Existing key has wrong Redis type"));
        assert!(!concerns_a_key("LOADING Redis is loading the dataset in memory"));
        assert!(!concerns_a_key("NOAUTH Authentication required."));
    }
}
