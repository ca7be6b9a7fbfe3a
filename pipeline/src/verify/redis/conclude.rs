//! What differs for good: looked at again, counted, named in the file of findings, and kept for a repair.
//!
//! Invariant: a key that several routes fit is unexplained only where the rows of none of them explain it.

use super::again::Again;
use super::candidate::Pile;
use super::fields::differing;
use super::findings::{Finding, Writer};
use super::judge::{Difference, Look};
use super::page::asked_of;
use super::pass::Seen;
use super::repair::Repaired;
use super::report::RouteReport;
use super::run::{Known, Run};
use super::scan::Owners;
use super::streams::Found;
use super::{Repair, shown};
use crate::ledger::io_error;
use crate::progress::{Counters, Phase};
use crate::route::RouteRun;
use crate::verify::Tier;
use schemas::plan::Layout;
use stages::Result;
use stages::extract::Snapshot;
use stages::extract::redis_entries::Ask;
use std::fs;
use std::path::PathBuf;

/// Takes what differs for good.
struct Book<'a> {
    owners: Owners<'a>,
    named: &'a [String],
    scratch: PathBuf,
    writer: Writer,
    /// What a repair would do.
    to_do: Repaired,
    /// For each route, keys that its rows may explain and those of an earlier one do not.
    passed_on: Vec<Option<Pile>>,
}

impl Book<'_> {
    fn take(
        &mut self,
        report: &mut RouteReport,
        route: &RouteRun,
        key: &[u8],
        difference: Difference,
    ) -> Result<()> {
        if difference == Difference::Unexplained {
            let fitting = self.owners.of(key);
            if fitting.is_empty() {
                return Ok(());
            }
            if let Some(next) = fitting.into_iter().find(|owner| *owner > route.index) {
                return self.pass_on(next, route, key);
            }
        }
        report.differ(difference, key);
        let finding = Finding::new(route.name(), difference, key);
        self.to_do.ask(&finding, self.named);
        self.writer.push(&finding)
    }

    fn pass_on(&mut self, next: usize, route: &RouteRun, key: &[u8]) -> Result<()> {
        let pile = match &mut self.passed_on[next] {
            Some(pile) => pile,
            none => {
                let name = format!("{}.not-for-{next}", route.name());
                none.insert(Pile::new(&self.scratch, &name)?)
            }
        };
        pile.push(key, Look { expected: None, stored: None })
    }
}

impl Run {
    /// Looks again at what differed, route by route, and writes down what differs for good.
    pub(super) async fn look_again(
        &self,
        known: &mut Known,
        counters: &Counters,
        mut seen: Vec<Seen>,
        streams: Vec<Option<Found>>,
    ) -> Result<()> {
        let is_dry_run = self.options.repair == Repair::DryRun;
        let path = if is_dry_run {
            shown::forget(&self.folder)?;
            shown::findings_path(&self.folder)
        } else {
            self.folder.join("findings.jsonl")
        };
        let unfinished = path.with_extension("jsonl.new");
        let mut book = Book {
            owners: Owners::new(&self.plan, &self.ends.endpoint, &self.names())?,
            named: &self.options.remove_unexplained,
            scratch: self.scratch(),
            writer: Writer::create(&unfinished)?,
            to_do: Repaired { dry_run: true, ..Repaired::default() },
            passed_on: seen.iter().map(|_| None).collect(),
        };
        for (route, streams) in self.ends.routes.iter().zip(streams) {
            counters.enter(route.index, Phase::LookingAgain);
            let mut piles = std::mem::take(&mut seen[route.index].piles);
            piles.extend(book.passed_on[route.index].take());
            let is_pinned = seen[route.index].snapshots.iter().any(Snapshot::is_pinned);
            let report = &mut known.routes[route.index];
            let again = self.again(route, is_pinned);
            let scratch = self.scratch();
            let mut made = 0;
            let new_pile = || {
                made += 1;
                Pile::new(&scratch, &format!("{}.again{made}", route.name()))
            };
            let settled = again
                .settle(piles, new_pile, &mut |key, difference| {
                    book.take(report, route, key, difference)
                })
                .await?;
            report.counted.settled += settled.agreed;
            report.counted.take(&settled.tally);
            if let Some(found) = streams {
                found.tell(route, report, &mut book.writer)?;
            }
            report.conclude();
            self.name_fields(report, route).await?;
        }
        let (count, hash) = book.writer.finish()?;
        fs::rename(&unfinished, &path).map_err(|error| io_error("write", &path, error))?;
        if is_dry_run {
            shown::note(&self.folder, &self.asked, count, hash)?;
            known.repaired = Some(book.to_do);
        }
        known.findings = (count > 0).then_some(path);
        Ok(())
    }

    /// Names the fields that differ, for the keys that the report names.
    async fn name_fields(&self, report: &mut RouteReport, route: &RouteRun) -> Result<()> {
        // A few names are not worth reading everything for.
        let is_found_by_value = route.source.rows_of(&[]).is_some();
        let has_fields = route.bound.route.layout == Layout::Hash && !route.bound.is_many();
        if !has_fields || !is_found_by_value {
            return Ok(());
        }
        for example in &mut report.examples {
            if example.difference == Difference::Value {
                example.fields = differing(&self.ends, &self.cpu, route, &example.key).await?;
            }
        }
        Ok(())
    }

    fn again<'a>(&'a self, route: &'a RouteRun, is_pinned: bool) -> Again<'a> {
        let ask = if self.tier() == Tier::Count { Ask::Existence } else { Ask::Value };
        Again {
            ends: &self.ends,
            cpu: &self.cpu,
            route,
            plan: &self.plan,
            chosen: &self.chosen,
            lanes: self.options.verify.lanes,
            folder: self.scratch(),
            is_pinned,
            ask: asked_of(&route.bound, ask),
            settle: self.options.settle,
            retry_for: self.options.verify.retry_for,
            cancel: &self.options.verify.cancel,
        }
    }
}
