//! One verification from its cut to its report: first look, sample, walk, looking again, repair.
//!
//! Invariant: what went wrong on the way leaves its routes inconclusive, never passed.

use super::again::compare;
use super::candidate::Pile;
use super::ends::Ends;
use super::judge::Look;
use super::page::{Page, asked_of};
use super::pass::{Pass, Seen, lock};
use super::repair::{Repaired, Repairer};
use super::report::RouteReport;
use super::sample::Sample;
use super::scan::{Owners, unexplained, walk};
use super::{RedisOptions, Repair, shown};
use crate::cpu::CpuPool;
use crate::drift;
use crate::journal::StateLock;
use crate::keys::{Bucket, Buckets, check_collisions};
use crate::lane::now_ms;
use crate::ledger::io_error;
use crate::progress::{Counters, Phase};
use crate::rebuild::{Watcher, patiently};
use crate::verify::{Ended, Tier};
use crate::wiring::needs_collision_check;
use schemas::{Partition, Plan, Route};
use stages::extract::redis_entries::Ask;
use stages::{Error, Kind};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Partitions per lane that a table is cut into at least, so that lanes end together.
pub(super) const PARTITIONS_PER_LANE: usize = 8;
/// Keys of a sample asked for in one exchange.
const PAGE_KEYS: usize = 2_000;

/// A verification that is connected.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) plan: Plan,
    pub(super) options: RedisOptions,
    pub(super) chosen: Vec<Route>,
    pub(super) asked: shown::Asked,
    pub(super) ends: Arc<Ends>,
    pub(super) cpu: Arc<CpuPool>,
    /// Of all verifications of this state folder.
    pub(super) folder: PathBuf,
    pub(super) started_ms: i64,
    /// Two verifications would write the same files.
    _lock: StateLock,
}

/// What is known so far.
pub(super) struct Known {
    pub(super) routes: Vec<RouteReport>,
    pub(super) repaired: Option<Repaired>,
    pub(super) data_as_of_us: Option<i64>,
    pub(super) findings: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
    pub(super) errors: Vec<Error>,
}

impl Run {
    pub(super) fn new(
        plan: &Plan,
        options: &RedisOptions,
        chosen: Vec<Route>,
        asked: shown::Asked,
        ends: Ends,
        lock: StateLock,
    ) -> stages::Result<Self> {
        let run = Self {
            id: uuid::Uuid::new_v4().to_string(),
            plan: plan.clone(),
            options: options.clone(),
            chosen,
            asked,
            ends: Arc::new(ends),
            cpu: Arc::new(CpuPool::new()?),
            folder: super::folder_of(&options.verify.state),
            started_ms: now_ms(),
            _lock: lock,
        };
        run.clear_scratch()?;
        Ok(run)
    }

    pub(super) fn scratch(&self) -> PathBuf {
        super::scratch_of(&self.options.verify.state)
    }

    /// Removes what a killed verification left; nobody else works here while the lock is held.
    fn clear_scratch(&self) -> stages::Result<()> {
        let path = self.scratch();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn tier(&self) -> Tier {
        self.options.verify.tier
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.chosen.iter().map(|route| route.name.clone()).collect()
    }

    /// What changed in the tables since the last rebuild: what was written then may differ for that alone.
    async fn drift(&self) -> Vec<String> {
        let found = drift::since_the_last(&self.options.verify.state, &self.ends.routes).await;
        found.iter().map(ToString::to_string).collect()
    }

    /// Does all of it, and tells.
    pub(super) async fn work(self, watcher: &dyn Watcher, began: Instant) -> Ended {
        let looks_for_unexplained = self.tier() == Tier::Full;
        let mut known = Known {
            routes: self
                .chosen
                .iter()
                .map(|route| RouteReport::new(&route.name, looks_for_unexplained))
                .collect(),
            repaired: None,
            data_as_of_us: None,
            findings: None,
            warnings: self.drift().await,
            errors: Vec::new(),
        };
        let rto = self.plan.redis_objective.rto.as_secs();
        let counters = Arc::new(Counters::new(&self.names(), self.started_ms, rto));
        watcher.begin(Arc::clone(&counters), None);
        if let Err(error) = self.repair(&mut known, &counters).await {
            known.errors.push(error);
        } else if let Err(errors) = Box::pin(self.verify(&mut known, &counters)).await {
            known.errors.extend(errors);
        }
        for route in &self.ends.routes {
            counters.enter(route.index, Phase::Done);
            if let Err(error) = route.source.discard().await {
                let name = route.name();
                known.warnings.push(format!(
                    "route {name}: {error}; the result of its query expires by itself"
                ));
            }
        }
        if let Err(error) = self.clear_scratch() {
            known.warnings.push(error.to_string());
        }
        self.tell(known, began)
    }

    /// Writes what the last dry run has shown, where that was asked for.
    async fn repair(&self, known: &mut Known, counters: &Counters) -> stages::Result<()> {
        if self.options.repair != Repair::Yes {
            return Ok(());
        }
        for route in &self.ends.routes {
            counters.enter(route.index, Phase::Repairing);
            route.source.prepare(&self.id).await?;
        }
        let repairer = Repairer {
            ends: &self.ends,
            cpu: &self.cpu,
            run_id: &self.id,
            named: &self.options.remove_unexplained,
            folder: &self.scratch(),
            settle: self.options.settle,
            retry_for: self.options.verify.retry_for,
            cancel: &self.options.verify.cancel,
        };
        known.repaired = Some(repairer.repair(&shown::findings_path(&self.folder)).await?);
        shown::forget(&self.folder)
    }

    /// Looks at everything that the tier looks at; what it finds is in `known` even where it fails on the way.
    async fn verify(&self, known: &mut Known, counters: &Arc<Counters>) -> Result<(), Vec<Error>> {
        let one = |error: Error| vec![error];
        let (retry_for, cancel) = (self.options.verify.retry_for, &self.options.verify.cancel);
        self.ends.release_snapshot().await;
        let partitions = patiently(retry_for, cancel, || self.cut(counters)).await.map_err(one)?;
        let rows: u64 = partitions.iter().map(|(_, partition)| partition.rows_estimate).sum();
        let rows = rows.max(self.ends.sink.state().await.map_err(one)?.entries);
        let pass = Arc::new(self.pass(counters, rows).map_err(one)?);
        let walking = self.walk(&pass, rows);
        let looking = pass.run(partitions);
        let (present, failures) = tokio::join!(walking, looking);
        let sampled = if failures.is_empty() { self.compare_samples(&pass).await } else { Ok(()) };
        let Pass { seen, explained, .. } = unshared(pass).map_err(one)?;
        let mut seen: Vec<Seen> = seen.into_iter().map(unlocked).collect();
        for (route, seen) in known.routes.iter_mut().zip(&seen) {
            route.counted.take(&seen.tally);
            route.partitions = seen.partitions;
            let oldest = seen.snapshots.iter().map(|snapshot| snapshot.taken_us).min();
            known.data_as_of_us = known.data_as_of_us.into_iter().chain(oldest).min();
        }
        self.note_unproven(known, &seen);
        let present = match present {
            // Its failure stopped the lanes, which only say that they were stopped.
            Err(error) if error.kind() != Kind::Cancelled => return Err(one(error)),
            Err(_) if !failures.is_empty() => return Err(failures),
            other => other.map_err(one)?,
        };
        if !failures.is_empty() {
            return Err(failures);
        }
        sampled.map_err(one)?;
        if let Some(explained) = explained {
            let explained = unlocked(explained).finish().map_err(one)?;
            let present = present.map(Buckets::finish).transpose().map_err(one)?;
            self.add_unexplained(&mut seen, explained, present.unwrap_or_default()).map_err(one)?;
        }
        let streams = Box::pin(self.compare_streams(known, counters)).await?;
        Box::pin(self.look_again(known, counters, seen, streams)).await.map_err(one)
    }

    async fn cut(&self, counters: &Counters) -> stages::Result<Vec<(usize, Partition)>> {
        let mut all = Vec::new();
        // Streams are compared as a whole, after the keys.
        for route in self.ends.routes.iter().filter(|route| !route.bound.is_stream()) {
            route.source.prepare(&self.id).await?;
            let wanted = self.options.verify.lanes * PARTITIONS_PER_LANE;
            let cut = route.source.partitions(wanted, 0).await?;
            let figures = &counters.routes[route.index];
            let rows = cut.iter().map(|partition| partition.rows_estimate).sum();
            figures.rows_estimate.store(rows, Ordering::Relaxed);
            figures.partitions.store(cut.len() as u64, Ordering::Relaxed);
            if needs_collision_check(&route.bound) {
                counters.enter(route.index, Phase::CheckingKeys);
                check_collisions(&self.cpu, route, &cut, &self.scratch()).await?;
            }
            counters.enter(route.index, Phase::Comparing);
            all.extend(cut.into_iter().map(|partition| (route.index, partition)));
        }
        Ok(all)
    }

    fn pass(&self, counters: &Arc<Counters>, rows: u64) -> stages::Result<Pass> {
        let verify = &self.options.verify;
        let routes = self.ends.routes.len();
        let samples = match verify.tier {
            Tier::Sample(size) => {
                (0..routes).map(|_| Sample::new(size as usize, verify.seed)).collect()
            }
            Tier::Count | Tier::Full => Vec::new(),
        };
        let explained = match verify.tier {
            Tier::Full => Some(Mutex::new(Buckets::create(&self.scratch(), "explained", rows)?)),
            Tier::Count | Tier::Sample(_) => None,
        };
        Ok(Pass {
            ends: Arc::clone(&self.ends),
            cpu: Arc::clone(&self.cpu),
            counters: Arc::clone(counters),
            folder: self.scratch(),
            lanes: verify.lanes,
            retry_for: verify.retry_for,
            ask: if verify.tier == Tier::Full { Ask::Value } else { Ask::Existence },
            samples,
            explained,
            seen: (0..routes).map(|_| Mutex::default()).collect(),
            stop: verify.cancel.child_token(),
            piles: std::sync::atomic::AtomicU64::default(),
        })
    }

    /// Walks over the keys of Redis where unexplained ones are looked for; a failure stops the lanes.
    async fn walk(&self, pass: &Pass, rows: u64) -> stages::Result<Option<Buckets>> {
        if pass.explained.is_none() {
            return Ok(None);
        }
        let owners = Owners::new(&self.plan, &self.ends.endpoint, &self.names())?;
        let folder = self.scratch();
        let walking = || walk(&owners, &self.ends.endpoint, &folder, rows, &pass.stop);
        let walked = patiently(self.options.verify.retry_for, &pass.stop, walking).await;
        if walked.is_err() {
            pass.stop.cancel();
        }
        walked.map(Some)
    }

    /// Compares the values of the sampled keys.
    async fn compare_samples(&self, pass: &Arc<Pass>) -> stages::Result<()> {
        let (retry_for, cancel) = (self.options.verify.retry_for, &self.options.verify.cancel);
        for (route, sample) in self.ends.routes.iter().zip(&pass.samples) {
            // Where versions are compared, the first look compared every value.
            if asked_of(&route.bound, pass.ask) == Ask::Value {
                continue;
            }
            let keys = sample.keys();
            // What the first look met is looked at again with its value: it is not named once more. Its piles are read
            // where a value differs, and once.
            let mut met = None;
            for slice in keys.chunks(PAGE_KEYS) {
                let page = Page::of_keys(slice.iter().map(|(key, expected)| (&key[..], *expected)));
                let comparing = || compare(&self.ends, route, Ask::Value, &page);
                let compared = patiently(retry_for, cancel, comparing).await?;
                let mut seen = lock(&pass.seen[route.index]);
                seen.tally.compared += compared.tally.compared;
                seen.tally.kept += compared.tally.kept;
                if compared.differing.is_empty() {
                    continue;
                }
                let met = match &mut met {
                    Some(met) => met,
                    none => none.insert(seen.met(&keys)?),
                };
                let mut pile = pass.new_pile(route)?;
                let mut new = compared.differing.iter().filter(|(key, _)| !met.contains(&key[..]));
                new.try_for_each(|(key, look)| pile.push(key, *look))?;
                seen.piles.push(pile);
            }
        }
        Ok(())
    }

    /// A route that could only be understood under one snapshot and was read under several proves nothing.
    fn note_unproven(&self, known: &mut Known, seen: &[Seen]) {
        for ((report, seen), route) in known.routes.iter_mut().zip(seen).zip(&self.ends.routes) {
            if seen.snapshots.len() > 1
                && let Some(reason) = route.source.no_catch_up()
            {
                report.unproven = Some(format!(
                    "it was read under {} snapshots, and {reason}; raise snapshot_max of [alloydb]",
                    seen.snapshots.len()
                ));
            }
        }
    }

    fn add_unexplained(
        &self,
        seen: &mut [Seen],
        explained: Vec<Bucket>,
        present: Vec<Bucket>,
    ) -> stages::Result<()> {
        let owners = Owners::new(&self.plan, &self.ends.endpoint, &self.names())?;
        let mut piles = Vec::new();
        for route in &self.ends.routes {
            let name = format!("{}.unexplained", route.name());
            piles.push(Pile::new(&self.scratch(), &name)?);
        }
        unexplained(explained, present, &mut |key| {
            let Some(first) = owners.of(key).first().copied() else { return Ok(()) };
            piles[first].push(key, Look { expected: None, stored: None })
        })?;
        for (seen, pile) in seen.iter_mut().zip(piles) {
            seen.piles.push(pile);
        }
        Ok(())
    }
}

fn unlocked<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The lanes have ended, so nobody shares the pass any more.
fn unshared(pass: Arc<Pass>) -> stages::Result<Pass> {
    Arc::try_unwrap(pass).map_err(|_| Error::new(Kind::Internal, "a lane outlived its round"))
}
