//! Cut-over: a database that was built beside the one that serves takes its place by `SWAPDB`, and the way back.
//!
//! Invariant: databases are swapped only while the mark of the run is in the one that was built; where the mark is tells
//! which database is which, also after a crash or a lost answer.

use super::{SENTINEL_KEY, control, foreign};
use crate::connect::redis::{Endpoint, from_pool, from_redis};
use crate::error::{Error, Kind, Result};
use crate::load::{Sentinel, TargetState};
use deadpool_redis::{Connection, Pool};

/// Two databases of one server.
pub struct CutOver {
    /// The one of `[redis]`.
    pub serving: u32,
    /// The one that is built.
    pub build: u32,
    address: String,
    serving_pool: Pool,
    build_pool: Pool,
}

/// Where the mark of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// In neither database.
    Nowhere,
    /// In the one that is built: nothing was swapped yet.
    Build,
    /// In the one that serves: they were swapped.
    Serving,
}

impl CutOver {
    /// Makes the cut-over from the endpoint of `[redis]`; nothing is connected yet.
    pub fn new(endpoint: &Endpoint, build: u32) -> Result<Self> {
        let serving = u32::try_from(endpoint.database()).unwrap_or_default();
        if serving == build {
            let message = format!("--cut-over {build}: that is the database of [redis] itself");
            return Err(Error::new(Kind::Config, message)
                .with_hint("name an empty one: rekindle rebuild redis --cut-over DB"));
        }
        Ok(Self {
            serving,
            build,
            address: endpoint.address.clone(),
            serving_pool: endpoint.pool(1)?,
            build_pool: endpoint.with_database(build).pool(1)?,
        })
    }

    /// Makes sure that the server has both databases and lets this user swap them. Nothing is changed: a database is
    /// swapped with itself.
    pub async fn check(&self) -> Result<()> {
        let mut connection = self.connect(&self.build_pool, self.build).await?;
        let outcome: redis::RedisResult<()> =
            redis::cmd("SWAPDB").arg(self.build).arg(self.build).query_async(&mut connection).await;
        outcome.map_err(|error| {
            let said = error.detail().unwrap_or_default().to_owned();
            let error = self.failed(error, "SWAPDB is not to be had on");
            if error.kind().is_transient() {
                return error;
            }
            let kind = if error.kind() == Kind::Auth { Kind::Auth } else { Kind::Config };
            let message = format!("SWAPDB is not to be had on redis at {}: {said}", self.address);
            Error::new(kind, message)
                .with_hint("grant it with ACL SETUSER, or rebuild without --cut-over")
                .with_source(error)
        })
    }

    /// Reads what the database that is built holds.
    pub async fn built(&self) -> Result<TargetState> {
        let mut connection = self.connect(&self.build_pool, self.build).await?;
        control::state(&mut connection, &self.address).await
    }

    /// Looks for the mark of a run; another run's mark in either database is an error.
    pub async fn marked(&self, run_id: &str) -> Result<Marked> {
        let places = [
            (&self.serving_pool, self.serving, Marked::Serving),
            (&self.build_pool, self.build, Marked::Build),
        ];
        let mut found = Marked::Nowhere;
        for (pool, database, place) in places {
            let mut connection = self.connect(pool, database).await?;
            let address = &self.address;
            match control::sentinel(&mut connection, SENTINEL_KEY, address, run_id).await? {
                Sentinel::Ours => found = place,
                Sentinel::Missing => {}
                Sentinel::Foreign(note) => return Err(foreign(address, &note)),
            }
        }
        Ok(found)
    }

    /// Swaps the databases, unless they were swapped: asked again after a lost answer, it does nothing twice.
    pub async fn swap(&self, run_id: &str) -> Result<()> {
        // In one step: a request that was given up may still be carried out, and must find that it came too late.
        const SCRIPT: &str = "local note = redis.call('GET', KEYS[1]) \
            if not note or string.sub(note, 1, string.len(ARGV[1])) ~= ARGV[1] then return 0 end \
            redis.call('SWAPDB', ARGV[2], ARGV[3]) return 1";
        let mut connection = self.connect(&self.build_pool, self.build).await?;
        let swapped: i64 = redis::cmd("EVAL")
            .arg(SCRIPT)
            .arg(1)
            .arg(SENTINEL_KEY)
            .arg(run_id)
            .arg(self.serving)
            .arg(self.build)
            .query_async(&mut connection)
            .await
            .map_err(|error| self.failed(error, "cannot swap the databases of"))?;
        if swapped == 1 || self.marked(run_id).await? == Marked::Serving {
            return Ok(());
        }
        let message = format!(
            "database {} of redis at {} lost the mark of this run; nothing is swapped",
            self.build, self.address
        );
        Err(Error::new(Kind::TargetChanged, message)
            .with_hint("run the same command again: it builds anew"))
    }

    /// Removes the mark of a run from the database that serves.
    pub async fn release(&self, run_id: &str) -> Result<()> {
        let mut connection = self.connect(&self.serving_pool, self.serving).await?;
        control::release(&mut connection, SENTINEL_KEY, &self.address, run_id).await
    }

    /// What brings the database back that served before.
    pub fn way_back(&self) -> String {
        format!("redis-cli SWAPDB {} {}", self.serving, self.build)
    }

    async fn connect(&self, pool: &Pool, database: u32) -> Result<Connection> {
        let what = format!("cannot use database {database} of redis at {}", self.address);
        pool.get().await.map_err(|error| {
            let error = from_pool(error, &what);
            let said = std::error::Error::source(&error).map(ToString::to_string);
            // SELECT of a number that the server does not have.
            if said.is_some_and(|said| said.contains("DB index is out of range")) {
                return Error::new(
                    Kind::Config,
                    format!("{what}: the server has no such database"),
                )
                .with_hint("name a lower one, or raise databases in its configuration");
            }
            error
        })
    }

    fn failed(&self, error: redis::RedisError, doing: &str) -> Error {
        from_redis(error, &format!("{doing} redis at {}", self.address))
    }
}
