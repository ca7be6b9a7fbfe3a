//! Values of a Redis, read whole: what a duplicate is made of.
//!
//! Invariant: it only reads, and only what it is asked for by name; keys are looked for only where `scan` is called.

use crate::connect::redis::{Endpoint, from_pool, from_redis};
use crate::error::{Error, Result};
use crate::load::store::Values;
use crate::sealed;
use crate::transform::form::Form;
use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::{Connection, Pool};
use redis::{Pipeline, RedisError};
use schemas::Seals;
use std::sync::Arc;

/// Keys a server looks at per call of SCAN.
const SCAN_COUNT: usize = 1000;

/// A Redis to read values from. Cheap to clone.
#[derive(Clone)]
pub struct RedisValues {
    pool: Pool,
    address: String,
    seals: Arc<Seals>,
    form: Form,
}

impl RedisValues {
    /// Makes a pool of so many connections; nothing is connected yet.
    pub fn new(endpoint: &Endpoint, connections: usize) -> Result<Self> {
        let (pool, seals) = (endpoint.pool(connections)?, Arc::<Seals>::default());
        let form = Form::Block(Arc::clone(&seals));
        Ok(Self { pool, address: endpoint.address.clone(), seals, form })
    }

    /// Has blocks and documents opened with these keys; without them nothing that is sealed can be read.
    #[must_use]
    pub fn sealed_with(self, seals: Arc<Seals>) -> Self {
        Self { form: Form::Block(Arc::clone(&seals)), seals, ..self }
    }

    /// `host:port/db`, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the value of a key; a sealed document is opened, a block stays as it is.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let mut connection = self.connection().await?;
        let found: Option<Vec<u8>> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error))?;
        found.map(|found| sealed::open(&self.seals, key, Bytes::from(found))).transpose()
    }

    /// Returns the first bytes of the value of a key; none where there is no such key.
    pub async fn head(&self, key: &str, bytes: usize) -> Result<Bytes> {
        let mut connection = self.connection().await?;
        let found: Vec<u8> = redis::cmd("GETRANGE")
            .arg(key)
            .arg(0)
            .arg(bytes.saturating_sub(1))
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(found.into())
    }

    /// Returns the lengths of the values of keys; 0 where there is none.
    pub async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>> {
        // The client refuses to send nothing.
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection().await?;
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.cmd("STRLEN").arg(key);
        }
        pipeline.query_async(&mut connection).await.map_err(|error| self.failed(error))
    }

    /// Returns one page of the keys with a prefix, and where to go on; 0 is the end.
    pub async fn scan(&self, cursor: u64, prefix: &str) -> Result<(u64, Vec<String>)> {
        let mut connection = self.connection().await?;
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{}*", escaped(prefix)))
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error))?;
        Ok((next, keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect()))
    }

    async fn connection(&self) -> Result<Connection> {
        let what = format!("cannot reach redis at {}", self.address);
        self.pool.get().await.map_err(|error| from_pool(error, &what))
    }

    fn failed(&self, error: RedisError) -> Error {
        from_redis(error, &format!("cannot read from redis at {}", self.address))
    }
}

#[async_trait]
impl Values for RedisValues {
    fn place(&self) -> String {
        format!("redis at {}", self.address)
    }

    fn address(&self) -> String {
        self.address.clone()
    }

    fn form(&self) -> &Form {
        &self.form
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Self::get(self, key).await
    }

    async fn get_some(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(Self::get(self, key).await?);
        }
        Ok(values)
    }

    async fn lengths(&self, keys: &[String]) -> Result<Vec<u64>> {
        Self::lengths(self, keys).await
    }
}

/// Escapes what has a meaning in a pattern of SCAN.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if "*?[]\\^".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(escaped("log:a*[b]?"), "log:a\\*\\[b\\]\\?");
    }
}
