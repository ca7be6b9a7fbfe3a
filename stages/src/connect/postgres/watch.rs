//! Tells a server that works from one that is gone, where nothing comes from either.
//!
//! A query may be silent for hours, and a connection whose server died may be silent for ever. So after a while of silence
//! the server is asked, on a connection of its own, whether the session is still there.
//!
//! Invariant: a wait ends when its answer comes, when the server cannot be asked, when the session is known to be gone or,
//! where its process is not known, no session of ours works there, and at the latest after [`UNKNOWN_MAX`] where that cannot
//! be told.

use super::{Postgres, from_sqlx};
use crate::error::{Error, Kind, Result};
use crate::policy;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Row};
use std::time::{Duration, Instant};

/// How long an address that leads to more than one server (a pooler, a read pool) may leave it open.
const UNKNOWN_MAX: Duration = Duration::from_hours(1);

/// Who a session is: its server by address and start, and the process there.
const IDENTIFY: &str = "select coalesce(host(inet_server_addr()), '') || ':' || \
     coalesce(inet_server_port()::text, ''), pg_postmaster_start_time()::text, pg_backend_pid()";

/// Who it is now, and whether the session of a process is there; of a process that is not known, whether any session of ours
/// is not known to be idle: a query on a connection that only this side still holds has none.
const ASK: &str = "select coalesce(host(inet_server_addr()), '') || ':' || \
     coalesce(inet_server_port()::text, ''), pg_postmaster_start_time()::text, \
     exists (select from pg_stat_activity where pid = $1 or ($1::int is null and pid <> pg_backend_pid() \
     and coalesce(state, '') not like 'idle%' and usename = session_user \
     and application_name = current_setting('application_name')))";

/// The session of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId {
    /// Where its server says it listens.
    node: String,
    started: String,
    /// Its process; `None` stands for any session of that server.
    process: Option<i32>,
}

/// What the server says of a session.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    There,
    Gone(&'static str),
    /// Another server answered.
    Unknown,
}

impl SessionId {
    /// Asks a connection who it is; `None` where its server does not tell.
    ///
    /// A connection that broke over the question fails: taken for a server that does not tell, it would be waited for an
    /// hour where it is gone.
    pub async fn told(
        connection: &mut PgConnection,
    ) -> std::result::Result<Option<Self>, sqlx::Error> {
        match Self::of(connection).await {
            Ok(session) => Ok(Some(session)),
            Err(
                error @ (sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_)),
            ) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn of(connection: &mut PgConnection) -> std::result::Result<Self, sqlx::Error> {
        let row = sqlx::query(IDENTIFY).fetch_one(connection).await?;
        Ok(Self { node: row.try_get(0)?, started: row.try_get(1)?, process: Some(row.try_get(2)?) })
    }

    /// Any session of the same server.
    pub(super) fn of_any(self) -> Self {
        Self { process: None, ..self }
    }

    fn judge(&self, node: &str, started: &str, is_there: bool) -> Told {
        if self.node != node {
            Told::Unknown
        } else if self.started != started {
            Told::Gone("it was restarted")
        } else if !is_there && self.process.is_none() {
            Told::Gone("no session of ours is at work there")
        } else if !is_there {
            Told::Gone("the session is gone")
        } else {
            Told::There
        }
    }
}

impl Postgres {
    /// Waits for what a session of this server is asked for, as long as the server works on it.
    pub async fn watched<T>(
        &self,
        session: Option<&SessionId>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let session = session.or(self.server.as_ref());
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
        loop {
            let limit = policy::answer_max();
            if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
                return done;
            }
            let told = self.ask_after(session).await?;
            let why = match told {
                Told::There => continue,
                Told::Unknown if begun.elapsed() < UNKNOWN_MAX => continue,
                Told::Unknown => "another server answers in its place",
                Told::Gone(why) => why,
            };
            let message = format!("alloydb at {} fell silent: {why}", self.address);
            return Err(Error::new(Kind::Connection, message)
                .with_hint("see that the server is up, then run the same command again"));
        }
    }

    async fn ask_after(&self, session: Option<&SessionId>) -> Result<Told> {
        let what = || format!("alloydb at {}", self.address);
        let asking = async {
            let mut connection = self.options.connect().await?;
            let asked = sqlx::query(ASK).bind(session.and_then(|session| session.process));
            let row = asked.fetch_one(&mut connection).await?;
            let found: (String, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            connection.close().await?;
            Ok(found)
        };
        let limit = policy::answer_max();
        match tokio::time::timeout(limit, asking).await {
            Err(_) => Err(policy::silent(&what(), limit)),
            Ok(Ok((node, started, is_there))) => {
                Ok(session
                    .map_or(Told::Unknown, |session| session.judge(&node, &started, is_there)))
            }
            // It has no connection to spare, or does not tell: but it is there.
            Ok(Err(sqlx::Error::Database(_))) => Ok(Told::Unknown),
            Ok(Err(error)) => Err(from_sqlx(error, &format!("{} fell silent", what()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_that_is_known_to_be_gone_is_given_up() {
        let session =
            SessionId { node: "10.0.0.1:5432".into(), started: "t".into(), process: Some(7) };
        assert_eq!(session.judge("10.0.0.1:5432", "t", true), Told::There);
        assert_eq!(session.judge("10.0.0.1:5432", "t", false), Told::Gone("the session is gone"));
        assert_eq!(session.judge("10.0.0.1:5432", "u", true), Told::Gone("it was restarted"));
        assert_eq!(session.judge("10.0.0.2:5432", "u", false), Told::Unknown);
        let any = session.of_any();
        assert_eq!(any.judge("10.0.0.1:5432", "t", true), Told::There);
        // A session that nobody knows is gone where none works.
        let gone = Told::Gone("no session of ours is at work there");
        assert_eq!(any.judge("10.0.0.1:5432", "t", false), gone);
    }
}
