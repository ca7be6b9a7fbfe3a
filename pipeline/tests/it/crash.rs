//! Runs that are killed at every boundary, resumed by the same command, and compared with what they must leave.
//!
//! Invariant: the kill is a SIGKILL of the real binary by itself, at a named point; what is compared shares nothing with
//! the product; and a point that no flow passes fails the suite.

mod alloydb;
mod archive;
mod backup;
mod restore;
mod table;

use crate::items::Wire;
use crate::world::{Ran, wait_until};
use serde_json::Value;
use stages::failpoint::{Point, VARIABLE};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;
pub(crate) use table::Flow;
use tempfile::TempDir;

/// Systems, a command, and what it must leave.
pub(crate) struct Scenario<'a> {
    pub(crate) name: &'static str,
    /// Points of earlier scenarios of the flow that mean something else in this one.
    pub(crate) also: &'a [Point],
    /// Puts systems and state to where the run begins that is killed.
    pub(crate) reset: &'a dyn Fn(),
    /// The command, which is typed again after the kill.
    pub(crate) command: &'a dyn Fn() -> Command,
    /// The server that may still have to carry out what a dead process had sent.
    pub(crate) redis_port: u16,
    /// Compares what the command left with what it must leave.
    pub(crate) check: &'a dyn Fn(),
}

/// What the same command did after a kill: the word, and the scenarios.
type Cell = BTreeMap<&'static str, Vec<&'static str>>;

/// One flow, killed at every point that it passes.
pub(crate) struct Matrix {
    flow: Flow,
    cells: BTreeMap<Point, Cell>,
}

fn is_soak() -> bool {
    std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1")
}

/// Whether only one scenario is asked for, and it is another one: `REKINDLE_SCENARIO=<name>`.
fn is_left_out(scenario: &str) -> bool {
    std::env::var("REKINDLE_SCENARIO").is_ok_and(|only| only != scenario)
}

/// Small for every run of the suite, large in the long one.
pub(crate) fn size(small: u32, large: u32) -> u32 {
    if is_soak() { large } else { small }
}

impl Matrix {
    pub(crate) fn new(flow: Flow) -> Self {
        Self { flow, cells: BTreeMap::new() }
    }

    /// Kills the command of a scenario at every point that no scenario before has passed, and at those it names.
    pub(crate) fn kill_everywhere(&mut self, scenario: &Scenario<'_>) {
        if is_left_out(scenario.name) {
            return;
        }
        let started = Instant::now();
        let passings = scenario.passings();
        let mut cells = 0;
        for (point, count) in passings {
            let is_told = !self.cells.contains_key(&point) || scenario.also.contains(&point);
            let few = [1, count / 2 + 1];
            let many = [1, 2, 3, count / 4 + 1, count / 2 + 1, count * 3 / 4 + 1, count];
            let mut tried: Vec<u64> = if is_soak() { many.to_vec() } else { few.to_vec() };
            tried.retain(|at| *at <= count && (is_soak() || is_told));
            tried.sort_unstable();
            tried.dedup();
            for at in tried {
                let Some(did) = scenario.kill(point, at, is_told) else { continue };
                cells += 1;
                if is_told && few.contains(&at) {
                    self.note(point, did, scenario.name);
                }
            }
        }
        println!("{}: {cells} kills in {:?}", scenario.name, started.elapsed());
    }

    fn note(&mut self, point: Point, did: &'static str, scenario: &'static str) {
        let scenarios = self.cells.entry(point).or_default().entry(did).or_default();
        if !scenarios.contains(&scenario) {
            scenarios.push(scenario);
        }
    }

    /// Asserts that the documented table says the same.
    pub(crate) fn assert_documented(self) {
        if is_left_out("") {
            return;
        }
        table::assert_column(self.flow, &self.cells);
    }
}

impl Scenario<'_> {
    fn run(&self, failpoint: Option<&str>) -> Output {
        let mut command = (self.command)();
        if let Some(failpoint) = failpoint {
            command.env(VARIABLE, failpoint);
        }
        command.output().unwrap()
    }

    /// How often an uninterrupted run passes each point.
    fn passings(&self) -> BTreeMap<Point, u64> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passed");
        (self.reset)();
        let ran = Ran::of(&self.run(Some(&format!("record:{}", path.display()))));
        ran.expect(0);
        (self.check)();
        passed(&path)
    }

    /// Kills at a passing and resumes; returns what the resume did, or `None` where the run ended before: one that begins
    /// where another was killed need not pass a point that only partitions have which the other one had completed.
    fn kill(&self, point: Point, at: u64, must_pass: bool) -> Option<&'static str> {
        let name = point.name();
        (self.reset)();
        let output = self.run(Some(&format!("{name}:{at}")));
        if output.status.signal() != Some(9) {
            // How often a point is passed may depend on the instant, whether it is at all may not.
            let ran = Ran::of(&output);
            assert!(
                at > 1 || !must_pass,
                "{} passed {name} before and did not now: {}",
                self.name,
                ran.stderr
            );
            ran.expect(0);
            (self.check)();
            return None;
        }
        settle(self.redis_port);
        let mut resumed = is_soak().then(|| self.run(Some(name)));
        // Killed twice at one point; a resume that does not pass it again is the last run.
        if resumed.as_ref().is_some_and(|output| output.status.signal() == Some(9)) {
            settle(self.redis_port);
            resumed = None;
        }
        let ran = Ran::of(&resumed.unwrap_or_else(|| self.run(None)));
        let what = format!("{} killed at {name}:{at}", self.name);
        println!("{what}: {:?}", ran.code);
        let did = match ran.code {
            Some(0) if ran.summary()["resumed"].as_u64() > Some(0) => "resumed",
            Some(0) => "a new run",
            // What is complete is not done again where that could harm.
            Some(2) if point == Point::StatusRecorded => "refused, as it was done",
            code => panic!("{what}: {code:?} {}", ran.stderr),
        };
        (self.check)();
        Some(did)
    }
}

fn passed(path: &Path) -> BTreeMap<Point, u64> {
    let mut passed = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let point = Point::ALL.iter().find(|point| point.name() == line).unwrap();
        *passed.entry(*point).or_default() += 1;
    }
    passed
}

/// Waits until Redis has carried out what a dead process had sent.
pub(crate) fn settle(port: u16) {
    let mut wire = Wire::to(port);
    wait_until("the end of the dead connections", || {
        wire.ask(&["INFO", "clients"]).text().unwrap().contains("connected_clients:1\r\n")
    });
}

/// Leaves a run that was killed at a point.
pub(crate) fn killed(mut command: Command, point: Point, redis_port: u16) {
    let output = command.env(VARIABLE, point.name()).output().unwrap();
    let signal = output.status.signal();
    assert_eq!(signal, Some(9), "{point:?}: {}", Ran::of(&output).stderr);
    settle(redis_port);
}

/// A state folder. Where that can be had it lies in memory: what was written outlives a SIGKILL there too, and a disk that
/// syncs thousands of times would be all that is measured.
pub(crate) struct State(TempDir);

impl State {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self(folder.unwrap())
    }

    /// A command that uses it.
    pub(crate) fn of(&self, mut command: Command) -> Command {
        command.arg("--state").arg(self.0.path().join("state"));
        command
    }

    /// Forgets all runs.
    pub(crate) fn forget(&self) {
        let state = self.0.path().join("state");
        if state.exists() {
            fs::remove_dir_all(state).unwrap();
        }
    }
}

/// Key to its elements: in order where it is a list, else sorted. All streams are one, as a multiset.
pub(crate) type Held = BTreeMap<String, Vec<String>>;

/// Everything that a database of a Redis holds, told by raw RESP. Entries of streams must be numbered without a gap.
pub(crate) fn held(port: u16, database: &str, streams: &str) -> Held {
    let mut wire = Wire::to(port);
    wire.ask(&["SELECT", database]);
    let keys: Vec<String> =
        wire.ask(&["KEYS", "*"]).list().into_iter().map(|key| key.text().unwrap()).collect();
    let asks: Vec<Vec<String>> = keys.iter().map(|key| words(&["TYPE", key])).collect();
    let kinds: Vec<String> =
        wire.pipeline(&asks).into_iter().map(|kind| kind.text().unwrap()).collect();
    let mut held = Held::new();
    for (key, kind) in keys.iter().zip(&kinds) {
        let read: &[&str] = match kind.as_str() {
            "hash" => &["HGETALL", key],
            "set" => &["SMEMBERS", key],
            "zset" => &["ZRANGE", key, "0", "-1", "WITHSCORES"],
            "list" => &["LRANGE", key, "0", "-1"],
            "stream" => &["XRANGE", key, "-", "+"],
            _ => &["GET", key],
        };
        let reply = wire.ask(read);
        if kind == "stream" {
            assert!(key.starts_with(streams), "{key}");
            for (number, entry) in reply.list().into_iter().enumerate() {
                let mut parts = entry.list().into_iter();
                let id = parts.next().unwrap().text().unwrap();
                assert_eq!(id, format!("{}-0", number + 1), "{key}");
                let words = parts.next().unwrap().list().into_iter();
                let words: Vec<String> = words.map(|word| word.text().unwrap()).collect();
                held.entry(streams.to_owned()).or_default().push(pairs(&words).join("|"));
            }
            continue;
        }
        held.insert(key.clone(), elements(kind, reply));
    }
    if let Some(entries) = held.get_mut(streams) {
        entries.sort();
    }
    held
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pairs(words: &[String]) -> Vec<String> {
    words.chunks(2).map(|pair| pair.join("=")).collect()
}

fn elements(kind: &str, reply: crate::items::Reply) -> Vec<String> {
    if kind == "string" {
        let text = reply.text().unwrap();
        let Ok(Value::Object(object)) = serde_json::from_str(&text) else { return vec![text] };
        let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut fields: Vec<String> =
            object.into_iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        fields.sort();
        return fields;
    }
    let words: Vec<String> = reply.list().into_iter().map(|word| word.text().unwrap()).collect();
    let mut elements = match kind {
        "hash" | "zset" => pairs(&words),
        _ => words,
    };
    if kind != "list" {
        elements.sort();
    }
    elements
}

/// Asserts equality without printing thousands of keys.
#[track_caller]
pub(crate) fn assert_held(found: &Held, wanted: &Held) {
    let missing: Vec<_> = wanted.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !wanted.contains_key(*key)).take(3).collect();
    let differs = |key: &&String| found.get(*key).is_some_and(|found| *found != wanted[*key]);
    let different: Vec<_> = wanted.keys().filter(differs).take(3).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && different.is_empty(),
        "{} wanted, {} found; missing {missing:?}; extra {extra:?}; different {different:?}",
        wanted.len(),
        found.len()
    );
}

#[test]
fn what_cannot_be_armed_is_refused_and_version_tells_of_failpoints() {
    let run = |words: &[&str], failpoint: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        Ran::of(&command.args(words).env(VARIABLE, failpoint).output().unwrap())
    };
    run(&["schema"], "run-recorded:1").expect(0).says(&["failpoint run-recorded:1"]);
    for (failpoint, why) in
        [("nowhere", "there is no point nowhere"), ("run-recorded:0", "no number from 1 on")]
    {
        run(&["schema"], failpoint).expect(2).says(&[VARIABLE, why, "hint: say NAME"]);
    }
    let version = run(&["--version"], "").expect(0).stdout;
    assert!(version.trim_end().ends_with(" (with failpoints)"), "{version}");
}
