//! The Redis sink: prebuilt RESP over a few pipelined connections, control and reads over a pool.
//!
//! Invariant: a batch counts as written only when every reply to it was read on a connection to a server
//! that carries this run's sentinel.

pub(crate) mod control;
pub mod cut_over;
pub mod duplicate;
mod identity;
mod many;
mod module;
mod newest;
mod pipe;
mod pressure;
pub(crate) mod reply;
pub mod scratch;
mod streams;
mod way;

use crate::batch::Encoded;
use crate::connect::redis::{Endpoint, Stream, from_pool};
use crate::error::{Error, Kind, Result};
use crate::extract::redis_entries::Stored;
use crate::failpoint::{Point, pass};
use crate::load::{
    Difference, Footprint, Numbered, Pressure, Sampled, Sentinel, Sink, Standing, TargetState,
    Versioned, Written,
};
use crate::transform::many_rows::KEEP_ELEMENTS_SCRIPT;
use crate::transform::redis_command::{KEEP_DOCUMENT_SCRIPT, KEEP_HASH_SCRIPT, NEWEST_SCRIPT, Way};
use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::{Connection, Pool};
use identity::{Claim, emptied, met_on};
pub use pipe::IN_FLIGHT_MAX;
use pipe::Pipe;
use schemas::BoundRoute;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, RwLock};
pub use way::{Chosen, WayChoice};

/// Connections for the hot path per node at first; a third gains nothing on a server nearby, whose main thread is the limit.
pub const CONNECTIONS: usize = 2;
/// And at most, for a server far away.
pub const CONNECTIONS_MAX: usize = 8;
/// Name of the key that marks the target as being filled by a run.
pub const SENTINEL_KEY: &str = "rekindle:run";
/// Keys per command of the read-back; bounds one command's time on the server to well under a millisecond.
const READ_KEYS_MAX: usize = 256;

/// Sink for one Redis primary.
pub struct RedisSink {
    endpoint: Endpoint,
    control: Pool,
    /// Kept out of the pool, whose own exchange at a checkout would take the wait that is to be timed.
    timed: Mutex<Option<Connection>>,
    /// Connections of the lanes, each with the age of the target it was opened in.
    pipes: Vec<Mutex<Option<(u64, Pipe)>>>,
    claimed: RwLock<Option<Claim>>,
    changed: AtomicBool,
    /// Raised whenever the address was found to lead to another server: connections of an earlier age are not used.
    age: AtomicU64,
    /// `None` where no hash is written.
    choice: Option<WayChoice>,
    chosen: std::sync::Mutex<Chosen>,
}

impl RedisSink {
    /// Makes a sink; nothing is connected yet.
    pub fn new(endpoint: Endpoint, choice: Option<WayChoice>) -> Result<Self> {
        let control = endpoint.pool(5)?;
        let pipes = (0..CONNECTIONS_MAX).map(|_| Mutex::new(None)).collect();
        Ok(Self {
            endpoint,
            control,
            timed: Mutex::new(None),
            pipes,
            claimed: RwLock::new(None),
            changed: AtomicBool::new(false),
            age: AtomicU64::new(0),
            choice,
            chosen: std::sync::Mutex::new(Chosen::command("nothing else was tried yet")),
        })
    }

    /// How hashes are to be encoded for this server: found by `claim`, and again after a refusal.
    pub fn way(&self) -> Way {
        self.lock_chosen().way
    }

    fn lock_chosen(&self) -> std::sync::MutexGuard<'_, Chosen> {
        self.chosen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn choose_way(&self) -> Result<()> {
        let Some(choice) = self.choice else { return Ok(()) };
        let pipe = Pipe::open(&self.endpoint, &[]).await?;
        let mut connection = self.connection().await?;
        let chosen = way::choose(choice, &mut connection, &pipe, &self.endpoint.address).await?;
        tracing::info!(address = %self.endpoint.address, way = chosen.reason, "hashes are written this way");
        *self.lock_chosen() = chosen;
        Ok(())
    }

    /// A server that takes no such payload (it was replaced by an older one, say) gets commands from the next
    /// attempt on.
    fn fall_back(&self, error: Error, is_forgotten: bool) -> Error {
        if is_forgotten {
            let message =
                format!("redis at {} was made to forget its scripts", self.endpoint.address);
            return Error::new(Kind::Unavailable, message).with_source(error);
        }
        let said = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if module::is_lacking(&said) {
            return module::lacking(&self.endpoint.address).with_source(error);
        }
        let is_refused = ["DUMP payload", "Bad data format"].iter().any(|text| said.contains(text));
        if !is_refused {
            return error;
        }
        tracing::warn!(address = %self.endpoint.address, %said, "redis refuses RESTORE payloads; hashes go by HSET");
        *self.lock_chosen() = Chosen::command(format!("the server refuses RESTORE: {said}"));
        Error::new(
            Kind::Unavailable,
            format!("redis at {} refuses RESTORE payloads", self.endpoint.address),
        )
        .with_source(error)
    }

    async fn connection(&self) -> Result<Connection> {
        self.control.get().await.map_err(|error| {
            from_pool(error, &format!("cannot connect to redis at {}", self.endpoint.address))
        })
    }

    /// Returns the lane's live connection, making it again when it was lost.
    async fn pipe(&self, lane: usize) -> Result<Pipe> {
        let mut slot = self.pipes[lane % self.pipes.len()].lock().await;
        let is_usable = |(age, pipe): &&(u64, Pipe)| {
            !pipe.is_closed() && *age == self.age.load(Ordering::Acquire)
        };
        if let Some((_, pipe)) = slot.as_ref().filter(is_usable) {
            return Ok(pipe.clone());
        }
        *slot = None;
        let stream = self.check_claim(self.endpoint.stream().await?).await?;
        let age = self.age.load(Ordering::Acquire);
        let load = |script| redis::cmd("SCRIPT").arg("LOAD").arg(script).get_packed_command();
        let scripts =
            [KEEP_HASH_SCRIPT, KEEP_DOCUMENT_SCRIPT, NEWEST_SCRIPT, KEEP_ELEMENTS_SCRIPT].map(load);
        let pipe = Pipe::on(&self.endpoint, stream, &scripts).await?;
        *slot = Some((age, pipe.clone()));
        Ok(pipe)
    }

    /// Before a connection is used: the server behind it, not behind another one, must still be the one that was claimed.
    async fn check_claim(&self, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>> {
        let Some(claim) = self.claimed.read().await.clone() else { return Ok(stream) };
        let (stream, met) = match met_on(&self.endpoint, stream, &claim.run).await {
            Err(error) if error.kind() == Kind::TargetChanged => {
                self.leave_server();
                return Err(error);
            }
            met => met?,
        };
        self.compare_with(&claim, &met);
        Ok(stream)
    }

    fn compare_with(&self, claim: &Claim, met: &Claim) {
        if met == claim || self.changed.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(address = %self.endpoint.address, "redis is another process or history than before; what it had acknowledged is proven anew");
        self.leave_server();
    }

    /// Nothing that was opened so far is used again: it may lead to a server that serves no longer.
    fn leave_server(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
        self.control.retain(|_, _| false);
    }
}

/// Whether a script was gone (`SCRIPT FLUSH`).
fn is_noscript(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|said| said.to_string().starts_with("NOSCRIPT"))
}

/// The refusal when another run's mark is found.
pub fn foreign(address: &str, note: &str) -> Error {
    let run = control::run_of(note).unwrap_or_else(|| "unknown".into());
    Error::new(Kind::Fenced, format!("redis at {address} is being filled by another run: {note}"))
        .with_hint(format!(
            "wait for that run, resume it from its own --state, or if it is dead: rekindle rebuild redis --take-over {run}"
        ))
}

#[async_trait]
impl Sink for RedisSink {
    fn address(&self) -> &str {
        &self.endpoint.address
    }

    async fn write(&self, lane: usize, batch: &Encoded) -> Result<Written> {
        if batch.payload.is_empty() {
            return Ok(Written::default());
        }
        let pipe = self.pipe(lane).await?;
        let rows = batch.carried;
        let outcome =
            pipe.send(batch.payload.clone(), batch.units.clone(), rows, batch.may_keep).await;
        let is_forgotten = outcome.as_ref().is_err_and(is_noscript);
        let is_over =
            |error: &Error| error.kind() == Kind::Timeout || error.kind() == Kind::Refused;
        if is_forgotten || outcome.as_ref().is_err_and(is_over) {
            // A connection that does not answer, or was closed behind a value that is too long, is not used again; a
            // new one loads the scripts again.
            *self.pipes[lane % self.pipes.len()].lock().await = None;
        }
        let written = outcome.map_err(|error| self.fall_back(error, is_forgotten))?;
        if written.written + written.kept != rows {
            return Err(Error::new(
                Kind::Internal,
                format!(
                    "redis acknowledged {} of {rows} rows of a batch",
                    written.written + written.kept
                ),
            ));
        }
        pass(if batch.puts_in_place { Point::KeyInPlace } else { Point::BatchAcknowledged });
        Ok(written)
    }

    async fn state(&self) -> Result<TargetState> {
        control::state(&mut self.connection().await?, &self.endpoint.address).await
    }

    async fn pressure(&self) -> Result<Pressure> {
        pressure::read(&mut self.connection().await?, &self.endpoint.address).await
    }

    async fn ping(&self) -> Result<Duration> {
        let mut timed = self.timed.lock().await;
        let mut connection = match timed.take() {
            Some(connection) => connection,
            None => self.connection().await?,
        };
        let took = pressure::ping(&mut connection, &self.endpoint.address).await?;
        *timed = Some(connection);
        Ok(took)
    }

    async fn measure(&self, samples: &[Sampled]) -> Result<Vec<Footprint>> {
        let nonce = format!("sample{:016x}", RandomState::new().hash_one(()));
        let mut connection = self.connection().await?;
        pressure::measure(&mut connection, &self.endpoint.address, samples, &nonce).await
    }

    async fn sentinel(&self, run_id: &str) -> Result<Sentinel> {
        let address = &self.endpoint.address;
        control::sentinel(&mut self.connection().await?, SENTINEL_KEY, address, run_id).await
    }

    async fn meet(&self, run_id: &str) -> Result<TargetState> {
        self.control.retain(|_, _| false);
        let mut connection = self.connection().await?;
        let address = &self.endpoint.address;
        match control::sentinel(&mut connection, SENTINEL_KEY, address, run_id).await? {
            Sentinel::Ours => {}
            Sentinel::Missing => return Err(emptied(address)),
            Sentinel::Foreign(note) => return Err(foreign(address, &note)),
        }
        let state = control::state(&mut connection, address).await?;
        if let Some(claim) = self.claimed.read().await.clone() {
            self.compare_with(&claim, &Claim::of(run_id, &state));
        }
        Ok(state)
    }

    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel> {
        self.leave_server();
        let mut connection = self.connection().await?;
        let address = &self.endpoint.address;
        let sentinel = control::claim(&mut connection, SENTINEL_KEY, address, run_id, note).await?;
        if sentinel == Sentinel::Ours {
            let state = control::state(&mut connection, address).await?;
            *self.claimed.write().await = Some(Claim::of(run_id, &state));
            self.changed.store(false, Ordering::Relaxed);
            self.choose_way().await?;
        }
        Ok(sentinel)
    }

    async fn annotate(&self, run_id: &str, note: &str) -> Result<()> {
        let address = &self.endpoint.address;
        let mut connection = self.connection().await?;
        control::annotate(&mut connection, SENTINEL_KEY, address, run_id, note).await
    }

    async fn release(&self, run_id: &str) -> Result<()> {
        let address = &self.endpoint.address;
        control::release(&mut self.connection().await?, SENTINEL_KEY, address, run_id).await
    }

    async fn count_existing(&self, keys: &[Bytes]) -> Result<u64> {
        let mut connection = self.connection().await?;
        control::count_existing(&mut connection, &self.endpoint.address, keys).await
    }

    async fn compare(
        &self,
        route: &BoundRoute,
        expected: &[(Bytes, u64, i64)],
    ) -> Result<Vec<(usize, Difference)>> {
        let mut connection = self.connection().await?;
        let mut differences = Vec::new();
        for (index, slice) in expected.chunks(READ_KEYS_MAX).enumerate() {
            let address = &self.endpoint.address;
            let found = if route.is_stream() {
                streams::compare(&mut connection, address, route, slice).await?
            } else if route.is_many() {
                many::compare(&mut connection, address, route, slice).await?
            } else {
                control::compare(&mut connection, address, route, slice).await?
            };
            let base = index * READ_KEYS_MAX;
            differences.extend(found.into_iter().map(|(at, difference)| (base + at, difference)));
        }
        Ok(differences)
    }

    async fn stored(&self, route: &BoundRoute, keys: &[&[u8]]) -> Result<Vec<(Stored, i64)>> {
        let mut connection = self.connection().await?;
        let mut stored = Vec::with_capacity(keys.len());
        for slice in keys.chunks(READ_KEYS_MAX) {
            let address = &self.endpoint.address;
            let (now_ms, found) =
                many::stored_entries(&mut connection, address, route, slice).await?;
            stored.extend(found.iter().map(|entry| (entry.stored(), now_ms)));
        }
        Ok(stored)
    }

    async fn standing(&self, route: &BoundRoute, entries: &[Versioned]) -> Result<Vec<Standing>> {
        let mut connection = self.connection().await?;
        let mut standing = Vec::with_capacity(entries.len());
        for slice in entries.chunks(READ_KEYS_MAX) {
            let address = &self.endpoint.address;
            standing.extend(newest::standing(&mut connection, address, route, slice).await?);
        }
        Ok(standing)
    }

    async fn remove_unless_newer(
        &self,
        route: &BoundRoute,
        entries: &[Versioned],
    ) -> Result<Vec<usize>> {
        let mut connection = self.connection().await?;
        newest::remove(&mut connection, &self.endpoint.address, route, entries).await
    }

    async fn numbered(&self, route: &BoundRoute) -> Result<Numbered> {
        streams::numbered(&mut self.connection().await?, &self.endpoint.address, route).await
    }

    async fn unlink(&self, keys: &[Bytes]) -> Result<u64> {
        streams::unlink(&mut self.connection().await?, &self.endpoint.address, keys).await
    }

    async fn remove(&self, keys: &[Bytes]) -> Result<u64> {
        control::remove(&mut self.connection().await?, &self.endpoint.address, keys).await
    }

    async fn json_module(&self) -> Result<Option<String>> {
        module::version(&mut self.connection().await?, &self.endpoint.address).await
    }

    fn way_note(&self) -> Option<String> {
        self.choice.is_some().then(|| self.lock_chosen().reason.clone())
    }

    fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }
}
