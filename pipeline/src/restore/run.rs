//! The order of events of a restore, from plan to proof.
//!
//! Invariant: nothing of a table is published before its staging table is proven, and staging is dropped only after
//! the destination is; a run that failed stays resumable.

use super::choose::PartitionRange;
use super::destination::{prepare_destination, prove_destination, put_back, reopen_destination};
use super::rows::{self, held_in};
use super::stage::TableStage;
use super::staging::{drop_staging, stage};
use super::table::{Finished, Table};
use super::{Asked, Options, Shared, lacks, open, publish, told};
use crate::backup::archived::{is_kept, left_out, refuse_rows};
use crate::cpu::CpuPool;
use crate::evidence::Recording;
use crate::journal::{Journal, RunStatus};
use crate::lane::now_ms;
use crate::outcome::{Exit, from_journal};
use crate::place::Place;
use crate::progress::{Counters, Phase};
use crate::rebuild::{Ended, Watcher, patiently};
use crate::stop::StopSwitch;
use crate::summary::RunEnd;
use crate::wiring;
use schemas::plan::{Layout, Origin, System};
use schemas::{Plan, Route};
use serde::{Deserialize, Serialize};
use stages::failpoint::{Point, pass};
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Instant;

/// Staging tables that a table may use up in one process.
const STAGINGS_MAX: u32 = 3;

/// What a restore found out, for the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Proof {
    /// Rows of destinations that were counted.
    pub(super) counted: u64,
    /// Rows whose digest was compared.
    pub(super) compared: u64,
}

pub(super) async fn restore(plan: &Plan, options: &Options, watcher: &dyn Watcher) -> Ended {
    let clock = Instant::now();
    stages::policy::begin(options.retry_for);
    let (shared, run, mut tables) = match Box::pin(set_up(plan, options)).await {
        Ok(ready) => ready,
        Err(errors) => {
            let exits = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
            return Ended { summary: None, exits, errors: options.asked.from.hinted(errors) };
        }
    };
    watcher.begin(Arc::clone(&shared.counters), None);
    let recording = Recording::begin(&options.state, &run.id, &shared.counters);
    let mut errors = Vec::new();
    let mut proof = Proof::default();
    for table in &mut tables {
        let work = work(&shared, table, options, watcher, &mut proof);
        // Whatever was under way is in the journal already, so it may be left anywhere.
        let done = tokio::select! {
            done = work => done,
            () = options.cancel.cancelled() => {
                Err(vec![Error::new(Kind::Cancelled, "the run was asked to stop")])
            }
        };
        if let Err(found) = done {
            errors.extend(found);
        }
        if options.cancel.is_cancelled() {
            break;
        }
    }
    drop(recording);
    watcher.end();
    let mut exits: Vec<Exit> = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
    let status = match (errors.is_empty(), options.verify) {
        (true, true) => RunEnd::Done,
        (true, false) => RunEnd::Unverified,
        (false, _) if exits.contains(&Exit::Interrupted) => RunEnd::Interrupted,
        (false, _) => RunEnd::Failed,
    };
    let summary = told::summary(&shared, plan, &run, options, &tables, &proof, (status, clock));
    if errors.is_empty() && !(summary.within_rto && summary.within_rpo != Some(false)) {
        exits.push(Exit::Objective);
    }
    let recorded = match status {
        RunEnd::Done | RunEnd::Unverified => RunStatus::Done,
        RunEnd::Interrupted => RunStatus::Interrupted,
        RunEnd::Partial => RunStatus::Partial,
        RunEnd::Failed => RunStatus::Failed,
    };
    let text = serde_json::to_string(&summary).unwrap_or_default();
    let kept = shared.journal.set_run_status(&run.id, recorded, Some(now_ms()), Some(&text)).await;
    if let Err(error) = kept {
        let error = from_journal(error);
        exits.push(Exit::of_kind(error.kind()));
        errors.push(error);
    }
    Ended { summary: Some(summary), exits, errors: options.asked.from.hinted(errors) }
}

type Ready = (Arc<Shared>, crate::journal::RunRecord, Vec<Table>);

async fn set_up(plan: &Plan, options: &Options) -> std::result::Result<Ready, Vec<Error>> {
    let one = |error: Error| vec![error];
    let routes = routes(plan, options)?;
    let section = plan.bigquery.as_ref().ok_or_else(|| one(lacks("[bigquery] section")))?;
    let staging_dataset = section
        .staging_dataset
        .clone()
        .ok_or_else(|| one(lacks("staging_dataset in [bigquery]")))?;
    let journal = Journal::open(&options.state).await.map_err(|error| one(from_journal(error)))?;
    let bigquery = patiently(options.retry_for, &options.cancel, || {
        stages::connect::bigquery::connect(section, wiring::CONNECT_TIMEOUT)
    })
    .await
    .map_err(one)?;
    let begun = open::open_run(&journal, &bigquery, &staging_dataset, plan, options, &routes).await;
    let (run, is_resumed) = begun.map_err(one)?;
    crate::rejects::forget_old(&options.state, plan, &run.id).map_err(one)?;
    let names: Vec<String> = routes.iter().map(|route| route.name.clone()).collect();
    let rto = options.deadline.unwrap_or(plan.bigquery_objective.rto);
    let shared = Arc::new(Shared {
        run_id: run.id.clone(),
        bigquery,
        journal,
        cpu: CpuPool::on_every_core().map_err(one)?,
        counters: Arc::new(Counters::new(&names, run.lost_at_ms, rto.as_secs())),
        stop: StopSwitch::new(options.cancel.clone()),
        lanes: options.lanes,
        retry_for: options.retry_for,
        staging_dataset,
        lost_at_ms: options.lost_at_ms,
        is_scratch: options.scratch.is_some(),
    });
    let mut tables = Vec::new();
    let mut errors = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let opened = Box::pin(open::open_table(&shared, plan, options, route, index));
        match shared.stop.unless_cancelled(opened).await {
            Ok(table) => tables.push(table),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        if let Some(table) = tables.first_mut() {
            table.findings.warnings.extend(left_out(plan, options.asked.from, &options.routes));
        }
        // Whatever progress is shown: what cannot be put back is named before anything is published.
        for line in tables.iter().flat_map(|table| &table.findings.warnings) {
            tracing::warn!("{line}");
        }
        return Ok((shared, run, tables));
    }
    // Nothing was written; the run is not worth resuming.
    if !is_resumed {
        let ended = RunStatus::Abandoned;
        let kept = shared.journal.set_run_status(&run.id, ended, Some(now_ms()), None).await;
        errors.extend(kept.err().map(from_journal));
        errors.extend(open::forget_spools(options, &run.id).err());
    }
    Err(errors)
}

/// The routes to restore, by priority; a route that cannot be is refused by name.
fn routes(plan: &Plan, options: &Options) -> std::result::Result<Vec<Route>, Vec<Error>> {
    // A route that is named is refused by name below, where it cannot be restored.
    let is_asked = |route: &&Route| match options.routes.as_slice() {
        [] => is_kept(route, options.asked.from),
        names => names.contains(&route.name),
    };
    let mut routes: Vec<Route> = plan.routes.iter().filter(is_asked).cloned().collect();
    if routes.is_empty() {
        return Err(vec![lacks("backup route")]);
    }
    for route in &routes {
        refuse_rows(plan, options.asked.from, &route.name).map_err(|error| vec![error])?;
    }
    let refuse = |route: &Route, why: &str| {
        Error::new(Kind::Config, format!("route {} cannot be restored: {why}", route.name))
            .with_hint("name others with --route")
    };
    let mistakes: Vec<Error> = routes
        .iter()
        .flat_map(|route| match (&route.origin, route.layout) {
            _ if route.many.is_some() => {
                vec![refuse(
                    route,
                    "it is derived: many rows make one key, and none can be read back",
                )]
            }
            _ if !route.uses.backup => vec![refuse(route, "it is no backup route")],
            (Origin::Table { system: System::BigQuery, .. }, Layout::Blocks) => Vec::new(),
            (Origin::Table { system: System::BigQuery, .. }, layout) => match held_in(layout) {
                Some(_) => rows::refuse(route, &options.asked),
                None => vec![refuse(route, &format!("type {} holds no rows", layout.word()))],
            },
            _ => vec![refuse(route, "it names no table of bigquery")],
        })
        .collect();
    routes.sort_by_key(|route| route.priority);
    if mistakes.is_empty() { Ok(routes) } else { Err(mistakes) }
}

/// Takes one table from where it is to its end.
async fn work(
    shared: &Arc<Shared>,
    table: &mut Table,
    options: &Options,
    watcher: &dyn Watcher,
    proof: &mut Proof,
) -> std::result::Result<(), Vec<Error>> {
    let one = |error: Error| vec![error];
    shared.counters.enter(table.index, Phase::Loading);
    let mut stagings = 1;
    while table.record.stage < TableStage::Proven {
        let Some(reason) = stage(shared, table).await? else { continue };
        stagings += 1;
        if stagings > STAGINGS_MAX {
            let message =
                format!("gave up staging {} after {STAGINGS_MAX} tries: {reason}", table.name());
            return Err(one(Error::new(Kind::Difference, message)
                .with_hint("rekindle restore bigquery --fresh")));
        }
        watcher.say(&format!("staging {} starts over: {reason}", table.name()));
        drop_staging(shared, table).await.map_err(one)?;
        table.begin(shared).await.map_err(one)?;
    }
    if table.record.stage == TableStage::Proven {
        shared.counters.enter(table.index, Phase::CatchingUp);
        prepare_destination(shared, table).await.map_err(one)?;
        publish::check_row_key(shared, table).await.map_err(one)?;
        publish::publish(shared, table).await.map_err(one)?;
        table.step(shared, TableStage::Published).await.map_err(one)?;
    }
    if table.record.stage == TableStage::Published {
        shared.counters.enter(table.index, Phase::ReadingBack);
        let finished = finish_destination(shared, table, options.verify).await.map_err(one)?;
        proof.counted += finished.counted;
        proof.compared += finished.compared;
        drop_staging(shared, table).await.map_err(one)?;
        table.remove_spool().map_err(one)?;
        table.step(shared, TableStage::Complete).await.map_err(one)?;
    }
    shared.counters.enter(table.index, Phase::Done);
    Ok(())
}

/// Proves the destination and puts its settings back, unless an attempt before this one has done both: a proof may need
/// staging, which is dropped after it.
async fn finish_destination(
    shared: &Arc<Shared>,
    table: &mut Table,
    verify: bool,
) -> Result<Proof> {
    if let Some(finished) = table.findings.finished
        && (finished.is_proven || !verify)
    {
        return Ok(finished.proof);
    }
    let mut proof = Proof::default();
    if verify {
        reopen_destination(shared, table).await?;
        prove_destination(shared, table, &mut proof).await?;
        pass(Point::DestinationProven);
    }
    put_back(shared, table).await?;
    table.findings.finished = Some(Finished { is_proven: verify, proof });
    table.note(shared).await?;
    Ok(proof)
}

/// What was asked, as it is compared when a run is resumed.
pub(super) fn definition(route: &Route, asked: &Asked) -> String {
    let range = asked.partitions.as_ref();
    let range =
        range.map_or("all".to_owned(), |PartitionRange { from, to }| format!("{from}..{to}"));
    let as_of = asked.as_of_us.map_or("the last complete backup".to_owned(), |us| us.to_string());
    // Runs of earlier versions know no such line.
    let from = if asked.from == Place::Redis { "" } else { "from = archive\n" };
    let policies = match asked.accept_no_row_policies.join(", ") {
        named if named.is_empty() => named,
        named => format!("accept no row policies = {named}\n"),
    };
    let into = asked.into.as_ref().map(|into| format!("into = {into}\n")).unwrap_or_default();
    format!(
        "{}replace = {}\nfill = {}\npartitions = {range}\nas of = {as_of}\nfrom scan = {}\naccept recreated = {}\n{policies}{from}{into}",
        route.definition(),
        asked.replace,
        asked.fill,
        asked.from_scan,
        asked.accept_recreated.join(", ")
    )
}
