//! Redis connections: raw streams for the hot path, a deadpool-redis pool for control and reads.
//!
//! Invariant: both are made from the same URL, so TLS, ACL user, password and database are the same;
//! certificates are always verified.

use crate::error::{Error, Kind, Result};
use crate::policy;
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A byte stream to a server, plain or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a Redis lives and how to get in.
#[derive(Clone)]
pub struct Endpoint {
    info: ConnectionInfo,
    /// `host:port/db`, for messages.
    pub address: String,
    timeout: Duration,
}

impl Endpoint {
    /// Parses a `redis://` or `rediss://` URL. `timeout` bounds every connection attempt.
    pub fn parse(url: &str, timeout: Duration) -> Result<Self> {
        let info = url
            .into_connection_info()
            .map_err(|_| Error::new(Kind::Config, "cannot parse the url of [redis]"))?;
        let address = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(Error::new(
                    Kind::Config,
                    "the url of [redis] turns certificate verification off, which is refused",
                )
                .with_hint("remove #insecure and set SSL_CERT_FILE to the server's CA"));
            }
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}")
            }
            _ => return Err(Error::new(Kind::Config, "the url of [redis] names no host")),
        };
        let address = format!("{address}/{}", info.redis_settings().db());
        Ok(Self { info, address, timeout })
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// The same server and user with another of its databases.
    #[must_use]
    pub fn with_database(&self, database: u32) -> Self {
        let settings = self.info.redis_settings().clone().set_db(database.into());
        let server = self.address.rsplit_once('/').map_or(&*self.address, |(server, _)| server);
        Self {
            info: self.info.clone().set_redis_settings(settings),
            address: format!("{server}/{database}"),
            timeout: self.timeout,
        }
    }

    /// Opens the control pool. Connections are made on first use.
    pub fn pool(&self, size: usize) -> Result<deadpool_redis::Pool> {
        install_crypto();
        let timeout = self.connect_max();
        // By default a reply may take half a second, in which a slow line carries no page of blocks.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(policy::answer_max()));
        let manager = deadpool_redis::Manager::new_with_config(self.info.clone(), config);
        let manager = manager.map_err(|error| {
            Error::new(Kind::Config, "cannot use the url of [redis]").with_source(error)
        })?;
        deadpool_redis::Pool::builder(manager)
            .max_size(size)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .wait_timeout(Some(policy::answer_max()))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .build()
            .map_err(|error| {
                Error::new(Kind::Internal, "cannot build the redis pool").with_source(error)
            })
    }

    /// How long one attempt to connect may take: as long as was said, and never longer than an answer.
    fn connect_max(&self) -> Duration {
        self.timeout.min(policy::answer_max())
    }

    /// Opens one connection that waits up to `answer` for each reply.
    pub async fn patient(&self, answer: Duration) -> Result<redis::aio::MultiplexedConnection> {
        install_crypto();
        let what = format!("cannot connect to redis at {}", self.address);
        let client =
            redis::Client::open(self.info.clone()).map_err(|error| from_redis(error, &what))?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_max()))
            .set_response_timeout(Some(answer));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| from_redis(error, &what))
    }

    /// Opens a raw stream, authenticated and on the right database.
    pub async fn stream(&self) -> Result<Box<dyn Stream>> {
        let limit = self.connect_max();
        let attempt = tokio::time::timeout(limit, self.open());
        attempt.await.unwrap_or_else(|_| {
            let (address, seconds) = (&self.address, limit.as_secs());
            let message = format!("redis at {address} did not answer within {seconds} s");
            Err(Error::new(Kind::Connection, message).with_hint("rekindle check"))
        })
    }

    async fn open(&self) -> Result<Box<dyn Stream>> {
        let (host, port, is_tls) = match self.info.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
            ConnectionAddr::Tcp(host, port) => (host, *port, false),
            _ => return Err(Error::new(Kind::Config, "the url of [redis] names no host")),
        };
        let lost = |error: std::io::Error| {
            Error::new(Kind::Connection, format!("cannot connect to redis at {}", self.address))
                .with_hint(
                    "see that the server is up and reachable, then run the same command again",
                )
                .with_source(error)
        };
        let socket = TcpStream::connect((host.as_str(), port)).await.map_err(lost)?;
        socket.set_nodelay(true).map_err(lost)?;
        // What a connection that was given up had not sent yet must not arrive behind what replaced it.
        socket.set_zero_linger().map_err(lost)?;
        let mut stream: Box<dyn Stream> = if is_tls {
            let name = ServerName::try_from(host.clone()).map_err(|error| {
                Error::new(Kind::Config, "the host of [redis] is no server name").with_source(error)
            })?;
            let connector = tokio_rustls::TlsConnector::from(tls_config()?);
            Box::new(connector.connect(name, socket).await.map_err(lost)?)
        } else {
            Box::new(socket)
        };
        self.greet(&mut *stream).await?;
        Ok(stream)
    }

    /// Sends AUTH and SELECT as the URL asks; each must be answered with `+OK`.
    async fn greet(&self, stream: &mut dyn Stream) -> Result<()> {
        let settings = self.info.redis_settings();
        if let Some(password) = settings.password() {
            let mut command = redis::cmd("AUTH");
            if let Some(user) = settings.username() {
                command.arg(user);
            }
            command.arg(password);
            self.expect_ok(stream, &command, "AUTH").await?;
        }
        if settings.db() != 0 {
            self.expect_ok(stream, redis::cmd("SELECT").arg(settings.db()), "SELECT").await?;
        }
        Ok(())
    }

    async fn expect_ok(
        &self,
        stream: &mut dyn Stream,
        command: &redis::Cmd,
        name: &str,
    ) -> Result<()> {
        let lost = |error: std::io::Error| {
            Error::new(Kind::Connection, format!("lost redis at {} during {name}", self.address))
                .with_source(error)
        };
        stream.write_all(&command.get_packed_command()).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut line = Vec::with_capacity(64);
        while !line.ends_with(b"\r\n") {
            // One byte at a time: nothing after this reply may be swallowed, and it is one short line.
            line.push(stream.read_u8().await.map_err(lost)?);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text == "+OK" {
            return Ok(());
        }
        Err(from_reply(
            text.trim_start_matches('-'),
            &format!("{name} on redis at {}", self.address),
        ))
    }
}

/// Maps the text of an error reply (without its `-`) to a kind by its first word.
pub fn from_reply(text: &str, what: &str) -> Error {
    let code = text.split(' ').next().unwrap_or_default();
    let kind = kind_of_reply(text);
    let error = Error::new(kind, format!("{what}: redis answered {code}"))
        .with_source(text.chars().take(200).collect::<String>());
    match kind {
        Kind::Auth => error.with_hint("check user, password and ACL of [redis], then: rekindle check"),
        Kind::Capacity => error.with_hint(
            "give the instance more memory (maxmemory), then run the same command again: it resumes",
        ),
        Kind::Unavailable => error.with_hint(
            "see that [redis] names the primary and that it finished loading, then run the same command again",
        ),
        _ => error,
    }
}

/// Maps a Redis error reply to a kind: by its first word, and where that is `ERR` by what follows (the texts of Redis
/// 6.2 to 8).
pub fn kind_of_reply(text: &str) -> Kind {
    match text.split(' ').next().unwrap_or_default() {
        "OOM" => Kind::Capacity,
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MISCONF"
        | "NOREPLICAS" | "MOVED" | "ASK" | "UNBLOCKED" => Kind::Unavailable,
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Kind::Auth,
        // The second is the JSON module's: "Existing key has wrong Redis type".
        "WRONGTYPE" | "Existing" => Kind::Refused,
        // A key that was being built lost a piece with an earlier connection; it is built anew.
        "REKINDLE" => Kind::Connection,
        "ERR" => {
            let starts = |of: &str| text["ERR".len()..].trim_start().starts_with(of);
            if starts("max number of clients") {
                Kind::Unavailable
            } else if REFUSALS.iter().any(|refusal| starts(refusal)) {
                Kind::Refused
            } else {
                Kind::Internal
            }
        }
        _ => Kind::Internal,
    }
}

/// What Redis says of one value or time that it does not take, whatever its state.
const REFUSALS: [&str; 4] = [
    // proto-max-bulk-len, met while a command is read; the connection is closed behind it.
    "Protocol error: invalid bulk length",
    // The same, met while a value grows.
    "string exceeds maximum allowed size",
    "invalid expire time",
    "Invalid TTL value",
];

/// Maps an error of the control client to a kind; a pipeline's is that of its first command that failed.
pub fn from_redis(error: RedisError, what: &str) -> Error {
    if error.code().is_none()
        && let Some((_, first)) =
            error.clone().into_server_errors().as_deref().and_then(<[_]>::first)
    {
        let text = format!("{} {}", first.code(), first.details().unwrap_or_default());
        return from_reply(&text, what);
    }
    if let Some(code) = error.code() {
        let mut shaped =
            from_reply(&format!("{code} {}", error.detail().unwrap_or_default()), what);
        if shaped.kind() == Kind::Internal && error.kind() == ErrorKind::AuthenticationFailed {
            shaped = Error::new(Kind::Auth, what.to_owned()).with_source(error);
        }
        return shaped;
    }
    let kind = match error.kind() {
        ErrorKind::AuthenticationFailed => Kind::Auth,
        ErrorKind::InvalidClientConfig => Kind::Config,
        _ if error.is_timeout() => Kind::Timeout,
        _ if error.is_io_error() || error.is_connection_dropped() => Kind::Connection,
        _ => Kind::Internal,
    };
    Error::new(kind, what.to_owned())
        .with_hint("see that the server is up and reachable, then: rekindle check")
        .with_source(error)
}

/// Maps an error of the control pool to a kind.
pub fn from_pool(error: deadpool_redis::PoolError, what: &str) -> Error {
    match error {
        deadpool_redis::PoolError::Backend(error) => from_redis(error, what),
        other => Error::new(Kind::Connection, what.to_owned())
            .with_hint("see that the server is up and reachable, then: rekindle check")
            .with_source(other),
    }
}

pub(super) fn install_crypto() {
    // Another part of the process may have installed it already; either way one provider is there.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("a crypto provider was installed before");
    }
}

fn tls_config() -> Result<Arc<rustls::ClientConfig>> {
    install_crypto();
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(Error::new(Kind::Config, "no root certificates found on this machine")
            .with_hint("install ca-certificates or set SSL_CERT_FILE"));
    }
    Ok(Arc::new(
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_has_a_kind() {
        for (text, kind) in [
            ("LOADING Redis is loading the dataset in memory", Kind::Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Kind::Unavailable),
            ("CLUSTERDOWN The cluster is down", Kind::Unavailable),
            ("MOVED 3999 127.0.0.1:6381", Kind::Unavailable),
            ("ASK 3999 127.0.0.1:6381", Kind::Unavailable),
            ("READONLY You can't write against a read only replica.", Kind::Unavailable),
            ("MASTERDOWN Link with MASTER is down", Kind::Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Kind::Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots", Kind::Unavailable),
            ("BUSY Redis is busy running a script.", Kind::Unavailable),
            ("UNBLOCKED force unblock from blocking operation", Kind::Unavailable),
            ("ERR max number of clients reached", Kind::Unavailable),
            ("NOAUTH Authentication required.", Kind::Auth),
            ("WRONGPASS invalid username-password pair", Kind::Auth),
            ("NOPERM User x has no permissions to run the 'set' command", Kind::Auth),
            ("DENIED Redis is running in protected mode", Kind::Auth),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind::Capacity),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Kind::Refused),
            ("ERR Protocol error: invalid bulk length", Kind::Refused),
            ("ERR string exceeds maximum allowed size (proto-max-bulk-len)", Kind::Refused),
            ("ERR invalid expire time in 'pexpireat' command", Kind::Refused),
            ("ERR Invalid TTL value, must be >= 0", Kind::Refused),
            ("REKINDLE a piece is missing", Kind::Connection),
            ("ERR unknown command 'x'", Kind::Internal),
            ("NOSCRIPT No matching script.", Kind::Internal),
            ("EXECABORT Transaction discarded because of previous errors.", Kind::Internal),
            ("", Kind::Internal),
        ] {
            assert_eq!(from_reply(text, "writing").kind(), kind, "{text}");
        }
    }
}
