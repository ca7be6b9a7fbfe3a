//! One pipelined connection: requests go out in order, replies are counted against them in order.
//!
//! Invariant: a request is answered only after every one of its replies was read; when the connection
//! breaks, every unanswered request fails. The number of requests in flight is bounded.

use super::reply::{Reply, Scanner};
use crate::batch::Unit;
use crate::connect::redis::{Endpoint, Stream, from_reply};
use crate::error::{Error, Kind, Result};
use crate::failpoint::{Point, pass};
use crate::load::Written;
use crate::policy;
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Requests that may be on the wire of one connection at once.
pub const IN_FLIGHT_MAX: usize = 4;
/// Bytes handed to the socket per write.
const WRITE_BYTES: usize = 256 * 1024;

/// Bytes that a server is to read of one connection at a time: some 400 hashes, a millisecond of its thread, and no more,
/// because whoever else asks it waits for so long.
const SERVER_READ_BYTES: usize = 64 * 1024;

/// A payload and how its replies group.
pub(crate) struct Request {
    pub(crate) payload: Bytes,
    /// Empty: `rows` plain commands of one row each.
    pub(crate) units: Vec<Unit>,
    pub(crate) rows: u64,
    /// Whether a null or zero reply means that an existing key was left alone.
    pub(crate) may_keep: bool,
    pub(crate) answer: oneshot::Sender<Result<Written>>,
}

/// The sending end of a live connection. When the last clone is gone, so is the connection.
#[derive(Clone)]
pub(crate) struct Pipe {
    requests: mpsc::Sender<Request>,
    address: Arc<str>,
    _tasks: Arc<Tasks>,
}

/// The two tasks of a connection. One of them may wait for a peer that will never say a word again, so they are ended
/// from outside: else they would keep the connection, and the batches on it, for ever.
struct Tasks([JoinHandle<()>; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Pipe {
    /// Connects, runs `prepare` (raw commands, each answered by one non-error reply), and starts the two tasks.
    pub(crate) async fn open(endpoint: &Endpoint, prepare: &[Vec<u8>]) -> Result<Self> {
        Self::on(endpoint, endpoint.stream().await?, prepare).await
    }

    /// The same on a stream that was opened before.
    pub(crate) async fn on(
        endpoint: &Endpoint,
        stream: Box<dyn Stream>,
        prepare: &[Vec<u8>],
    ) -> Result<Self> {
        let (reading, writing) = tokio::io::split(stream);
        let (requests, incoming) = mpsc::channel(IN_FLIGHT_MAX);
        let (pending, awaited) = mpsc::channel(IN_FLIGHT_MAX);
        let tasks = Tasks([
            tokio::spawn(write_requests(writing, incoming, pending)),
            tokio::spawn(read_replies(reading, awaited, endpoint.address.clone())),
        ]);
        let pipe =
            Self { requests, address: endpoint.address.as_str().into(), _tasks: Arc::new(tasks) };
        pipe.widen_server_reads().await?;
        for command in prepare {
            let payload = Bytes::copy_from_slice(command);
            pipe.send(payload, Vec::new(), 1, false).await?;
        }
        Ok(pipe)
    }

    /// Sends one payload and waits until every reply to it was read, at most [`policy::answer_max`].
    pub(crate) async fn send(
        &self,
        payload: Bytes,
        units: Vec<Unit>,
        rows: u64,
        may_keep: bool,
    ) -> Result<Written> {
        let (answer, answered) = oneshot::channel();
        let request = Request { payload, units, rows, may_keep, answer };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        policy::answered(|| format!("redis at {}", self.address), exchange).await
    }

    /// Has the server read more per call than the 16 to 20 KiB it begins with, which spares it most of its calls and of its
    /// writes of replies: 0.1 us of the 2.5 us that a hash costs it, and as much of ours.
    ///
    /// Redis 7.0 and later fill the whole buffer of a connection (`readQueryFromClient` of `networking.c`), and keep the
    /// buffer that an argument of 32 KiB or more has needed as long as more than half of it is used
    /// (`processMultibulkBuffer`, `clientsCronResizeQueryBuffer`). Where that is not so, or an ACL refuses `PING`, nothing
    /// is gained and nothing lost.
    async fn widen_server_reads(&self) -> Result<()> {
        let filler = vec![b'.'; SERVER_READ_BYTES];
        let command = redis::cmd("PING").arg(filler).get_packed_command();
        match self.send(command.into(), Vec::new(), 1, false).await {
            Err(error) if matches!(error.kind(), Kind::Connection | Kind::Timeout) => Err(error),
            Err(error) => {
                tracing::debug!(%error, address = %self.address, "the server goes on reading as it does");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Whether its tasks have ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

fn closed() -> Error {
    Error::new(Kind::Connection, "the connection to redis was lost")
        .with_hint("see that the server is up, then run the same command again: it resumes")
}

struct Awaited {
    units: Vec<Unit>,
    rows: u64,
    may_keep: bool,
    answer: oneshot::Sender<Result<Written>>,
}

async fn write_requests(
    mut stream: WriteHalf<Box<dyn Stream>>,
    mut incoming: mpsc::Receiver<Request>,
    pending: mpsc::Sender<Awaited>,
) {
    while let Some(request) = incoming.recv().await {
        let Request { payload, units, rows, may_keep, answer } = request;
        let awaited = Awaited { units, rows, may_keep, answer };
        // Announced before it is written: a reply can never arrive for a request nobody waits for.
        if pending.send(awaited).await.is_err() {
            return;
        }
        for piece in payload.chunks(WRITE_BYTES) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        if stream.flush().await.is_err() {
            return;
        }
        pass(Point::BatchSent);
    }
}

async fn read_replies(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut awaited: mpsc::Receiver<Awaited>,
    address: String,
) {
    let mut scanner = Scanner::default();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    let mut replies: std::collections::VecDeque<Reply> = std::collections::VecDeque::new();
    while let Some(request) = awaited.recv().await {
        let mut tally = Tally::new(&request);
        loop {
            while !tally.is_complete() {
                let Some(reply) = replies.pop_front() else { break };
                tally.count(reply);
            }
            if tally.is_complete() {
                break;
            }
            if let Err(error) = fill(&mut stream, &mut buffer, &mut scanner, &mut replies).await {
                tracing::debug!(%error, %address, "connection lost while waiting for replies");
                // A server that closes the connection behind what it cannot take has said so before.
                let said = if tally.error.is_some() { tally.outcome(&address) } else { Err(error) };
                let _gone = request.answer.send(said);
                return;
            }
        }
        let outcome = tally.outcome(&address);
        let _gone = request.answer.send(outcome);
    }
}

async fn fill(
    stream: &mut ReadHalf<Box<dyn Stream>>,
    buffer: &mut BytesMut,
    scanner: &mut Scanner,
    replies: &mut std::collections::VecDeque<Reply>,
) -> Result<()> {
    let read = stream.read_buf(buffer).await.map_err(|error| closed().with_source(error))?;
    if read == 0 {
        return Err(closed());
    }
    let used = scanner.scan(buffer, &mut |reply| replies.push_back(reply))?;
    buffer.advance(used);
    Ok(())
}

/// Counts the replies of one request.
struct Tally<'a> {
    units: &'a [Unit],
    rows: u64,
    may_keep: bool,
    /// Index of the unit being counted and replies seen in it.
    unit: usize,
    seen: u32,
    outcome: Written,
    error: Option<String>,
}

impl<'a> Tally<'a> {
    fn new(request: &'a Awaited) -> Self {
        Self {
            units: &request.units,
            rows: request.rows,
            may_keep: request.may_keep,
            unit: 0,
            seen: 0,
            outcome: Written::default(),
            error: None,
        }
    }

    fn is_complete(&self) -> bool {
        if self.units.is_empty() {
            self.unit as u64 == self.rows
        } else {
            self.unit == self.units.len()
        }
    }

    fn count(&mut self, reply: Reply) {
        let unit =
            self.units.get(self.unit).copied().unwrap_or(Unit { rows: 1, folded: 0, replies: 1 });
        self.seen += 1;
        let is_last = self.seen == unit.replies;
        match reply {
            // RESTORE without REPLACE answers so when the key existed.
            Reply::Error(text) if self.may_keep && text.starts_with("BUSYKEY") => {
                self.outcome.kept += u64::from(unit.rows);
            }
            Reply::Error(text) | Reply::Array(Some(text)) => self.note(text),
            // A transaction whose EXEC is null was dropped by the server.
            Reply::Null if unit.replies > 1 => {
                self.note("EXECABORT the transaction was dropped".into());
            }
            // SET NX answers null, the keep script 0, when the key existed.
            Reply::Null | Reply::Integer(0) if self.may_keep => {
                self.outcome.kept += u64::from(unit.rows);
            }
            // The script of `newest` counts the rows of its call that were kept, from -1 downwards.
            Reply::Integer(told @ ..0) if self.may_keep => {
                let kept = told.unsigned_abs() - 1;
                match u64::from(unit.rows).checked_sub(kept) {
                    Some(written) => {
                        self.outcome.kept += kept;
                        self.outcome.written += written;
                    }
                    None => self.note("ERR more rows kept than were sent".into()),
                }
            }
            Reply::Null => self.note("ERR a null reply to a write".into()),
            _ if is_last => {
                self.outcome.written += u64::from(unit.rows);
                self.outcome.folded += u64::from(unit.folded);
            }
            _ => {}
        }
        if is_last {
            self.unit += 1;
            self.seen = 0;
        }
    }

    /// Keeps the first error; EXECABORT only repeats what the queued command said.
    fn note(&mut self, text: String) {
        self.error.get_or_insert(text);
    }

    fn outcome(self, address: &str) -> Result<Written> {
        match self.error {
            Some(text) => Err(from_reply(&text, &format!("writing to redis at {address}"))),
            None => Ok(self.outcome),
        }
    }
}
