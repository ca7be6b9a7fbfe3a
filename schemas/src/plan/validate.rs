//! From the raw file to a validated plan: the sections, and what they need of each other.
//!
//! Invariant: `Ok` means that no mistake was noted, `Err` that at least one was.

use super::address::{alloydb_problem, redis_problem};
use super::archive::archive;
use super::cluster::cluster;
use super::drill::drill;
use super::duplicate::duplicate;
use super::mistake::PlanErrors;
use super::raw::{Fields, Reader, Section};
use super::route::route;
use super::stream;
use super::substitute::{Lookup, ReadFile};
use super::unrouted::unrouted;
use super::{AlloyDb, BigQuery, Objective, Plan, Route, Secret, System};
use std::collections::HashSet;
use std::time::Duration;
use toml::de::DeTable;

const OBJECTIVE_DEFAULT: Duration = Duration::from_hours(24);
const SNAPSHOT_MAX_DEFAULT: Duration = Duration::from_hours(1);
/// What the parser says of a name given twice; the rest of the file is still read as written.
const DUPLICATE: &str = "duplicate key";

pub(super) const SECTIONS: Fields = Fields {
    noun: "section",
    built: &["objectives", "alloydb", "bigquery", "redis", "archive", "drill", "route", "unrouted"],
    refused: &[],
};
pub(super) const OBJECTIVES: Fields =
    Fields { noun: "field", built: &["redis", "bigquery", "alloydb"], refused: &[] };
pub(super) const OBJECTIVE: Fields = Fields { noun: "field", built: &["rto", "rpo"], refused: &[] };
pub(super) const ALLOYDB: Fields = Fields {
    noun: "field",
    built: &["url", "snapshot_max", "backups", "backups_endpoint"],
    refused: &[],
};
pub(super) const REDIS: Fields =
    Fields { noun: "field", built: &["url", "duplicate"], refused: &[] };
pub(super) const BIGQUERY: Fields = Fields {
    noun: "field",
    built: &[
        "project",
        "location",
        "staging_dataset",
        "endpoint",
        "grpc_endpoint",
        "max_bytes_billed",
    ],
    refused: &[],
};

/// Parses and checks a plan file.
pub(super) fn plan(
    text: &str,
    lookup: Lookup<'_>,
    read_file: ReadFile<'_>,
) -> Result<Plan, PlanErrors> {
    let reader = Reader::new(text, lookup, read_file);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        reader.mistake(at, "", error.message());
    }
    // After any other syntax error the parser guesses, and mistakes found in a guess would mislead.
    let plan = if errors.iter().all(|error| error.message() == DUPLICATE) {
        sections(&reader, &reader.root(document.get_ref()))
    } else {
        None
    };
    let mistakes = reader.finish();
    match plan {
        Some(plan) if mistakes.0.is_empty() => Ok(plan),
        _ => Err(mistakes),
    }
}

fn sections(reader: &Reader<'_>, root: &Section<'_>) -> Option<Plan> {
    root.know(&SECTIONS);
    let (redis_objective, bigquery_objective, alloydb_objective) = objectives(root);
    let alloydb = root.entry("alloydb").and_then(|e| e.section()).and_then(|s| alloydb(&s));
    let bigquery = root.entry("bigquery").and_then(|e| e.section()).and_then(|s| bigquery(&s));
    let redis_section = root.entry("redis").and_then(|e| e.section());
    let duplicate = redis_section.as_ref().and_then(duplicate);
    let redis = redis_section.and_then(|s| redis(&s));
    if !root.has("redis") {
        reader.missing("redis", "section is missing");
    }
    let archive = archive(root);
    let routes = routes(reader, root);
    let unrouted = unrouted(root, routes.as_deref().unwrap_or_default());
    let drill = drill(root);
    Some(Plan {
        redis_objective,
        bigquery_objective,
        alloydb_objective,
        alloydb,
        bigquery,
        redis: Some(redis?),
        duplicate,
        archive,
        routes: routes?,
        unrouted,
        drill,
    })
}

fn objectives(root: &Section<'_>) -> (Objective, Objective, Objective) {
    let section = root.entry("objectives").and_then(|entry| entry.section());
    if let Some(section) = &section {
        section.know(&OBJECTIVES);
    }
    let of = |system| {
        let objective =
            section.as_ref().and_then(|s| s.entry(system)).and_then(|entry| entry.section());
        if let Some(objective) = &objective {
            objective.know(&OBJECTIVE);
        }
        let duration = |field| {
            let entry = objective.as_ref().and_then(|o| o.entry(field));
            entry.and_then(|entry| entry.duration()).unwrap_or(OBJECTIVE_DEFAULT)
        };
        Objective { rto: duration("rto"), rpo: duration("rpo") }
    };
    (of("redis"), of("bigquery"), of("alloydb"))
}

fn alloydb(section: &Section<'_>) -> Option<AlloyDb> {
    section.know(&ALLOYDB);
    let url = url(section, alloydb_problem);
    let snapshot_max = section.entry("snapshot_max").and_then(|entry| entry.duration());
    let backups = cluster(section);
    Some(AlloyDb { url: url?, snapshot_max: snapshot_max.unwrap_or(SNAPSHOT_MAX_DEFAULT), backups })
}

fn bigquery(section: &Section<'_>) -> Option<BigQuery> {
    section.know(&BIGQUERY);
    let endpoint = |field| {
        let text = section.text(field)?;
        let is_http = text.value.starts_with("http://") || text.value.starts_with("https://");
        if !is_http {
            text.mistake("must start with http:// or https://");
        }
        Some(text.value.trim_end_matches('/').to_owned())
    };
    let (rest, grpc) = (endpoint("endpoint"), endpoint("grpc_endpoint"));
    if section.has("endpoint") != section.has("grpc_endpoint") {
        let field = if section.has("endpoint") { "endpoint" } else { "grpc_endpoint" };
        section.mistake(field, "\"endpoint\" and \"grpc_endpoint\" go together");
    }
    let max_bytes_billed =
        section.entry("max_bytes_billed").map(|entry| entry.count(i64::MAX.unsigned_abs()));
    Some(BigQuery {
        project: section.required("project")?.value,
        location: section.string("location"),
        staging_dataset: section.string("staging_dataset"),
        max_bytes_billed: max_bytes_billed.flatten(),
        endpoint: rest,
        grpc_endpoint: grpc,
    })
}

fn redis(section: &Section<'_>) -> Option<Secret> {
    section.know(&REDIS);
    url(section, redis_problem)
}

/// Reads `url`. What is wrong with one is said without any part of it.
pub(super) fn url(
    section: &Section<'_>,
    problem: fn(&str) -> Option<&'static str>,
) -> Option<Secret> {
    let text = section.required("url")?;
    if let Some(problem) = problem(&text.value) {
        text.mistake(problem);
        return None;
    }
    Some(Secret(text.value))
}

fn routes(reader: &Reader<'_>, root: &Section<'_>) -> Option<Vec<Route>> {
    let Some(entry) = root.entry("route") else {
        reader.missing("", "no [[route]]: a plan needs at least one");
        return None;
    };
    let elements = entry.elements("an array of tables, written [[route]]")?;
    if elements.is_empty() {
        entry.mistake("a plan needs at least one [[route]]");
    }
    let mut names = HashSet::new();
    let mut routes = Vec::with_capacity(elements.len());
    let mut needs = [(System::AlloyDb, false), (System::BigQuery, false)];
    for element in elements {
        let Some(section) = element.section().map(named) else { continue };
        let system = system_as_written(&section);
        needs.iter_mut().filter(|(other, _)| *other == system).for_each(|(_, is)| *is = true);
        if let Some(route) = route(&section, &mut names) {
            stream::check_apart(&section, &route, &routes);
            routes.push(route);
        }
    }
    for (system, _) in needs.iter().filter(|(_, is_needed)| *is_needed) {
        if !root.has(system.word()) {
            reader.missing(system.word(), "section is missing, and a route reads from it");
        }
    }
    Some(routes)
}

/// The system that a route as written reads from; `alloydb` unless it plainly names another one.
fn system_as_written(route: &Section<'_>) -> System {
    let names_bigquery = |field, prefix: &str| {
        let written = route.entry(field).and_then(|entry| entry.written());
        written.is_some_and(|text| text.starts_with(prefix))
    };
    if names_bigquery("table", "bigquery:") || names_bigquery("from", "bigquery") {
        System::BigQuery
    } else {
        System::AlloyDb
    }
}

/// Names a route's mistakes by its name where it is plainly written, else by its number.
fn named(section: Section<'_>) -> Section<'_> {
    let written = section.entry("name").and_then(|entry| entry.written());
    match written.filter(|name| !name.is_empty() && !name.contains("${")) {
        Some(name) => {
            let scope = format!("route {name:?}");
            section.named(scope)
        }
        None => section,
    }
}
