//! Proxies between the binary and its systems, and storms of toxics on them.
//!
//! Invariant: the tests themselves talk to the systems directly, so what they compare does not go through a proxy.

use crate::items::{random, seed};
use crate::world::Ran;
use fixtures::servers::{Direction, Proxy, Toxic};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a storm lasts.
pub(crate) fn storm_time() -> Duration {
    let is_soak = std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1");
    if is_soak { Duration::from_mins(1) } else { Duration::from_secs(5) }
}

/// Makes a plan lead to a proxy wherever it leads to this port.
pub(crate) fn lead(folder: &Path, port: u16, proxy: &Proxy) {
    let path = folder.join("rekindle.toml");
    let plan = fs::read_to_string(&path).unwrap();
    let (from, to) = (format!("127.0.0.1:{port}\""), format!("127.0.0.1:{}\"", proxy.port()));
    assert!(plan.contains(&from), "{plan}");
    fs::write(path, plan.replace(&from, &to)).unwrap();
}

/// A URL of a server on this port that leads to a proxy in its place.
pub(crate) fn led(url: &str, port: u16, proxy: &Proxy) -> String {
    let (from, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", proxy.port()));
    assert!(url.contains(&from), "{from} is not in the URL");
    url.replace(&from, &to)
}

/// The port of `http://127.0.0.1:9050`.
pub(crate) fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// Starts a command whose output is read as it comes.
pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// One of the toxics, with figures at random, and the way it acts on.
fn drawn(seed: &mut u64) -> (Toxic, Direction) {
    let toxic = match random(seed, 8) {
        0 => Toxic::Latency { ms: random(seed, 60), jitter_ms: 40 },
        1 => Toxic::Reset,
        2 => Toxic::BlackHole,
        3 => Toxic::HalfOpen,
        4 => Toxic::SlowClose { ms: 200 },
        5 => Toxic::Bandwidth { bytes_per_second: 100_000 + random(seed, 400_000) },
        6 => Toxic::Refused,
        _ => Toxic::CutAfter { bytes: 1 + random(seed, 300_000) },
    };
    let direction = match random(seed, 3) {
        0 => Direction::Up,
        1 => Direction::Down,
        _ => Direction::Both,
    };
    (toxic, direction)
}

/// Sets a toxic at random, or none.
fn gust(proxy: &Proxy, seed: &mut u64) {
    if random(seed, 2) == 0 {
        let (toxic, direction) = drawn(seed);
        proxy.set(toxic, direction);
    } else {
        proxy.clear();
    }
}

/// A storm: toxics come and go at random on all of these proxies, until its time is over or the run has ended.
pub(crate) struct Storm {
    blowing: JoinHandle<()>,
}

impl Storm {
    pub(crate) fn over(proxies: &[std::sync::Arc<Proxy>]) -> Self {
        let proxies = proxies.to_vec();
        let mut seed = seed();
        let blowing = std::thread::spawn(move || {
            let started = Instant::now();
            while started.elapsed() < storm_time() {
                for proxy in &proxies {
                    gust(proxy, &mut seed);
                }
                std::thread::sleep(Duration::from_millis(30 + random(&mut seed, 250)));
            }
            for proxy in &proxies {
                proxy.clear();
            }
        });
        Self { blowing }
    }

    /// Waits for the end of it.
    pub(crate) fn end(self) {
        self.blowing.join().unwrap();
    }
}

/// Runs the same command until it ends with 0, each time after 3, and returns how often it ran and the last run. What is
/// asked for while the storm blows is asked for again after it.
pub(crate) fn persist(command: impl Fn() -> Command) -> (u32, Ran) {
    for runs in 1..=30 {
        let output: Output = spawn(command()).wait_with_output().unwrap();
        let ran = Ran::of(&output);
        if ran.code == Some(0) {
            return (runs, ran);
        }
        println!("run {runs} ended with {:?}: {}", ran.code, last(&ran.stderr));
        let ran = ran.expect(3);
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
    }
    panic!("it never ended with 0")
}

fn last(text: &str) -> String {
    let from = text.find("error: ").unwrap_or(0);
    text[from..].chars().take(600).collect()
}

/// What all proxies did, by toxic.
pub(crate) fn hits(proxies: &[std::sync::Arc<Proxy>]) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for (name, count) in proxies.iter().flat_map(|proxy| proxy.hits()) {
        *all.entry(name).or_default() += count;
    }
    all
}

/// Asserts that a run kept within what `plan` had said.
#[track_caller]
pub(crate) fn assert_bound(ran: &Ran, bound: &serde_json::Value) {
    let (peak, bound) = (ran.summary()["peak_rss_bytes"].as_u64(), bound.as_u64().unwrap());
    println!("peak {peak:?}, bound {bound}");
    assert!(peak.unwrap() <= bound, "{peak:?} of {bound}");
}
