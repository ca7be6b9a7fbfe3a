//! Looks at target and source during a round: gives out room, holds batches back, and stops the run before anything is
//! evicted.
//!
//! Invariant: the target is looked at once a second and whenever room runs out; a look that failed gives out nothing.

use super::fits::{HINT, ceiling};
use super::{Guard, Inner, Reason};
use crate::cli::figures::bytes;
use stages::extract::Gauge;
use stages::load::{Limit, Pressure, Sink};
use stages::policy::answer_max;
use stages::{Error, Kind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the target and the source are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Two looks are never nearer than this.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// While there is no room, looks are this far apart.
const LOOK_PAUSE_FULL: Duration = Duration::from_millis(200);
/// Looks that may fail, one after the other, before nothing is known any more.
const BLIND_AFTER: u32 = 3;
/// How often the target's answers are timed.
const PING_EVERY: Duration = Duration::from_millis(50);
/// How many of them the percentile is taken of, and how many it needs at least.
const PINGS: usize = 200;
const PINGS_MIN: usize = 20;

/// Why a round must end.
#[derive(Debug)]
pub enum Verdict {
    /// The share that was asked for is filled.
    Full,
    /// The target evicts keys.
    Evicting,
    /// There is no room, and none came.
    Failed(Error),
}

/// Tells of a look whether the target has evicted keys since the round began.
type IsEvicting<'a> = &'a (dyn Fn(&Pressure) -> bool + Sync);

/// Watches until it is dropped, or returns why the round must end.
pub async fn watch(
    guard: &Arc<Guard>,
    sink: &dyn Sink,
    gauge: Option<&dyn Gauge>,
    is_evicting: IsEvicting<'_>,
) -> Verdict {
    let gentle = async {
        tokio::join!(watch_latency(guard, sink), watch_source(guard, gauge));
        std::future::pending().await
    };
    tokio::select! {
        verdict = watch_room(guard, sink, is_evicting) => verdict,
        verdict = gentle => verdict,
    }
}

async fn watch_room(guard: &Arc<Guard>, sink: &dyn Sink, is_evicting: IsEvicting<'_>) -> Verdict {
    let mut failed = 0;
    let mut full_since: Option<Instant> = None;
    loop {
        let on_its_way = guard.lock().room.on_its_way();
        match sink.pressure().await {
            Ok(found) => {
                failed = 0;
                if is_evicting(&found) {
                    return Verdict::Evicting;
                }
                if let Some(verdict) = guard.look_at(&found, on_its_way, &mut full_since) {
                    return verdict;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the target could not be looked at");
                failed += 1;
                if failed >= BLIND_AFTER {
                    guard.lock().blind = Some(error.to_string());
                    guard.announce();
                }
            }
        }
        let pause = if full_since.is_some() || failed > 0 { LOOK_PAUSE_FULL } else { LOOK_PAUSE };
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = guard.look.notified() => {}
        }
    }
}

impl Inner {
    fn note_cpu(&mut self, cpu: Option<Duration>) {
        let now = cpu.map(|cpu| (Instant::now(), cpu));
        let Some(((before, spent), (at, cpu))) =
            std::mem::replace(&mut self.cpu_seen, now).zip(now)
        else {
            return;
        };
        self.cpu_spent[0] += at.duration_since(before).as_secs_f64();
        // A server that was started anew counts from its own start.
        self.cpu_spent[1] += cpu.saturating_sub(spent).as_secs_f64();
    }
}

impl Guard {
    /// Gives out the room that was found. Returns why the round must end, if it must.
    fn look_at(
        &self,
        found: &Pressure,
        on_its_way: u64,
        full_since: &mut Option<Instant>,
    ) -> Option<Verdict> {
        let lag = found.replica_lag_bytes.filter(|lag| *lag > self.limits.redis_lag_bytes);
        self.hold(
            Reason::RedisLag,
            lag.map(|lag| {
                let allowed = bytes(self.limits.redis_lag_bytes);
                format!("a replica of redis is {} behind, more than {allowed}", bytes(lag))
            }),
        );
        let (wanted, open, is_share) = {
            let mut inner = self.lock();
            let is_share = self.limits.fit_percent.is_some() && !inner.is_share_over;
            inner.blind = None;
            inner.note_cpu(found.cpu);
            inner.room.found(self.bound(found.limit, is_share), found, on_its_way);
            (inner.wanted, inner.room.open(), is_share)
        };
        let is_short = wanted.is_some_and(|wanted| wanted > open);
        if is_short && on_its_way > 0 {
            // What is on its way is counted twice until it is written; then it is looked at again.
            self.look.notify_one();
            return None;
        }
        let wanted = wanted.filter(|_| is_short);
        if wanted.is_some() && is_share {
            self.lock().is_full = true;
            self.announce();
            return Some(Verdict::Full);
        }
        self.lock().wanted = wanted;
        let Some(limit) = found.limit.filter(|_| is_short) else {
            *full_since = None;
            self.hold(Reason::Memory, None);
            self.announce();
            return None;
        };
        let told =
            format!("redis has {} of {} in use", bytes(found.used_bytes), bytes(limit.bytes()));
        self.hold(Reason::Memory, Some(format!("{told}: no room for the next batch")));
        let since = *full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.limits.wait_for_room {
            return None;
        }
        let patience = self.limits.wait_for_room.as_secs_f64();
        let policy = &found.eviction;
        let message = format!("{told} (policy {policy}), and no room came in {patience} s");
        Some(Verdict::Failed(Error::new(Kind::Capacity, message).with_hint(HINT)))
    }

    /// Bytes up to which the target may be filled now.
    fn bound(&self, limit: Option<Limit>, is_share: bool) -> Option<u64> {
        let ceiling = limit.map(ceiling)?;
        let share = self.limits.fit_percent.filter(|_| is_share);
        Some(
            share.map_or(ceiling, |share| {
                (limit.map_or(0, Limit::bytes) / 100 * share).min(ceiling)
            }),
        )
    }
}

/// Returns at once where nothing is to be watched.
async fn watch_latency(guard: &Guard, sink: &dyn Sink) {
    let Some(limit) = guard.limits.redis_latency else { return };
    let mut failed = 0;
    let mut times: VecDeque<Duration> = VecDeque::with_capacity(PINGS);
    let mut is_held = false;
    loop {
        match sink.ping().await {
            Ok(time) => {
                failed = 0;
                if times.len() == PINGS {
                    times.pop_front();
                }
                times.push_back(time);
            }
            // The lanes meet what is wrong with it themselves.
            Err(_) if failed >= BLIND_AFTER => guard.looked_at(Reason::RedisLatency),
            Err(_) => failed += 1,
        }
        if times.len() >= PINGS_MIN {
            let slow = Some(percentile(&times)).filter(|time| *time > limit);
            if slow.is_some() != is_held {
                is_held = slow.is_some();
                // What was measured before says nothing about what comes.
                times.clear();
            }
            guard.hold(
                Reason::RedisLatency,
                slow.map(|time| {
                    format!("99 of 100 answers of redis came within {time:?}, more than {limit:?}")
                }),
            );
            guard.looked_at(Reason::RedisLatency);
        }
        tokio::time::sleep(PING_EVERY).await;
    }
}

/// The 99th percentile.
fn percentile(times: &VecDeque<Duration>) -> Duration {
    let mut sorted: Vec<Duration> = times.iter().copied().collect();
    sorted.sort_unstable();
    let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Whether a look that was not answered says that an answer takes longer than it may.
fn is_slower(error: &Error, limit: Option<Duration>) -> bool {
    error.kind() == Kind::Timeout && limit.is_some_and(|limit| limit <= answer_max())
}

/// Returns at once where nothing is to be watched.
async fn watch_source(guard: &Guard, gauge: Option<&dyn Gauge>) {
    let (true, Some(gauge)) = (guard.limits.watches_source(), gauge) else {
        guard.looked_at(Reason::SourceLatency);
        return;
    };
    let limits = &guard.limits;
    loop {
        match gauge.look().await {
            Ok(found) => {
                let slow = limits.source_latency.filter(|limit| found.latency > *limit);
                guard.hold(
                    Reason::SourceLatency,
                    slow.map(|limit| {
                        format!(
                            "an empty query on alloydb took {:?}, more than {limit:?}",
                            found.latency
                        )
                    }),
                );
                let lag = found.replica_lag.unwrap_or_default();
                let behind = limits.source_lag.filter(|limit| lag > *limit);
                guard.hold(
                    Reason::SourceLag,
                    behind.map(|limit| {
                        format!("a replica of alloydb is {lag:?} behind, more than {limit:?}")
                    }),
                );
                let busy = limits.source_active.filter(|limit| found.active > *limit);
                guard.hold(
                    Reason::SourceActive,
                    busy.map(|limit| {
                        format!(
                            "{} queries are at work on alloydb, more than {limit}",
                            found.active
                        )
                    }),
                );
            }
            Err(error) if is_slower(&error, limits.source_latency) => {
                let why = "an empty query on alloydb was not answered";
                guard.hold(Reason::SourceLatency, Some(why.to_owned()));
            }
            // The lanes meet what is wrong with it themselves.
            Err(error) => tracing::debug!(%error, "the source could not be looked at"),
        }
        guard.looked_at(Reason::SourceLatency);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_that_of_the_slowest_of_a_hundred() {
        let times: VecDeque<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times), Duration::from_millis(99));
        assert_eq!(
            percentile(&VecDeque::from([Duration::from_millis(7)])),
            Duration::from_millis(7)
        );
    }
}
