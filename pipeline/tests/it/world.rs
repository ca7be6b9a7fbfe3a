//! A PostgreSQL, a Redis, a plan and a state folder of one test, and the ways to run the binary on them.
//!
//! Invariant: everything is gone when the world is dropped; nothing outside its folder is touched.

use fixtures::servers::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where every plan of a test gets its servers from.
const SERVERS: &str =
    "[alloydb]\nurl = \"${env:ALLOYDB_URL}\"\n[redis]\nurl = \"${env:REDIS_URL}\"\n";

/// One test's systems and files.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) folder: TempDir,
    /// How every rebuild writes hashes.
    pub(crate) way: &'static str,
}

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The summary object that `--json` printed.
    pub(crate) fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no summary ({error}) in {:?}\n{}", self.stdout, self.stderr)
        })
    }

    /// Asserts the exit code, showing what was said when it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stdout holds every one of these texts.
    #[track_caller]
    pub(crate) fn shows(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "{text:?} is not in: {}", self.stdout);
        }
        self
    }

    /// Asserts that stderr holds every one of these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in: {}", self.stderr);
        }
        self
    }
}

impl World {
    /// Starts both servers with default settings.
    pub(crate) fn new() -> Self {
        Self::with(PostgresOptions::default(), RedisOptions::default())
    }

    /// Starts both servers.
    pub(crate) fn with(postgres: PostgresOptions, redis: RedisOptions) -> Self {
        Self {
            postgres: Postgres::start(postgres).unwrap(),
            redis: Redis::start(redis).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            way: "auto",
        }
    }

    /// Runs SQL as superuser.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.postgres.psql(sql).unwrap().trim().to_owned()
    }

    /// Writes the plan: the given routes on this world's servers.
    pub(crate) fn plan(&self, routes: &str) {
        fs::write(self.folder.path().join("rekindle.toml"), format!("{SERVERS}{routes}")).unwrap();
    }

    /// The state folder that `run` and `rebuild` use.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join(".rekindle")
    }

    /// The binary, ready to run in this world's folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .env("ALLOYDB_URL", self.postgres.url())
            .env("REDIS_URL", self.redis.url())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        Ran::of(&self.command(words).output().unwrap())
    }

    /// `rebuild redis --json --progress none --retry-for 2s` and more words, to its end.
    pub(crate) fn rebuild(&self, more: &[&str]) -> Ran {
        self.run(&self.rebuild_words(more))
    }

    /// The same, started and left running.
    pub(crate) fn start_rebuild(&self, more: &[&str]) -> Child {
        self.command(&self.rebuild_words(more))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn rebuild_words<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "2s"];
        [&words[..], &["--way", self.way], more].concat()
    }

    /// Asks Redis.
    #[track_caller]
    pub(crate) fn redis(&self, words: &[&str]) -> String {
        self.redis.cli(words).unwrap().trim().to_owned()
    }
}

/// Polls until `holds` is true; fails the test after a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_mins(1), "{what} did not happen in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}
