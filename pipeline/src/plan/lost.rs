//! `rekindle plan --lost`: what survives a loss, in which order the rest is recovered, and what nothing can bring back.
//!
//! Invariant: pure. It reads the plan alone and asks no system, so it answers with everything down; a dataset that no
//! surviving copy holds is named as such, and what the plan cannot tell is unknown, never recoverable.

mod archive;
mod step;
mod text;

use schemas::Plan;
use schemas::plan::{Layout, Origin, Route, System};
use serde::Serialize;
use std::collections::BTreeMap;
use step::Step;

/// Which systems are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is lost or not, whatever became of the others"
)]
pub struct Losses {
    /// AlloyDB.
    pub alloydb: bool,
    /// BigQuery.
    pub bigquery: bool,
    /// The Redis of `[redis]`, with the rows that applications keep there.
    pub cache: bool,
    /// The Redis that holds the duplicate of BigQuery.
    pub duplicate: bool,
}

impl Losses {
    /// Reads `redis`, `redis.cache`, `redis.duplicate`, `bigquery`, `alloydb`, several with a comma between.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lost = Self::default();
        for word in text.split(',').map(str::trim) {
            match word {
                "alloydb" => lost.alloydb = true,
                "bigquery" => lost.bigquery = true,
                "redis" => (lost.cache, lost.duplicate) = (true, true),
                "redis.cache" => lost.cache = true,
                "redis.duplicate" => lost.duplicate = true,
                other => {
                    return Err(format!(
                        "{other:?} is none of redis, redis.cache, redis.duplicate, bigquery, alloydb"
                    ));
                }
            }
        }
        Ok(lost)
    }

    /// In one instance neither is lost alone.
    fn within(mut self, plan: &Plan) -> Self {
        if plan.duplicate.is_none() {
            let both = self.cache || self.duplicate;
            (self.cache, self.duplicate) = (both, both);
        }
        self
    }

    fn words(self) -> Vec<&'static str> {
        let redis = match (self.cache, self.duplicate) {
            (true, true) => Some("redis"),
            (true, false) => Some("redis.cache"),
            (false, true) => Some("redis.duplicate"),
            (false, false) => None,
        };
        let alloydb = self.alloydb.then_some("alloydb");
        let bigquery = self.bigquery.then_some("bigquery");
        [alloydb, bigquery, redis].into_iter().flatten().collect()
    }

    fn has(self, system: System) -> bool {
        match system {
            System::AlloyDb => self.alloydb,
            System::BigQuery => self.bigquery,
        }
    }
}

/// What becomes of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was not lost.
    Intact,
    /// A surviving copy or source brings it back.
    Recoverable,
    /// Only backups of its own that rekindle neither makes nor sees.
    OwnBackups,
    /// The plan cannot tell.
    Unknown,
    /// Nothing that is left holds it.
    Unrecoverable,
}

/// A table, the keys of a route, or a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dataset {
    /// As the plan names it: `alloydb:public.builds`, `keys of route builds (build:{id})`.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What holds it, or what it is made from, and was not lost.
    pub surviving: Vec<String>,
    /// The command that brings it back; absent where none of rekindle does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip)]
    step: Option<Step>,
}

impl Dataset {
    fn new(name: String, fate: Fate, surviving: Vec<String>) -> Self {
        Self { name, fate, surviving, command: None, why: None, step: None }
    }

    /// Notes which step of a route brings it back.
    fn comes_back_by(&mut self, step: Step, route: &Route) {
        self.command = Some(format!("{} --route {}", step.command(), route.name));
        self.step = Some(step);
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LossReport {
    /// Always `plan --lost`.
    pub command: &'static str,
    /// The systems that are gone.
    pub lost: Vec<&'static str>,
    /// Every dataset of the plan.
    pub datasets: Vec<Dataset>,
    /// What to do, in order.
    pub order: Vec<String>,
    /// Names of what nothing brings back.
    pub unrecoverable: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

const CYCLE: &str = "bigquery is restored from redis, and keys of redis are rebuilt from bigquery: each is the other's backup, \
    so what only these two hold is gone where both are lost; a copy in a third place would break that cycle";

/// Tells what a loss of these systems means for everything that the plan names.
pub fn plan_loss(plan: &Plan, lost: Losses) -> LossReport {
    let lost = lost.within(plan);
    let tables = tables(plan, lost);
    let fate_of = |name: &str| tables.iter().find(|table| table.name == name).map(|t| t.fate);
    let mut datasets = tables.clone();
    for route in &plan.routes {
        if route.uses.rebuild {
            let keys = keys(route, lost, &fate_of);
            datasets.push(archive::keys_from(plan, route, lost).unwrap_or(keys));
        } else if route.layout != Layout::Blocks {
            datasets.push(rows_of_applications(route, lost));
        }
        if route.uses.backup && route.layout == Layout::Blocks {
            datasets.push(duplicate(route, lost, &fate_of));
        }
    }
    datasets.extend(plan.unrouted.iter().map(|entry| {
        let name = format!("keys {}* of {}", entry.prefix, entry.owner);
        let fate = if lost.cache { Fate::Unknown } else { Fate::Intact };
        let why = || format!("no route writes them; they come back {}", entry.comes_back);
        Dataset { why: lost.cache.then(why), ..Dataset::new(name, fate, Vec::new()) }
    }));
    let of = |fate: Fate| datasets.iter().filter(move |dataset| dataset.fate == fate);
    let unrecoverable = of(Fate::Unrecoverable).map(|dataset| dataset.name.clone()).collect();
    let order = order(&datasets, lost);
    LossReport {
        command: "plan --lost",
        lost: lost.words(),
        order,
        unrecoverable,
        notes: notes(plan, lost),
        datasets,
    }
}

fn name_of(origin: &Origin) -> String {
    match origin {
        Origin::Table { system, schema, table } => format!("{}:{schema}.{table}", system.word()),
        Origin::Query { system, .. } => format!("a query of {}", system.word()),
    }
}

/// Every table that a route names, once, with the routes that duplicate it.
fn tables(plan: &Plan, lost: Losses) -> Vec<Dataset> {
    let mut found: BTreeMap<String, (System, Vec<&Route>)> = BTreeMap::new();
    for route in &plan.routes {
        if let Origin::Table { system, .. } = &route.origin {
            let (_, copies) =
                found.entry(name_of(&route.origin)).or_insert_with(|| (*system, Vec::new()));
            copies.extend(route.uses.backup.then_some(route));
        }
    }
    let table = |(name, (system, copies)): (String, (System, Vec<&Route>))| {
        let holds = |route: &&&Route| {
            !if route.layout == Layout::Blocks { lost.duplicate } else { lost.cache }
        };
        let standing: Vec<&&Route> = copies.iter().filter(holds).collect();
        let archived = archive::of(plan, &copies);
        let mut surviving: Vec<String> = standing.iter().map(|route| copy_of(route)).collect();
        surviving.extend(archived.as_ref().map(|archived| archived.name.clone()));
        let mut dataset = Dataset::new(name, Fate::Intact, surviving);
        if !lost.has(system) {
            dataset.surviving.insert(0, "the table itself".to_owned());
        } else if system == System::AlloyDb {
            dataset.fate = Fate::OwnBackups;
            dataset.why = Some("rekindle holds no copy of the source of truth".to_owned());
        } else if let Some(route) = standing.first() {
            dataset.fate = Fate::Recoverable;
            dataset.comes_back_by(Step::Restore, route);
        } else if let Some(archived) = archived {
            dataset.fate = Fate::Recoverable;
            dataset.comes_back_by(Step::RestoreFromArchive, archived.route);
            dataset.why = Some(archive::as_of_the_last_backup());
        } else {
            dataset.fate = Fate::Unrecoverable;
            dataset.why = Some(match copies.first() {
                Some(route) => format!("{} was lost with it", copy_of(route)),
                None => "no route keeps a copy of it".to_owned(),
            });
        }
        dataset
    };
    found.into_iter().map(table).collect()
}

/// The copy that a route keeps of its table.
fn copy_of(route: &Route) -> String {
    match route.layout {
        Layout::Blocks => format!("its duplicate in redis (route {})", route.name),
        _ => format!("its rows under keys of redis (route {})", route.name),
    }
}

/// Keys that a rebuild writes.
fn keys(route: &Route, lost: Losses, fate_of: &dyn Fn(&str) -> Option<Fate>) -> Dataset {
    let from = name_of(&route.origin);
    let name = format!("keys of route {} ({})", route.name, route.key.text());
    let mut dataset = Dataset::new(name, Fate::Intact, vec![from.clone()]);
    if lost.has(route.origin.system()) {
        dataset.surviving.clear();
    }
    if !lost.cache {
        dataset.surviving.insert(0, "the keys themselves".to_owned());
        return dataset;
    }
    let source = match &route.origin {
        Origin::Table { .. } => fate_of(&from).unwrap_or(Fate::Unknown),
        Origin::Query { system, .. } if lost.has(*system) => Fate::Unknown,
        Origin::Query { .. } => Fate::Intact,
    };
    (dataset.fate, dataset.why) = match source {
        Fate::Intact => (Fate::Recoverable, None),
        Fate::Recoverable => (Fate::Recoverable, Some(format!("once {from} is restored"))),
        Fate::OwnBackups => {
            (Fate::Recoverable, Some(format!("once {from} is back from its own backups")))
        }
        Fate::Unknown => {
            (Fate::Unknown, Some(format!("{from} reads tables that the plan does not name")))
        }
        Fate::Unrecoverable => (Fate::Unrecoverable, Some(format!("{from} cannot be recovered"))),
    };
    if matches!(dataset.fate, Fate::Recoverable | Fate::Unknown) {
        dataset.comes_back_by(Step::Rebuild, route);
    }
    dataset
}

/// Rows that applications write to Redis, and that only a backup of BigQuery knows beside.
fn rows_of_applications(route: &Route, lost: Losses) -> Dataset {
    let name = format!("rows under {} (route {})", route.key.text(), route.name);
    let table = name_of(&route.origin);
    let (mut surviving, mut why) = (Vec::new(), None);
    if lost.cache {
        why = Some(format!(
            "applications write them; what {table} holds of them is not written back"
        ));
    } else {
        surviving.push("the rows themselves".to_owned());
    }
    if !lost.bigquery {
        surviving.push(table);
    }
    let fate = match (lost.cache, lost.bigquery) {
        (false, _) => Fate::Intact,
        (true, false) => Fate::Unknown,
        (true, true) => Fate::Unrecoverable,
    };
    Dataset { why, ..Dataset::new(name, fate, surviving) }
}

/// The duplicate that a route keeps of a table.
fn duplicate(route: &Route, lost: Losses, fate_of: &dyn Fn(&str) -> Option<Fate>) -> Dataset {
    let table = name_of(&route.origin);
    let name = format!("duplicate of {table} (route {})", route.name);
    let mut dataset = Dataset::new(name, Fate::Intact, Vec::new());
    if !lost.bigquery {
        dataset.surviving.push(table.clone());
    }
    if !lost.duplicate {
        dataset.surviving.insert(0, "the duplicate itself".to_owned());
        return dataset;
    }
    if matches!(fate_of(&table), Some(Fate::Intact | Fate::Recoverable)) {
        dataset.fate = Fate::Recoverable;
        dataset.comes_back_by(Step::Backup, route);
        dataset.why = Some("older versions that it kept are gone".to_owned());
    } else {
        dataset.fate = Fate::Unrecoverable;
        dataset.why = Some(format!("{table} is lost as well"));
    }
    dataset
}

/// What to do, in the order in which one thing needs another.
fn order(datasets: &[Dataset], lost: Losses) -> Vec<String> {
    let mut steps = Vec::new();
    if lost.alloydb {
        steps.push(
            "restore AlloyDB from its own backups, then put its new address into the plan"
                .to_owned(),
        );
    }
    let mut asked: Vec<(Step, &String)> = datasets
        .iter()
        .filter_map(|dataset| Some((dataset.step?, dataset.command.as_ref()?)))
        .collect();
    // Datasets of one step stay in the order of the plan.
    asked.sort_by_key(|(step, _)| *step);
    steps.extend(asked.iter().map(|(_, command)| (*command).clone()));
    // Whatever was brought back is compared at the end.
    let is_asked = |any: [Step; 2]| asked.iter().any(|(step, _)| any.contains(step));
    if is_asked([Step::Restore, Step::RestoreFromArchive]) {
        steps.push("rekindle verify bigquery --tier full".to_owned());
    }
    if is_asked([Step::Rebuild, Step::RebuildFromArchive]) {
        steps.push("rekindle verify redis --tier full".to_owned());
    }
    steps
}

fn notes(plan: &Plan, lost: Losses) -> Vec<String> {
    let mut notes = Vec::new();
    let is_duplicated = plan.routes.iter().any(|route| route.uses.backup);
    let from_bigquery =
        |route: &Route| route.uses.rebuild && route.origin.system() == System::BigQuery;
    if is_duplicated && plan.routes.iter().any(from_bigquery) {
        notes.push(archive::cycle(plan).unwrap_or_else(|| CYCLE.to_owned()));
    }
    notes.extend(archive::left_out(plan));
    if is_duplicated && plan.duplicate.is_none() {
        notes.push("the duplicate shares the redis of the cache, so that both are lost together; name an instance of its own in [redis.duplicate]".to_owned());
    }
    if lost.alloydb {
        notes.push("whether AlloyDB has a backup, and how old it is, is UNKNOWN here".to_owned());
    }
    if lost.duplicate && !lost.bigquery && is_duplicated {
        notes.push(
            "until the next backup bigquery has no copy: let nothing be deleted there".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
#[path = "lost/tests.rs"]
mod tests;
