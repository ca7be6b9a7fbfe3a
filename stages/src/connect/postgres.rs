//! PostgreSQL and AlloyDB connections: one sqlx pool per run, and the error policy of SQLSTATE codes.
//!
//! Invariant: every session is set up so that server-side timeouts and locale settings cannot change
//! what is read.

mod watch;

pub use watch::SessionId;

use crate::error::{Error, Kind, Result};
use crate::policy;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgPool};
use std::str::FromStr;
use std::time::Duration;

/// Settings of every session. Text is only read for cut points and `as_text`; it must not depend on the
/// server's locale. Sequential scans must not start in the middle of a table, because a position is
/// "everything before this row". A database without an encoding sends its bytes as they are: asked for UTF8,
/// it would fail a whole read at the first bytes that are none, where only their row is to be rejected.
/// A client that vanished without a word must not hold its snapshot for hours, as it would by the defaults of TCP.
const SESSION: &str = "set statement_timeout = 0; set lock_timeout = '60s'; \
     set idle_in_transaction_session_timeout = 0; set timezone = 'UTC'; \
     set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601'; set bytea_output = 'hex'; \
     set extra_float_digits = 1; set synchronize_seqscans = off; set client_encoding = 'UTF8'; \
     set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3; \
     set tcp_user_timeout = 60000; \
     select set_config('client_encoding', 'SQL_ASCII', false) \
     where current_setting('server_encoding') = 'SQL_ASCII'";

/// How long a server may take to say why it lets nobody in.
const REASON_MAX: Duration = Duration::from_secs(1);

/// A pool and the address it talks to.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// The pool.
    pub pool: PgPool,
    /// `host:port/database`, for messages and the server identity.
    pub address: String,
    options: PgConnectOptions,
    /// Which server answered first; `None` where it does not tell.
    server: Option<SessionId>,
}

impl Postgres {
    /// Takes a pooled connection, or says why none could be opened: the pool hides that behind its own timeout, so the
    /// server is asked once more outside of it.
    pub async fn acquire(&self) -> Result<PoolConnection<sqlx::Postgres>> {
        let mut failed = match self.pool.acquire().await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if matches!(failed, sqlx::Error::PoolTimedOut)
            && let Ok(Err(reason)) = tokio::time::timeout(REASON_MAX, self.options.connect()).await
        {
            failed = reason;
        }
        Err(from_sqlx(failed, &format!("cannot connect to alloydb at {}", self.address)))
    }
}

/// Connects to the server of a `postgres://` URL and opens the first connection.
///
/// `connections` bounds the pool. Fails with `Config` on a URL that cannot be parsed, `Auth` on wrong
/// credentials, `Connection` when the server cannot be reached within `timeout`.
pub async fn connect(url: &str, connections: u32, timeout: Duration) -> Result<Postgres> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| Error::new(Kind::Config, "cannot parse the url of [alloydb]"))?
        .application_name("rekindle")
        .disable_statement_logging();
    let address = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(timeout.min(policy::answer_max()))
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION).execute(connection).await?;
                Ok(())
            })
        })
        .after_release(|connection, _| {
            // The pool looks at what it gets back without a limit, and keeps its place for it until then.
            Box::pin(async move {
                let answered = tokio::time::timeout(policy::answer_max(), connection.ping()).await;
                answered.map_err(|_| sqlx::Error::PoolTimedOut)??;
                Ok(true)
            })
        })
        .connect_lazy_with(options.clone());
    // One attempt outside the pool: a pool hides why it could not connect behind its own timeout.
    let limit = timeout.min(policy::answer_max());
    let first = async {
        let mut connection = options.connect().await?;
        let server = SessionId::told(&mut connection).await?.map(SessionId::of_any);
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing the probe connection failed");
        }
        Ok(server)
    };
    let server = match tokio::time::timeout(limit, first).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            return Err(from_sqlx(error, &format!("cannot connect to alloydb at {address}")));
        }
        Err(_) => {
            return Err(Error::new(
                Kind::Connection,
                format!("alloydb at {address} did not answer within {} s", limit.as_secs()),
            )
            .with_hint("rekindle check"));
        }
    };
    Ok(Postgres { pool, address, options, server })
}

/// Maps an sqlx error to a kind by its SQLSTATE (PostgreSQL manual, appendix A).
pub fn from_sqlx(error: sqlx::Error, what: &str) -> Error {
    let kind = kind_of(&error);
    let shaped = Error::new(kind, what.to_owned());
    let shaped = match kind {
        Kind::Auth => shaped.with_hint("check user, password and grants, then: rekindle check"),
        Kind::Config | Kind::Schema | Kind::Data => shaped.with_hint(
            "mend the url or the SQL of the plan, or what it reads, then: rekindle plan",
        ),
        Kind::Connection | Kind::Unavailable => shaped
            .with_hint("see that the server is up and reachable, then run the same command again"),
        _ => shaped,
    };
    shaped.with_source(error)
}

fn kind_of(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // A connection cut in the middle of a message surfaces as a protocol error.
        | sqlx::Error::Protocol(_) => Kind::Connection,
        sqlx::Error::Configuration(_) => Kind::Config,
        sqlx::Error::Database(database) => kind_of_sqlstate(database.code().as_deref().unwrap_or("")),
        _ => Kind::Internal,
    }
}

fn kind_of_sqlstate(code: &str) -> Kind {
    match code {
        "42501" => Kind::Auth,
        "3D000" | "42601" | "42883" | "42804" | "42P18" => Kind::Config,
        "42P01" | "42703" | "3F000" | "42P02" => Kind::Schema,
        // Statement or session ended by an administrator, a restart, a recovery conflict or a timeout.
        "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "40001" | "40P01" | "53300" | "55P03"
        | "72000" | "25P03" | "25P04" => Kind::Unavailable,
        _ => match code.get(..2) {
            Some("28") => Kind::Auth,
            Some("08") => Kind::Connection,
            Some("53" | "58") => Kind::Unavailable,
            Some("22") => Kind::Data,
            _ => Kind::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_a_kind() {
        for (code, kind) in [
            ("57P01", Kind::Unavailable), // admin_shutdown
            ("57P02", Kind::Unavailable), // crash_shutdown
            ("57P03", Kind::Unavailable), // cannot_connect_now: starting up, in recovery
            ("57P05", Kind::Unavailable), // idle_session_timeout
            ("57014", Kind::Unavailable), // query_canceled: a recovery conflict or a timeout
            ("40001", Kind::Unavailable), // serialization_failure: a recovery conflict on a replica
            ("40P01", Kind::Unavailable), // deadlock_detected
            ("53000", Kind::Unavailable), // insufficient_resources
            ("53100", Kind::Unavailable), // disk_full, of the source: a spilled sort, say
            ("53200", Kind::Unavailable), // out_of_memory
            ("53300", Kind::Unavailable), // too_many_connections
            ("55P03", Kind::Unavailable), // lock_not_available
            ("58030", Kind::Unavailable), // io_error
            ("72000", Kind::Unavailable), // snapshot_too_old
            ("25P03", Kind::Unavailable), // idle_in_transaction_session_timeout
            ("25P04", Kind::Unavailable), // transaction_timeout
            ("08006", Kind::Connection),
            ("28P01", Kind::Auth),
            ("28000", Kind::Auth),
            ("42501", Kind::Auth),
            ("3D000", Kind::Config),
            ("42601", Kind::Config),
            ("42P01", Kind::Schema),
            ("42703", Kind::Schema),
            ("22012", Kind::Data), // division_by_zero
            ("XX000", Kind::Internal),
            ("", Kind::Internal),
        ] {
            assert_eq!(kind_of_sqlstate(code), kind, "{code}");
        }
    }
}
