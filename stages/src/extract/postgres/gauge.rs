//! How pressed a PostgreSQL is: what a query that reads nothing takes, who else is at work, how far its replicas are.
//!
//! Invariant: it reads the server's own views and no table.

use super::snapshot::PostgresServer;
use super::sql::from_origin;
use crate::connect::postgres::from_sqlx;
use crate::error::{Error, Kind, Result};
use crate::extract::Gauge;
use crate::load::SourcePressure;
use async_trait::async_trait;
use schemas::Route;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions of other programs that run a query, and the lag in microseconds: of this server where it is a replica, else
/// of the slowest one that streams from it. One that has replayed everything is behind nothing, however old that is.
const LOOK: &str = "select \
     (select count(*) from pg_stat_activity where state = 'active' and backend_type = 'client backend' \
      and application_name <> 'rekindle' and pid <> pg_backend_pid()), \
     (extract(epoch from case when pg_is_in_recovery() then \
        case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then interval '0' \
        else clock_timestamp() - pg_last_xact_replay_timestamp() end \
      else (select max(replay_lag) from pg_stat_replication where state = 'streaming') end) * 1000000)::bigint";

const MAY_SEE: &str = "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')";

/// Looks at one server.
pub struct PostgresGauge {
    server: Arc<PostgresServer>,
}

impl PostgresGauge {
    /// Makes the gauge; nothing is asked yet.
    pub fn new(server: Arc<PostgresServer>) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Gauge for PostgresGauge {
    async fn look(&self) -> Result<SourcePressure> {
        // An answer that never comes must not leave a run paused for good.
        let mut connection = self.server.connection().await?;
        self.server.at_once(ask(&mut connection)).await
    }

    async fn check_rights(&self) -> Result<()> {
        let failed = |error| from_sqlx(error, "cannot ask for the rights on alloydb");
        let mut connection = self.server.connection().await?;
        let asking =
            async { sqlx::query_scalar(MAY_SEE).fetch_one(&mut *connection).await.map_err(failed) };
        let may: bool = self.server.at_once(asking).await?;
        if may {
            return Ok(());
        }
        let message = "the user of [alloydb] sees neither the sessions of others nor replicas";
        Err(Error::new(Kind::Auth, message)
            .with_hint("grant pg_monitor to it, or leave the --pause-above-source flags out"))
    }
}

async fn ask(connection: &mut PgConnection) -> Result<SourcePressure> {
    let failed = |error| from_sqlx(error, "cannot look at the load of alloydb");
    let asked = Instant::now();
    sqlx::raw_sql("select 1").execute(&mut *connection).await.map_err(failed)?;
    let latency = asked.elapsed();
    let row = sqlx::query(LOOK).fetch_one(&mut *connection).await.map_err(failed)?;
    let active: i64 = row.try_get(0).map_err(failed)?;
    let lag: Option<i64> = row.try_get(1).map_err(failed)?;
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(SourcePressure {
        latency,
        active: unsigned(active),
        replica_lag: lag.map(|us| Duration::from_micros(unsigned(us))),
    })
}

/// Rows that the planner expects of a table under a condition.
pub(super) async fn planned_rows(
    server: &PostgresServer,
    route: &Route,
    filter: &str,
) -> Result<u64> {
    let failed = |error| {
        from_sqlx(error, &format!("cannot ask for the rows that route {} expects", route.name))
    };
    let mut connection = server.connection().await?;
    let sql = format!("explain select 1 from {} where ({filter}\n)", from_origin(route));
    let plan: String =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(failed)?;
    // The first line: `Seq Scan on builds  (cost=0.00..431.00 rows=21000 width=4)`.
    let rows = plan.split_once(" rows=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    rows.ok_or_else(|| {
        Error::new(Kind::Internal, "the planner of alloydb does not tell how many rows it expects")
    })
}
