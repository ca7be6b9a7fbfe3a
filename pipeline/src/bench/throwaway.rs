//! A Redis server of our own, to measure against: on this machine, for one run, behind a password.
//!
//! Invariant: it is gone when its owner is, also where that was killed: a shell holds it, and ends it when the pipe to its
//! owner closes. Nothing of it is written to disk but its configuration.

use schemas::plan::Secret;
use stages::{Error, Kind, Result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use uuid::Uuid;

/// What is looked for on the PATH where nothing was named.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// How long a server without data may take to listen.
const START_MAX: Duration = Duration::from_secs(10);
/// How long to wait before another look at a server that does not listen yet.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Times that another program may take the port first.
const TRIES: usize = 3;
/// Runs the server `$1` with the configuration `$2` until it ends, or until the pipe at the standard input closes. What is put
/// into the background has no standard input of its own, hence the copy.
const HOLD: &str = r#"exec 3<&0; "$1" "$2" </dev/null 3<&- & server=$!
(read -r _ <&3; kill -9 $server) & watcher=$!; wait $server; kill $watcher"#;

/// The server.
#[derive(Debug)]
pub(super) struct Throwaway {
    shell: Child,
    url: Secret,
    configuration: PathBuf,
}

impl Throwaway {
    /// Starts one with its configuration in a folder that exists. `program` defaults to what the PATH has.
    ///
    /// Fails with `Kind::Config` where there is no such program, and with `Kind::Unavailable` where it does not start.
    pub(super) async fn start(program: Option<&Path>, folder: &Path) -> Result<Self> {
        let program = match program {
            Some(program) if program.is_file() => program.to_owned(),
            Some(program) => return Err(no_program(&format!("there is no {}", program.display()))),
            None => on_path()?,
        };
        let mut why = String::new();
        for _ in 0..TRIES {
            match Self::try_start(&program, folder).await {
                Ok(started) => return Ok(started),
                Err(error) => why = error.to_string(),
            }
        }
        let message = format!("{} does not start: {why}", program.display());
        Err(Error::new(Kind::Unavailable, message)
            .with_hint("look whether it starts by hand, or name another one with --redis-server"))
    }

    async fn try_start(program: &Path, folder: &Path) -> std::io::Result<Self> {
        // The port is free now; where somebody else takes it before the server does, another one is tried.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let password = Uuid::new_v4().simple().to_string();
        let configuration = folder.join("redis.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\n\
             dir \"{}\"\ndaemonize no\n",
            folder.display()
        );
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        file.open(&configuration)?.write_all(text.as_bytes())?;
        let shell = Command::new("/bin/sh")
            .args(["-c", HOLD, "sh"])
            .args([program, configuration.as_path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let url = Secret(format!("redis://:{password}@127.0.0.1:{port}/0"));
        let mut started = Self { shell, url, configuration };
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if started.shell.try_wait()?.is_some() {
                return Err(std::io::Error::other("it ended at once"));
            }
            if Instant::now() > until {
                return Err(std::io::Error::other("it does not listen"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(started)
    }

    /// Its address, with its password.
    pub(super) fn url(&self) -> &Secret {
        &self.url
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn end(mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait().await {
            tracing::warn!(%error, "cannot tell whether the throwaway server has ended");
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // The pipe closes with the child's handle, and with it the server.
        if let Err(error) = fs::remove_file(&self.configuration) {
            tracing::debug!(%error, "the configuration of the throwaway server stays");
        }
    }
}

fn on_path() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| PROGRAMS.map(|name| folder.join(name)))
        .find(|program| program.is_file());
    found.ok_or_else(|| no_program(&format!("there is no {} on the PATH", PROGRAMS.join(" or "))))
}

fn no_program(why: &str) -> Error {
    Error::new(Kind::Config, format!("{why} to measure against")).with_hint(
        "install the server that production runs, or name it: rekindle bench --redis-server PROGRAM",
    )
}
