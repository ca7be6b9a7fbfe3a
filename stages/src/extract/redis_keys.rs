//! The names, types and sizes of the keys of a Redis that is in use, read gently.
//!
//! Invariant: only reads, and after every request a pause in proportion to the time it took, so that the time in which
//! the server may have been at work for the scan stays below the share that was asked for. No value is read.

use crate::connect::redis::{Endpoint, from_redis};
use crate::error::{Error, Kind, Result};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline};
use std::time::{Duration, Instant};

/// Keys the server looks at per request; 1.4 ms of its time were measured.
const KEYS_PER_REQUEST: usize = 1_000;
/// Questions per request about single keys.
const QUESTIONS_MAX: usize = 250;
/// A value of more elements than this is not measured whole, which would hold the server up.
const ELEMENTS_MAX: u64 = 5_000;
/// Elements of such a value that are measured instead.
const ELEMENTS_SAMPLED: u64 = 500;

/// How long a server under load may take for one answer.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// A walk over all keys of one database.
pub struct KeyScan {
    connection: MultiplexedConnection,
    address: String,
    share: f64,
    /// Where the walk continues; `None` at its end.
    cursor: Option<u64>,
    began: Instant,
    asked: Duration,
    requests: u64,
    sizes_refused: Option<String>,
}

/// What a walk cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Requests sent.
    pub requests: u64,
    /// Seconds in which a request was on its way: at least as long as the server was at work for it.
    pub asked_seconds: f64,
    /// Seconds since the walk began.
    pub seconds: f64,
}

impl KeyScan {
    /// Connects. `share` (above 0, at most 1) bounds the part of the time in which a request may be on its way.
    pub async fn begin(endpoint: &Endpoint, share: f64) -> Result<Self> {
        let address = endpoint.address.clone();
        let connection = endpoint.patient(ANSWER_MAX).await?;
        Ok(Self {
            connection,
            address,
            share,
            cursor: Some(0),
            began: Instant::now(),
            asked: Duration::ZERO,
            requests: 0,
            sizes_refused: None,
        })
    }

    /// Returns how many keys the database holds.
    pub async fn entries(&mut self) -> Result<u64> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        let [entries] = self.ask::<[u64; 1]>(&pipeline, "cannot count the keys of").await?;
        Ok(entries)
    }

    /// Returns the next keys, perhaps none, or `None` at the end.
    ///
    /// Every key that is there from the beginning to the end comes at least once; one may come twice when the server
    /// resizes its table (documentation of SCAN, "Scan guarantees").
    pub async fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SCAN").arg(cursor).arg("COUNT").arg(KEYS_PER_REQUEST);
        let [(cursor, keys)] =
            self.ask::<[(u64, Vec<Vec<u8>>); 1]>(&pipeline, "cannot scan the keys of").await?;
        self.cursor = (cursor != 0).then_some(cursor);
        Ok(Some(keys))
    }

    /// Returns the type of each key as `TYPE` names it; `none` where the key is gone.
    pub async fn types(&mut self, keys: &[&[u8]]) -> Result<Vec<String>> {
        self.of_each(keys, "cannot read the types of keys of", |pipeline, key, _| {
            pipeline.cmd("TYPE").arg(key);
        })
        .await
    }

    /// Returns the bytes of each key with its value, `None` where the key is gone; or `None` where the server does not
    /// tell sizes, and [`Self::sizes_refused`] says why.
    pub async fn sizes(&mut self, keys: &[&[u8]]) -> Result<Option<Vec<Option<u64>>>> {
        if self.sizes_refused.is_some() {
            return Ok(None);
        }
        match self.measure(keys).await {
            Ok(sizes) => Ok(Some(sizes)),
            Err(error) if error.kind().is_transient() => Err(error),
            Err(error) => {
                self.sizes_refused = Some(error.to_string());
                Ok(None)
            }
        }
    }

    /// Why the server does not tell sizes.
    pub fn sizes_refused(&self) -> Option<&str> {
        self.sizes_refused.as_deref()
    }

    /// Returns what the walk cost up to now.
    pub fn cost(&self) -> Cost {
        Cost {
            requests: self.requests,
            asked_seconds: self.asked.as_secs_f64(),
            seconds: self.began.elapsed().as_secs_f64(),
        }
    }

    /// Asks for the types and lengths first: a sum over millions of elements would hold everybody up.
    async fn measure(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<u64>>> {
        let types = self.types(keys).await?;
        let lengths: Vec<u64> = self
            .of_each(keys, "cannot read the lengths of values of", |pipeline, key, index| {
                let command = match types[index].as_str() {
                    "hash" => "HLEN",
                    "set" => "SCARD",
                    "zset" => "ZCARD",
                    "list" => "LLEN",
                    "stream" => "XLEN",
                    // One string is one element, and so is what modules store.
                    _ => "EXISTS",
                };
                pipeline.cmd(command).arg(key);
            })
            .await?;
        self.of_each(keys, "cannot measure keys of", |pipeline, key, index| {
            // 0 is all elements.
            let samples = if lengths[index] > ELEMENTS_MAX { ELEMENTS_SAMPLED } else { 0 };
            pipeline.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(samples);
        })
        .await
    }

    /// Asks one question per key, a slice of them per request.
    async fn of_each<T: FromRedisValue>(
        &mut self,
        keys: &[&[u8]],
        doing: &str,
        question: impl Fn(&mut Pipeline, &[u8], usize),
    ) -> Result<Vec<T>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (number, slice) in keys.chunks(QUESTIONS_MAX).enumerate() {
            let mut pipeline = Pipeline::with_capacity(slice.len());
            for (index, key) in slice.iter().enumerate() {
                question(&mut pipeline, key, number * QUESTIONS_MAX + index);
            }
            answers.extend(self.ask::<Vec<T>>(&pipeline, doing).await?);
        }
        if answers.len() == keys.len() {
            return Ok(answers);
        }
        let message = format!(
            "redis at {} gave {} answers to {} questions",
            self.address,
            answers.len(),
            keys.len()
        );
        Err(Error::new(Kind::Internal, message))
    }

    /// Sends one request, and rests for as long as the share demands.
    async fn ask<T: FromRedisValue>(&mut self, pipeline: &Pipeline, doing: &str) -> Result<T> {
        let started = Instant::now();
        let answer = pipeline.query_async(&mut self.connection).await;
        let took = started.elapsed();
        self.asked += took;
        self.requests += 1;
        tokio::time::sleep(took.mul_f64((1.0 / self.share - 1.0).max(0.0))).await;
        answer.map_err(|error| from_redis(error, &format!("{doing} redis at {}", self.address)))
    }
}
