//! What each loss means for a plan with a table of every kind.
//!
//! Invariant: each test names every dataset it speaks of; none asks a system.

use super::*;

const ROUTES: &str = r#"
[alloydb]
url = "postgres://u@h/d"
[bigquery]
project = "p"
[redis]
url = "redis://cache"
[[route]]
name = "builds"
table = "alloydb:public.builds"
key = "build:{id}"
type = "hash"
[[route]]
name = "logs"
table = "bigquery:logs.lines"
key = "log"
type = "blocks"
[[route]]
name = "daily"
query = "SELECT 1 AS day"
from = "bigquery"
key = "day:{day}"
type = "hash"
on_collision = "error"
[[route]]
name = "hot"
table = "bigquery:logs.lines"
key = "hot:{id}"
type = "hash"
on_collision = "error"
[[route]]
name = "steps"
table = "bigquery:logs.steps"
key = "step:{id}"
type = "hash"
on_collision = "error"
[[unrouted]]
prefix = "session:"
owner = "the web site"
comes_back = "when somebody signs in"
"#;
const OWN: &str = "[redis.duplicate]\nurl = \"redis://duplicate\"\n";

fn report(more: &str, lost: &str) -> LossReport {
    let text = ROUTES.replacen("[[route]]", &format!("{more}[[route]]"), 1);
    let no_file = |_: &str| Err(std::io::Error::other("no file"));
    plan_loss(&Plan::parse(&text, &|_| None, &no_file).unwrap(), Losses::parse(lost).unwrap())
}

fn fate(report: &LossReport, name: &str) -> Fate {
    let found: Vec<&Dataset> =
        report.datasets.iter().filter(|dataset| dataset.name.contains(name)).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].fate
}

#[test]
fn a_lost_cache_is_rebuilt_and_its_own_keys_are_unknown() {
    let report = report(OWN, "redis.cache");
    for name in ["route builds", "route daily", "route hot", "route steps"] {
        assert_eq!(fate(&report, name), Fate::Recoverable, "{name}");
    }
    assert_eq!(fate(&report, "session:"), Fate::Unknown);
    assert_eq!(fate(&report, "duplicate of"), Fate::Intact);
    assert_eq!(report.lost, ["redis.cache"]);
    let rebuilds = ["builds", "daily", "hot", "steps"]
        .map(|route| format!("rekindle rebuild redis --route {route}"));
    assert_eq!(report.order[..4], rebuilds);
    assert_eq!(report.order[4..], ["rekindle verify redis --tier full"]);
    assert!(report.unrecoverable.is_empty());
}

#[test]
fn a_lost_bigquery_comes_back_from_its_duplicate_and_what_has_none_is_named() {
    let report = report(OWN, "bigquery");
    assert_eq!(fate(&report, "bigquery:logs.lines ("), Fate::Intact);
    assert_eq!(report.unrecoverable, ["bigquery:logs.steps"]);
    let lines = report.datasets.iter().find(|dataset| dataset.name == "bigquery:logs.lines");
    assert_eq!(lines.unwrap().fate, Fate::Recoverable);
    assert_eq!(
        report.order,
        ["rekindle restore bigquery --route logs", "rekindle verify bigquery --tier full"]
    );
    assert!(report.notes.iter().any(|note| note.contains("cycle")), "{:?}", report.notes);
}

#[test]
fn both_lost_names_every_table_and_every_key_that_came_from_them() {
    let report = report(OWN, "redis,bigquery");
    assert_eq!(
        report.unrecoverable,
        [
            "bigquery:logs.lines",
            "bigquery:logs.steps",
            "duplicate of bigquery:logs.lines (route logs)",
            "keys of route hot (hot:{id})",
            "keys of route steps (step:{id})",
        ]
    );
    assert_eq!(fate(&report, "route builds"), Fate::Recoverable);
    assert_eq!(fate(&report, "route daily"), Fate::Unknown);
    let text = report.render();
    assert!(text.contains("UNRECOVERABLE         bigquery:logs.lines"), "{text}");
    assert!(text.contains("its duplicate in redis (route logs) was lost with it"), "{text}");
}

#[test]
fn in_one_instance_a_lost_cache_takes_the_duplicate_along() {
    let lost = report("", "redis.cache");
    assert_eq!(
        (lost.lost.clone(), fate(&lost, "duplicate of")),
        (vec!["redis"], Fate::Recoverable)
    );
    assert!(lost.order.contains(&"rekindle backup bigquery --route logs".to_owned()));
    assert!(lost.notes.iter().any(|note| note.contains("[redis.duplicate]")), "{:?}", lost.notes);
}

#[test]
fn a_lost_alloydb_is_restored_first_by_its_own_backups() {
    let report = report(OWN, "alloydb,redis");
    assert_eq!(fate(&report, "alloydb:public.builds"), Fate::OwnBackups);
    assert_eq!(fate(&report, "route builds"), Fate::Recoverable);
    assert!(report.order[0].starts_with("restore AlloyDB from its own backups"));
    assert!(report.notes.iter().any(|note| note.contains("UNKNOWN")), "{:?}", report.notes);
}

#[test]
fn a_system_that_is_none_is_refused_by_name() {
    let told = Losses::parse("redis,spanner").unwrap_err();
    assert!(told.contains("\"spanner\"") && told.contains("redis.duplicate"), "{told}");
}

#[test]
fn an_archive_brings_back_what_redis_and_bigquery_lost_together() {
    let archive = format!("{OWN}[archive]\nurl = \"gs://town-copies/bq\"\n");
    let report = report(&archive, "redis,bigquery");
    assert_eq!(
        report.unrecoverable,
        ["bigquery:logs.steps", "keys of route steps (step:{id})"],
        "{:?}",
        report.datasets
    );
    let lines = report.datasets.iter().find(|dataset| dataset.name == "bigquery:logs.lines");
    let lines = lines.unwrap();
    assert_eq!(lines.surviving, ["its archive in gs://town-copies/bq (route logs)"]);
    assert_eq!(lines.fate, Fate::Recoverable);
    // Its keys wait for no table; what was lost with no copy, and what only a query tells, do.
    assert_eq!(
        report.order[..2],
        [
            "rekindle rebuild redis --from archive --route hot",
            "rekindle restore bigquery --from archive --route logs"
        ]
    );
    let hot = report.datasets.iter().find(|dataset| dataset.name == "keys of route hot (hot:{id})");
    let hot = hot.unwrap();
    assert_eq!(
        (hot.fate, hot.surviving[0].as_str()),
        (Fate::Recoverable, "the archive of bigquery:logs.lines in gs://town-copies/bq")
    );
    assert!(hot.why.as_deref().unwrap().contains("without waiting for bigquery:logs.lines"));
    let other = report.order.iter().find(|step| step.contains("--route daily")).unwrap();
    assert_eq!(other, "rekindle rebuild redis --route daily");
    assert!(report.order.contains(&"rekindle backup bigquery --route logs".to_owned()));
    assert!(report.notes.iter().any(|note| note.contains("breaks that cycle")));
    // Where the duplicate survives it is named first, and is what is restored from.
    let report = self::report(&archive, "bigquery");
    let lines = report.datasets.iter().find(|dataset| dataset.name == "bigquery:logs.lines");
    assert_eq!(lines.unwrap().surviving.len(), 2);
    assert_eq!(report.order[0], "rekindle restore bigquery --route logs");
    // A lost cache is rebuilt from BigQuery where that is there.
    let report = self::report(&archive, "redis.cache");
    assert!(report.order.contains(&"rekindle rebuild redis --route hot".to_owned()));
}
