//! Measures a round as it goes and turns the dials as the controller says.
//!
//! Invariant: what cannot be measured changes nothing; a target that does not answer is left to the lanes.

use super::{Observed, Settings};
use crate::engine::Engine;
use crate::progress::Counters;
use serde::{Deserialize, Serialize};
use stages::load::Sink;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the systems are measured before something is decided.
const PERIOD: Duration = Duration::from_millis(500);
/// How often the target's answers are timed in a period.
const PINGS: u32 = 10;
/// How much longer than it needs the target may take to answer others, where nothing was said.
const LATENCY_MAX: Duration = Duration::from_millis(25);

/// What came of it, for the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tuned {
    /// Lanes at the end.
    pub lanes: usize,
    /// Batches of one lane at the target at once.
    pub depth: usize,
    /// Connections to the target.
    pub connections: usize,
    /// Bytes of a batch.
    pub batch_bytes: usize,
    /// Steps that made it faster and were kept.
    pub kept: u32,
    /// Steps that did not, and were taken back.
    pub taken_back: u32,
    /// Times the load was halved because the target got slow.
    pub halved: u32,
}

impl Tuned {
    /// What is told of a controller.
    pub fn of(settings: Settings, counts: [u32; 3]) -> Self {
        let Settings { lanes, depth, connections, batch_bytes } = settings;
        let [kept, taken_back, halved] = counts;
        Self { lanes, depth, connections, batch_bytes, kept, taken_back, halved }
    }
}

/// What the counters said at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    /// Microseconds of the lanes by what they waited for: source, transform threads, target, limits.
    waits: [u64; 4],
    cpu_busy_us: u64,
    /// CPU time of the target's thread of commands since it was started; absent where it does not tell.
    target_cpu: Option<Duration>,
}

impl Look {
    fn now(counters: &Counters, cpu_busy_us: u64, target_cpu: Option<Duration>) -> Self {
        let bytes = counters.routes.iter().map(|route| route.bytes.load(Ordering::Relaxed)).sum();
        Self { at: Instant::now(), bytes, waits: counters.waits(), cpu_busy_us, target_cpu }
    }

    /// What happened between an earlier look and this one.
    fn since(
        &self,
        earlier: &Self,
        (threads, lanes_at_work): (usize, usize),
        latency: Option<Duration>,
    ) -> Observed {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64().max(1e-3);
        let grown = |which: usize| self.waits[which].saturating_sub(earlier.waits[which]) as f64;
        let all = (0..4).map(grown).sum::<f64>().max(1.0);
        let target_cpu = self.target_cpu.zip(earlier.target_cpu);
        let busy = self.cpu_busy_us.saturating_sub(earlier.cpu_busy_us) as f64;
        Observed {
            bytes_per_second: self.bytes.saturating_sub(earlier.bytes) as f64 / seconds,
            source: grown(0) / all,
            cpu: grown(1) / all,
            target: grown(2) / all,
            held: grown(3) / all,
            cpu_busy: busy / (seconds * 1e6 * threads.max(1) as f64),
            target_busy: target_cpu
                .map(|(now, before)| now.saturating_sub(before).as_secs_f64() / seconds),
            latency,
            lanes_at_work,
        }
    }
}

/// Tunes a round until it is dropped.
pub async fn tune(engine: &Engine) {
    let shared = &engine.shared;
    let dials = &shared.dials;
    let look = |target_cpu| Look::now(&shared.counters, shared.cpu.busy_us(), target_cpu);
    // What the target does in the first period, in which rows begin to come, says nothing of how full it is.
    let mut before = look(None);
    loop {
        let latency = latency(&*shared.sink).await;
        let pressure = shared.sink.pressure().await.ok();
        let now = look(pressure.and_then(|pressure| pressure.cpu));
        let seen = now.since(&before, (shared.cpu.threads(), dials.lanes_at_work()), latency);
        before = now;
        tracing::trace!(?seen, "looked");
        let decided = dials.controller().observe(&seen);
        if let Some((settings, why)) = decided {
            tracing::debug!(?settings, why, "tuned");
            dials.set(settings);
            for route in &engine.routes {
                route.source.size_batches(settings.batch_bytes);
            }
        }
    }
}

/// Spends a period timing the target; `None` where it did not answer.
async fn latency(sink: &dyn Sink) -> Option<Duration> {
    let mut times = Vec::new();
    let mut pace = tokio::time::interval(PERIOD / PINGS);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = Instant::now() + PERIOD;
    while Instant::now() < end {
        pace.tick().await;
        times.extend(sink.ping().await.ok());
    }
    times.sort_unstable();
    // One slow answer is not a slow server.
    times.get((times.len() * 9 / 10).min(times.len().saturating_sub(1))).copied()
}

/// Above which delay of the target the load is halved: half of what pauses the run, where something does.
pub(super) fn latency_max(pause_above: Option<Duration>) -> Duration {
    pause_above.map_or(LATENCY_MAX, |limit| (limit / 2).min(LATENCY_MAX))
}
