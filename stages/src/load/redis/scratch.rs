//! A Redis that a restoration test may empty: who it is, its mark, emptying it, and reading it as an application does.
//!
//! Invariant: [`Scratch::empty_marked`] looks for the mark and empties in one step on the server, so a database that got
//! other keys since it was looked at is left alone.

use super::control;
use crate::connect::redis::{Endpoint, from_pool, from_redis};
use crate::error::{Error, Kind, Result};
use crate::load::TargetState;
use deadpool_redis::{Connection, Pool};
use redis::Value;

/// The key that marks a database as the scratch of a drill.
pub const DRILL_KEY: &str = "rekindle:drill";
const CONNECTIONS: usize = 2;

/// One Redis, over a small pool; nothing is connected before the first question.
pub struct Scratch {
    endpoint: Endpoint,
    control: Pool,
}

/// What an application is answered: nothing, one text, or several, each there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is nothing.
    Nothing,
    /// One value; of a number its digits.
    One(Vec<u8>),
    /// Several.
    Many(Vec<Option<Vec<u8>>>),
}

impl Scratch {
    /// Makes the client.
    pub fn new(endpoint: Endpoint) -> Result<Self> {
        let control = endpoint.pool(CONNECTIONS)?;
        Ok(Self { endpoint, control })
    }

    /// `host:port/db`, without credentials.
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

    /// Reads who the server is and how much the database holds.
    pub async fn state(&self) -> Result<TargetState> {
        control::state(&mut self.connection().await?, &self.endpoint.address).await
    }

    /// Reads the mark of a drill.
    pub async fn mark(&self) -> Result<Option<String>> {
        let mut connection = self.connection().await?;
        let mark = redis::cmd("GET").arg(DRILL_KEY).query_async(&mut connection).await;
        mark.map_err(|error| self.failed(error, "cannot read the mark of a drill in"))
    }

    /// Leaves the mark of a drill.
    pub async fn leave_mark(&self, note: &str) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("SET");
        let set = command.arg(DRILL_KEY).arg(note).query_async::<()>(&mut connection).await;
        set.map_err(|error| self.failed(error, "cannot leave the mark of a drill in"))
    }

    /// Removes the mark alone.
    pub async fn remove_mark(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        let removed: redis::RedisResult<u64> =
            redis::cmd("DEL").arg(DRILL_KEY).query_async(&mut connection).await;
        removed.map_err(|error| self.failed(error, "cannot remove the mark of a drill from"))?;
        Ok(())
    }

    /// Empties a database that carries the mark, or holds nothing; one that holds anything else is refused.
    pub async fn empty_marked(&self) -> Result<()> {
        const SCRIPT: &str = "if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('DBSIZE') == 0 then \
            redis.call('FLUSHDB') return 1 end return 0";
        let mut connection = self.connection().await?;
        let emptied: redis::RedisResult<i64> =
            redis::cmd("EVAL").arg(SCRIPT).arg(1).arg(DRILL_KEY).query_async(&mut connection).await;
        match emptied.map_err(|error| self.failed(error, "cannot empty"))? {
            1 => Ok(()),
            _ => Err(Error::new(
                Kind::Config,
                format!("redis at {} holds keys that no drill left there", self.address()),
            )
            .with_hint("name another scratch in [drill], or empty this one yourself")),
        }
    }

    /// Empties the database whatever it holds.
    pub async fn empty(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        let emptied = redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await;
        emptied.map_err(|error| self.failed(error, "cannot empty"))
    }

    /// Counts the keys of the database.
    pub async fn size(&self) -> Result<u64> {
        let mut connection = self.connection().await?;
        let size = redis::cmd("DBSIZE").query_async(&mut connection).await;
        size.map_err(|error| self.failed(error, "cannot count the keys of"))
    }

    /// Asks what an application would ask; `words` is a command that only reads.
    pub async fn ask(&self, words: &[Vec<u8>]) -> Result<Answer> {
        let Some((name, rest)) = words.split_first() else { return Ok(Answer::Nothing) };
        let mut connection = self.connection().await?;
        let mut command = redis::cmd(&String::from_utf8_lossy(name));
        for word in rest {
            command.arg(&word[..]);
        }
        let value: Value = command
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error, "cannot read from"))?;
        Ok(match value {
            Value::Array(values) => Answer::Many(values.into_iter().map(text).collect()),
            value => text(value).map_or(Answer::Nothing, Answer::One),
        })
    }
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        Value::Double(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}
