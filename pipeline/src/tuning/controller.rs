//! Decides which dial to turn: additive increase while it pays, multiplicative decrease when the target gets slow (Chiu and
//! Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989).
//!
//! Invariant: pure. A step is kept only where the rate rose with it above the best that was seen before it; what did not pay
//! is taken back, and is tried again after a pause that doubles each time. Nothing is tried against a target that is full.

use super::{BATCH_BYTES_MAX, Lanes, Settings};
use crate::lane::WRITES;
use stages::extract::BATCH_BYTES;
use stages::load::redis::CONNECTIONS_MAX;
use std::time::Duration;

/// Periods after a change whose rate says nothing yet: what is on its way was sent before.
const SETTLE: usize = 1;
/// Periods whose median is the rate of a setting.
const SAMPLES: usize = 3;
/// A step has to raise the rate by this much: measured rates of the same setting differ by about as much.
const GAIN: f64 = 1.05;
/// What is left of the best rate with every later one: systems get slower too.
const FADE: f64 = 0.99;
/// Slow periods in a row before the load is halved; one may be a fork, or somebody else.
const SLOW_PERIODS: u32 = 2;
/// Periods without a try after the target was slow.
const COOL_DOWN: u32 = 10;
/// Periods after which a step that did not pay is tried again: at first, and at most.
const PAUSE: [u32; 2] = [8, 512];
/// Above this share of the transform threads more on its way only waits for them.
const CPU_FULL: f64 = 0.9;
/// Above this share of a core the target's thread of commands is what a run is as fast as: more on its way would only wait
/// for it, and take memory meanwhile.
const TARGET_FULL: f64 = 0.8;

/// What one period showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// Bytes acknowledged per second.
    pub bytes_per_second: f64,
    /// Shares of the lanes' time, of all that was waited for: for the source, the transform threads, the target, a limit.
    pub source: f64,
    /// For the transform threads.
    pub cpu: f64,
    /// For the target.
    pub target: f64,
    /// For a limit that was asked for, or for room.
    pub held: f64,
    /// How busy the transform threads were, from 0 to 1.
    pub cpu_busy: f64,
    /// How busy the target's thread of commands was, from 0 to 1; absent where it did not tell.
    pub target_busy: Option<f64>,
    /// How long the target took to answer somebody else.
    pub latency: Option<Duration>,
    /// Lanes with a partition, more than are allowed for a while after the load was halved.
    pub lanes_at_work: usize,
}

/// A dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dial {
    Lanes,
    Depth,
    Connections,
    BatchBytes,
}

const DIALS: usize = 4;

/// A step that is being tried.
#[derive(Debug)]
struct Trial {
    dial: Dial,
    before: Settings,
    best_before: f64,
}

/// When a dial may be turned again.
#[derive(Debug, Clone, Copy)]
struct Patience {
    left: u32,
    next: u32,
}

/// The state of the search.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    lanes: Lanes,
    latency_max: Duration,
    /// The fastest answer so far: how far away the target is.
    distance: Duration,
    /// How busy the target is: what it told last and what was known before, half each, because one period may be a moment's.
    target_busy: Option<f64>,
    rates: Vec<f64>,
    /// The best rate of the settings in force. Rates vary by more than a step gains: held against the last one alone, every
    /// third step of a full target would be kept by chance.
    best: f64,
    trial: Option<Trial>,
    patience: [Patience; DIALS],
    slow: u32,
    cool: u32,
    /// Steps that paid, that did not, and halvings.
    pub counts: [u32; 3],
}

impl Controller {
    /// Begins with the settings of a run. The load is halved where the target takes so much longer to answer than its fastest
    /// answer did: how far away it is says nothing about how hard it is pressed.
    pub fn new(lanes: Lanes, latency_max: Duration) -> Self {
        Self {
            settings: Settings::at_first(lanes),
            lanes,
            latency_max,
            distance: Duration::MAX,
            target_busy: None,
            rates: Vec::new(),
            best: 0.0,
            trial: None,
            patience: [Patience { left: 0, next: PAUSE[0] }; DIALS],
            slow: 0,
            cool: 0,
            counts: [0; 3],
        }
    }

    /// What is in force.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Takes in a period and returns what to change, with the reason.
    pub fn observe(&mut self, seen: &Observed) -> Option<(Settings, String)> {
        let before = self.settings;
        self.cool = self.cool.saturating_sub(1);
        for patience in &mut self.patience {
            patience.left = patience.left.saturating_sub(1);
        }
        self.distance = seen.latency.map_or(self.distance, |latency| latency.min(self.distance));
        if let Some(busy) = seen.target_busy {
            self.target_busy = Some(self.target_busy.map_or(busy, |before| before.midpoint(busy)));
        }
        let queued = seen.latency.map(|latency| latency.saturating_sub(self.distance));
        if let Some(latency) = queued.filter(|queued| *queued > self.latency_max) {
            self.slow += 1;
            if self.slow >= SLOW_PERIODS {
                return Some(self.too_slow(latency)).filter(|(settings, _)| *settings != before);
            }
            // The rate of such a period compares with no other.
            self.rates.clear();
            return None;
        }
        self.slow = 0;
        self.rates.push(seen.bytes_per_second);
        let rate = self.rate()?;
        if let Some(trial) = self.trial.take() {
            if rate < trial.best_before * GAIN {
                let gain = (rate / trial.best_before.max(1.0) - 1.0) * 100.0;
                return Some(self.take_back(&trial, &format!("{gain:+.0} %")));
            }
            self.counts[0] += 1;
            self.patience[trial.dial as usize] = Patience { left: 0, next: PAUSE[0] };
            self.best = 0.0;
        }
        self.best = rate.max(self.best * FADE);
        self.step(seen, rate)
    }

    /// The median of the periods since the last change, once there are enough.
    fn rate(&self) -> Option<f64> {
        let mut settled = self.rates.get(SETTLE..)?.to_vec();
        if settled.len() < SAMPLES {
            return None;
        }
        settled.drain(..settled.len() - SAMPLES);
        settled.sort_by(f64::total_cmp);
        settled.get(SAMPLES / 2).copied()
    }

    /// A step after which the target got slow is taken back; where there was none, the load is halved.
    fn too_slow(&mut self, latency: Duration) -> (Settings, String) {
        let most = self.latency_max;
        let why = format!(
            "the target took {latency:?} longer to answer than it needs, more than {most:?}"
        );
        self.slow = 0;
        self.cool = COOL_DOWN;
        if let Some(trial) = self.trial.take() {
            return self.take_back(&trial, &why);
        }
        self.rates.clear();
        self.best = 0.0;
        let before = self.settings;
        if before.depth > 1 {
            self.settings.depth = before.depth / 2;
        } else {
            self.settings.lanes = (before.lanes / 2).max(1);
        }
        self.counts[2] += u32::from(self.settings != before);
        (self.settings, why)
    }

    fn take_back(&mut self, trial: &Trial, why: &str) -> (Settings, String) {
        self.counts[1] += 1;
        self.settings = trial.before;
        self.best = trial.best_before;
        self.rates.clear();
        let patience = &mut self.patience[trial.dial as usize];
        patience.left = patience.next;
        patience.next = (patience.next * 2).min(PAUSE[1]);
        (self.settings, format!("{:?} taken back: {why}", trial.dial))
    }

    /// Tries what may help against what is waited for most.
    fn step(&mut self, seen: &Observed, rate: f64) -> Option<(Settings, String)> {
        let is_target_full = self.target_busy.is_some_and(|busy| busy > TARGET_FULL);
        if self.cool > 0 || rate <= 0.0 || seen.cpu_busy > CPU_FULL || is_target_full {
            return None;
        }
        // Against the transform threads and a limit nothing helps.
        let waits: [(f64, &[Dial]); 4] = [
            (seen.source, &[Dial::Lanes, Dial::BatchBytes]),
            (seen.cpu, &[]),
            (seen.target, &[Dial::Depth, Dial::Connections, Dial::BatchBytes]),
            (seen.held, &[]),
        ];
        let (most, dials) = waits.into_iter().max_by(|one, other| one.0.total_cmp(&other.0))?;
        let (dial, next) = dials
            .iter()
            .filter(|dial| self.patience[**dial as usize].left == 0)
            .find_map(|dial| Some((*dial, self.raised(*dial, seen.lanes_at_work)?)))?;
        self.trial = Some(Trial { dial, before: self.settings, best_before: self.best });
        self.settings = next;
        self.rates.clear();
        Some((next, format!("{dial:?} raised: {:.0} % of the time is waited for it", most * 100.0)))
    }

    /// One step up, where there is room for it beside all lanes that are at work.
    fn raised(&self, dial: Dial, lanes_at_work: usize) -> Option<Settings> {
        let mut next = self.settings;
        match dial {
            Dial::Lanes => next.lanes += 1,
            Dial::Depth => next.depth += 1,
            Dial::Connections => next.connections += 1,
            Dial::BatchBytes => next.batch_bytes *= 2,
        }
        let is_allowed = next.lanes <= self.lanes.most
            && next.depth <= WRITES
            && next.connections <= CONNECTIONS_MAX.min(next.lanes)
            && next.batch_bytes <= BATCH_BYTES_MAX
            && next.lanes.max(lanes_at_work) * next.batch_bytes <= self.lanes.most * BATCH_BYTES;
        is_allowed.then_some(next)
    }
}

#[cfg(test)]
#[path = "controller/tests.rs"]
mod tests;
