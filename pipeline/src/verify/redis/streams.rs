//! Streams that a rebuild made: all rows of a route beside all entries of its streams, as multisets.
//!
//! Invariant: which stream a row is in does not count, because the table may be cut otherwise by now; rows and entries
//! lie on disk, and memory is one bucket, whatever their number. Only what two looks found alike is a difference.

mod apart;
mod entries;
mod rows;

use super::Finding;
use super::ends::Ends;
use super::findings::Writer;
use super::judge::Difference;
use super::page::Tally;
use super::report::RouteReport;
use super::run::{Known, Run};
use crate::progress::{Counters, Phase};
use crate::rebuild::patiently;
use crate::route::RouteRun;
use crate::verify::Tier;
use apart::{Apart, Sided, agreed};
use entries::Held;
use rows::Rows;
use stages::extract::Snapshot;
use stages::{Error, Kind, Result};

/// Looks after which what never stood still counts as moving.
const LOOKS_MAX: usize = 4;

/// Which rows and entries are compared, by their hashes: the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    of: u128,
    which: u128,
}

impl Share {
    /// Takes one of `of` parts; 0 takes nothing.
    fn new(of: u64, seed: u64) -> Self {
        Self { of: of.into(), which: u128::from(seed) % u128::from(of.max(1)) }
    }

    /// Whether a hash is in it. The low bits choose the bucket.
    fn has(self, hash: u128) -> bool {
        self.of != 0 && (hash >> 64) % self.of == self.which
    }
}

/// What one look at both ends saw.
struct Look {
    tally: Tally,
    partitions: u64,
    snapshots: Vec<Snapshot>,
    held: Held,
    apart: Apart,
}

impl Look {
    /// Rows that should have an entry, less entries.
    fn lacking(&self) -> i128 {
        let rows = self.tally.rows - self.tally.rejects;
        i128::from(rows) - i128::from(self.held.entries)
    }

    fn is_empty(&self) -> bool {
        self.lacking() == 0 && self.apart.count() == 0
    }
}

/// What is known of one route in the end.
pub(super) struct Found {
    /// What differs for good.
    apart: Apart,
    held: Held,
    /// As [`Look::lacking`], where two looks agree.
    lacking: i128,
}

impl Run {
    /// Compares the routes that make streams.
    pub(super) async fn compare_streams(
        &self,
        known: &mut Known,
        counters: &Counters,
    ) -> std::result::Result<Vec<Option<Found>>, Vec<Error>> {
        let mut all = Vec::with_capacity(self.ends.routes.len());
        for route in &self.ends.routes {
            if !route.bound.is_stream() {
                all.push(None);
                continue;
            }
            counters.enter(route.index, Phase::Comparing);
            let report = &mut known.routes[route.index];
            let found = Box::pin(self.settle_streams(route, report, &mut known.data_as_of_us));
            all.push(Some(found.await.map_err(|error| vec![error])?));
        }
        Ok(all)
    }

    /// Looks until two looks say the same.
    async fn settle_streams(
        &self,
        route: &RouteRun,
        report: &mut RouteReport,
        data_as_of_us: &mut Option<i64>,
    ) -> Result<Found> {
        let mut last = self.look_at_streams(&self.ends, route, 0).await?;
        note(&last, report, data_as_of_us);
        let mut found = None;
        for number in 1..LOOKS_MAX {
            if last.is_empty() {
                break;
            }
            self.rest().await?;
            let renewed = self.renewed(route, &last).await?;
            let (ends, at) = match &renewed {
                Some(ends) => (ends, &*ends.routes[route.index]),
                None => (&*self.ends, route),
            };
            let next = self.look_at_streams(ends, at, number).await?;
            if renewed.is_some() {
                at.source.discard().await?;
            }
            let is_last = number + 1 == LOOKS_MAX;
            let lacking = if next.lacking() == last.lacking() { next.lacking() } else { 0 };
            let count_moves = next.lacking() != last.lacking();
            let both = agreed(&self.scratch(), last.apart, &next.apart)?;
            report.counted.settled += both.gone;
            note_snapshots(&next, report);
            if both.new == 0 && !count_moves || is_last {
                report.counted.moving += both.new + u64::from(count_moves && both.new == 0);
                found = Some(Found { apart: both.apart, held: next.held, lacking });
                break;
            }
            last = next;
        }
        Ok(match found {
            Some(found) => found,
            None => Found { apart: Apart::none(), held: last.held, lacking: 0 },
        })
    }

    async fn look_at_streams(&self, ends: &Ends, route: &RouteRun, number: usize) -> Result<Look> {
        ends.release_snapshot().await;
        let scratch = self.scratch().join(format!("{}.look{number}", route.name()));
        let (retry_for, cancel) = (self.options.verify.retry_for, &self.options.verify.cancel);
        let lanes = self.options.verify.lanes;
        let wanted = lanes * super::run::PARTITIONS_PER_LANE;
        if number == 0 {
            route.source.prepare(&self.id).await?;
        }
        let cut = patiently(retry_for, cancel, || route.source.partitions(wanted, 0)).await?;
        let estimate: u64 = cut.iter().map(|partition| partition.rows_estimate).sum();
        let share = match self.tier() {
            Tier::Full => Share::new(1, 0),
            Tier::Count => Share::new(0, 0),
            Tier::Sample(size) => {
                Share::new((estimate / u64::from(size)).max(1), self.options.verify.seed)
            }
        };
        let reading = Rows { cpu: &self.cpu, folder: &scratch, share, lanes, retry_for, cancel };
        let mut sided = Sided::create(&scratch, estimate)?;
        let rows = reading.read(route, &cut, &mut sided).await?;
        let held = entries::read(self, ends, route, share, &mut sided).await?;
        let apart = sided.compare()?;
        let tally = Tally { keys: held.streams, compared: rows.compared, ..rows.tally };
        let partitions = cut.len() as u64;
        Ok(Look { tally, partitions, snapshots: rows.snapshots, held, apart })
    }

    /// Connects anew where only that reads a later state.
    async fn renewed(&self, route: &RouteRun, last: &Look) -> Result<Option<Ends>> {
        if !last.snapshots.iter().any(Snapshot::is_pinned) {
            return Ok(None);
        }
        let (retry_for, cancel) = (self.options.verify.retry_for, &self.options.verify.cancel);
        let folder = super::scratch_of(&self.options.verify.state);
        let connect = || async {
            let lanes = self.options.verify.lanes;
            let connected = Ends::connect(&self.plan, &self.chosen, lanes, &folder);
            connected.await.map_err(|mut errors| errors.remove(0))
        };
        let ends = patiently(retry_for, cancel, connect).await?;
        let name = format!("again{}", uuid::Uuid::new_v4().simple());
        ends.routes[route.index].source.prepare(&name).await?;
        Ok(Some(ends))
    }

    /// Gives whoever writes to both ends the time to have done so.
    async fn rest(&self) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(self.options.settle) => Ok(()),
            () = self.options.verify.cancel.cancelled() => {
                Err(Error::new(Kind::Cancelled, "the command was asked to stop"))
            }
        }
    }
}

/// Takes what the first look counted.
fn note(look: &Look, report: &mut RouteReport, data_as_of_us: &mut Option<i64>) {
    report.counted.take(&look.tally);
    report.counted.unexplained.get_or_insert(0);
    report.partitions = look.partitions;
    let oldest = look.snapshots.iter().map(|snapshot| snapshot.taken_us).min();
    *data_as_of_us = data_as_of_us.iter().copied().chain(oldest).min();
    note_snapshots(look, report);
}

/// Rows that were read at several times are no state of the table.
fn note_snapshots(look: &Look, report: &mut RouteReport) {
    report.unproven = (look.snapshots.len() > 1).then(|| {
        format!(
            "it was read under {} snapshots, and rows may be in several places; raise snapshot_max of [alloydb]",
            look.snapshots.len()
        )
    });
}

impl Found {
    /// Counts and names what differs.
    pub(super) fn tell(
        &self,
        route: &RouteRun,
        report: &mut RouteReport,
        writer: &mut Writer,
    ) -> Result<()> {
        let start = route.bound.route.keys_begin_with();
        let (mut missing, mut unexplained) = (0_u64, 0_u64);
        self.apart.for_each(&mut |entry| {
            let Some((key, id)) = entry else {
                missing += 1;
                return Ok(());
            };
            unexplained += 1;
            report.name_entry(Difference::Unexplained, key, Some(id));
            writer.push(&Finding::of_entry(route.name(), Difference::Unexplained, key, Some(id)))
        })?;
        // A part of the rows tells at least so many of all; their number tells the rest.
        let more = |of: i128| u64::try_from(of.max(0)).unwrap_or(u64::MAX);
        let (least, most) = (i128::from(missing), i128::from(unexplained));
        let all_missing = missing.max(more(most + self.lacking));
        let all_unexplained = unexplained.max(more(least - self.lacking));
        if all_missing > 0 {
            let nowhere = (format!("{start}*").into_bytes(), None);
            let none = self.held.gaps.is_empty().then_some(&nowhere);
            let most = usize::try_from(all_missing).unwrap_or(usize::MAX);
            for (key, ids) in self.held.gaps.iter().take(most).chain(none) {
                report.name_entry(Difference::Missing, key, ids.as_deref());
                let ids = ids.as_deref();
                writer.push(&Finding::of_entry(route.name(), Difference::Missing, key, ids))?;
            }
        }
        if all_unexplained > 0 && unexplained == 0 {
            let key = format!("{start}*").into_bytes();
            report.name_entry(Difference::Unexplained, &key, None);
            writer.push(&Finding::of_entry(route.name(), Difference::Unexplained, &key, None))?;
        }
        report.counted.missing += all_missing;
        *report.counted.unexplained.get_or_insert(0) += all_unexplained;
        Ok(())
    }
}
