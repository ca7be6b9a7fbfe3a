//! The duplicate of BigQuery in Redis: whole values in, whole values out.
//!
//! Invariant: a value counts as written only when the server's reply to it was read. The blocks of one writer go through
//! one connection in order, so after a crash what arrived is a prefix of what was sent.

use super::control;
use super::pipe::Pipe;
use crate::connect::redis::{Endpoint, from_pool, from_redis};
use crate::error::{Error, Kind, Result};
use crate::load::store::{Store, VALUES_MAX, Values, Writer};
use crate::load::{Sentinel, TargetState};
use crate::sealed;
use crate::transform::form::{Form, Framed};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use deadpool_redis::{Connection, Pool};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemas::Seals;
use schemas::manifest::Keys;
use std::sync::Arc;

/// Name of the key that marks an instance as being written by a backup.
pub const BACKUP_SENTINEL_KEY: &str = "rekindle:backup";
/// Keys per command that removes or measures; bounds its time on the server.
const KEYS_MAX: usize = 64;
/// Room for the framing of a SET beside key and value.
const FRAMING: usize = 64;

/// One Redis that holds duplicates.
pub struct Duplicate {
    endpoint: Endpoint,
    control: Pool,
    seals: Arc<Seals>,
    form: Form,
}

/// A connection of its own for one table partition on its way; clones share it.
#[derive(Clone)]
pub struct BlockWriter {
    pipe: Pipe,
}

impl Duplicate {
    /// Makes the client; nothing is connected yet. `readers` bounds the connections for everything but blocks.
    pub fn new(endpoint: Endpoint, readers: usize) -> Result<Self> {
        let control = endpoint.pool(readers)?;
        let seals = Arc::<Seals>::default();
        let form = Form::Block(Arc::clone(&seals));
        Ok(Self { endpoint, control, seals, form })
    }

    /// Has blocks and documents sealed and opened with these keys; without them none is sealed.
    #[must_use]
    pub fn sealed_with(self, seals: Arc<Seals>) -> Self {
        Self { form: Form::Block(Arc::clone(&seals)), seals, ..self }
    }

    /// The keys of its blocks and documents.
    pub fn seals(&self) -> &Arc<Seals> {
        &self.seals
    }

    /// Where it is, without credentials.
    pub fn address(&self) -> &str {
        &self.endpoint.address
    }

    async fn connection(&self) -> Result<Connection> {
        self.control.get().await.map_err(|error| {
            from_pool(error, &format!("cannot connect to redis at {}", self.endpoint.address))
        })
    }

    fn failed(&self, error: redis::RedisError, doing: &str) -> Error {
        from_redis(error, &format!("{doing} redis at {}", self.endpoint.address))
    }

    /// Reads who the server is and what it holds.
    pub async fn state(&self) -> Result<TargetState> {
        control::state(&mut self.connection().await?, &self.endpoint.address).await
    }

    /// Leaves the mark of a run if there is none; returns whose mark is there afterwards.
    pub async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel> {
        let (key, address) = (BACKUP_SENTINEL_KEY, &self.endpoint.address);
        control::claim(&mut self.connection().await?, key, address, run_id, note).await
    }

    /// Looks anew, on a fresh connection, at who is there, and goes on with fresh connections. Fails with
    /// `TargetChanged` where it is another server than `before`, or without the mark of the run: an address may lead
    /// elsewhere by now, to a server that lacks what the one before it had acknowledged last.
    pub async fn meet(&self, run_id: &str, before: &TargetState) -> Result<()> {
        self.control.retain(|_, _| false);
        let address = &self.endpoint.address;
        let mut connection = self.connection().await?;
        let mark = control::sentinel(&mut connection, BACKUP_SENTINEL_KEY, address, run_id).await?;
        let now = control::state(&mut connection, address).await?;
        let is_same = now.process_id == before.process_id && now.history_id == before.history_id;
        if is_same && mark == Sentinel::Ours {
            return Ok(());
        }
        let message = format!(
            "redis at {address} was emptied, restarted or failed over since this backup began: what it had acknowledged may be gone"
        );
        Err(Error::new(Kind::TargetChanged, message)
            .with_hint("run the same command again: it looks at everything anew"))
    }

    /// Removes the mark if it is that run's.
    pub async fn release(&self, run_id: &str) -> Result<()> {
        let (key, address) = (BACKUP_SENTINEL_KEY, &self.endpoint.address);
        control::release(&mut self.connection().await?, key, address, run_id).await
    }

    /// Opens a connection for the blocks of one table partition.
    pub async fn writer(&self) -> Result<BlockWriter> {
        Ok(BlockWriter { pipe: Pipe::open(&self.endpoint, &[]).await? })
    }

    /// Stores one document, sealed where there is a key to seal with.
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let value = sealed::seal(&self.seals, key, value)?;
        let mut connection = self.connection().await?;
        redis::cmd("SET")
            .arg(key)
            .arg(&value[..])
            .query_async::<()>(&mut connection)
            .await
            .map_err(|error| self.failed(error, &format!("cannot write {key} to")))
    }

    /// Reads one value; a sealed document is opened, a block stays as it is.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let mut connection = self.connection().await?;
        let value: Option<Vec<u8>> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error, &format!("cannot read {key} of")))?;
        value.map(|value| sealed::open(&self.seals, key, Bytes::from(value))).transpose()
    }

    /// Reads up to [`Self::values_max`] values in one round trip, in the order of their keys; documents are opened.
    pub async fn get_some(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        // The client refuses to send nothing.
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.cmd("GET").arg(key);
        }
        let values: Vec<Option<Vec<u8>>> = pipeline
            .query_async(&mut self.connection().await?)
            .await
            .map_err(|error| self.failed(error, "cannot read blocks of"))?;
        let open = |(key, value): (&String, Option<Vec<u8>>)| {
            value.map(|value| sealed::open(&self.seals, key, Bytes::from(value))).transpose()
        };
        keys.iter().zip(values).map(open).collect()
    }

    /// How many values one [`Self::get_some`] may ask for, so that what is on its way stays bounded.
    pub const fn values_max() -> usize {
        VALUES_MAX
    }

    /// Returns the length of every value, 0 where there is none; the values themselves stay where they are.
    pub async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>> {
        let mut connection = self.connection().await?;
        let mut lengths = Vec::with_capacity(keys.len());
        for slice in keys.chunks(KEYS_MAX * VALUES_MAX) {
            let mut pipeline = redis::Pipeline::with_capacity(slice.len());
            for key in slice {
                pipeline.cmd("STRLEN").arg(key);
            }
            let found: Vec<u64> = pipeline
                .query_async(&mut connection)
                .await
                .map_err(|error| self.failed(error, "cannot measure blocks of"))?;
            lengths.extend(found);
        }
        Ok(lengths)
    }

    /// Returns of every key whether it is going to expire.
    pub async fn expiring(&self, keys: &[String]) -> Result<Vec<bool>> {
        let mut connection = self.connection().await?;
        let mut expiring = Vec::with_capacity(keys.len());
        for slice in keys.chunks(KEYS_MAX * VALUES_MAX) {
            let mut pipeline = redis::Pipeline::with_capacity(slice.len());
            for key in slice {
                pipeline.cmd("PTTL").arg(key);
            }
            let left_ms: Vec<i64> = pipeline
                .query_async(&mut connection)
                .await
                .map_err(|error| self.failed(error, "cannot read the expiry of keys of"))?;
            // -1 stands for a key without an expiry, -2 for none.
            expiring.extend(left_ms.into_iter().map(|left_ms| left_ms >= 0));
        }
        Ok(expiring)
    }

    /// Removes keys in slices that do not hold the server up; returns how many existed.
    pub async fn unlink(&self, keys: &[String]) -> Result<u64> {
        let mut connection = self.connection().await?;
        let mut removed = 0;
        for slice in keys.chunks(KEYS_MAX) {
            let some: u64 = redis::cmd("UNLINK")
                .arg(slice)
                .query_async(&mut connection)
                .await
                .map_err(|error| self.failed(error, "cannot remove keys of"))?;
            removed += some;
        }
        Ok(removed)
    }

    /// Removes the keys that `key` makes of 0, 1, 2 …, beginning with `from`, until a whole slice of them is absent.
    ///
    /// What one writer left behind is a prefix, so an absent slice is the end of it.
    pub async fn unlink_run(&self, from: u32, key: impl Fn(u32) -> String) -> Result<u64> {
        let mut removed = 0;
        let mut next = from;
        loop {
            let slice: Vec<String> = (next..).take(KEYS_MAX).map(&key).collect();
            let some = self.unlink(&slice).await?;
            removed += some;
            if some == 0 {
                return Ok(removed);
            }
            next = next.saturating_add(u32::try_from(KEYS_MAX).unwrap_or(u32::MAX));
        }
    }
}

impl BlockWriter {
    /// Stores one value and returns when the server has acknowledged it.
    ///
    /// Several may be on their way at once; the server takes them in the order of the calls.
    pub async fn write(self, payload: Bytes) -> Result<()> {
        let written = self.pipe.send(payload, Vec::new(), 1, false).await?;
        if written.written == 1 {
            return Ok(());
        }
        Err(Error::new(Kind::Internal, "redis did not acknowledge a block"))
    }
}

#[async_trait]
impl Values for Duplicate {
    fn place(&self) -> String {
        format!("redis at {}", self.endpoint.address)
    }

    fn address(&self) -> String {
        self.endpoint.address.clone()
    }

    fn form(&self) -> &Form {
        &self.form
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Self::get(self, key).await
    }

    async fn get_some(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        Self::get_some(self, keys).await
    }

    async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>> {
        Self::lengths(self, keys).await
    }
}

#[async_trait]
impl Store for Duplicate {
    async fn state(&self) -> Result<TargetState> {
        Self::state(self).await
    }

    async fn claim(&self, run_id: &str, note: &str) -> Result<Sentinel> {
        Self::claim(self, run_id, note).await
    }

    async fn meet(&self, run_id: &str, before: &TargetState) -> Result<()> {
        Self::meet(self, run_id, before).await
    }

    async fn release(&self, run_id: &str) -> Result<()> {
        Self::release(self, run_id).await
    }

    async fn writer(&self) -> Result<Arc<dyn Writer>> {
        Ok(Arc::new(Self::writer(self).await?))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        Self::set(self, key, value).await
    }

    async fn remove_generation(
        &self,
        keys: &Keys,
        table_partition: &str,
        generation: u64,
    ) -> Result<u64> {
        self.unlink_run(0, |ordinal| keys.block(table_partition, generation, ordinal)).await
    }
}

impl Writer for BlockWriter {
    fn write(&self, key: &str, block: Framed) -> BoxFuture<'static, Result<()>> {
        Self::write(self.clone(), set_command(key, &block.head, &block.body)).boxed()
    }
}

/// Frames a SET of a value in two parts; pure, so that it can be done beside the encoding.
pub fn set_command(key: &str, header: &[u8], body: &[u8]) -> Bytes {
    let value_bytes = header.len() + body.len();
    let mut out = BytesMut::with_capacity(FRAMING + key.len() + value_bytes);
    out.put_slice(
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${value_bytes}\r\n", key.len()).as_bytes(),
    );
    out.put_slice(header);
    out.put_slice(body);
    out.put_slice(b"\r\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_framed_as_redis_reads_it() {
        let framed = set_command("k:b:1", b"he", b"body");
        assert_eq!(&framed[..], b"*3\r\n$3\r\nSET\r\n$5\r\nk:b:1\r\n$6\r\nhebody\r\n");
    }
}
