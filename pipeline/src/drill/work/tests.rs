//! What a drill does and refuses, by the plan alone.

use super::*;
use std::time::Duration;

const SYSTEMS: &str = r#"
[alloydb]
url = "postgres://h/d"
[bigquery]
project = "p"
staging_dataset = "staging"
[redis]
url = "redis://cache"
[redis.duplicate]
url = "redis://duplicate"
[drill]
redis = "redis://scratch"
dataset = "rekindle_drill"
"#;
const USERS: &str = "[[route]]\nname = \"users\"\ntable = \"alloydb:users\"\nkey = \"user:{id}\"\ntype = \"hash\"\n";
const LINES: &str = "[[route]]\nname = \"lines\"\ntable = \"bigquery:logs.lines\"\nkey = \"line:{id}\"\ntype = \"hash\"\n";
const COPY: &str = "[[route]]\nname = \"copy\"\ntable = \"bigquery:logs.lines\"\nkey = \"dup:lines\"\ntype = \"blocks\"\n";

fn plan(text: &str) -> Plan {
    Plan::parse(text, &|_| None, &|_| Ok(String::new())).unwrap()
}

fn asked(lose: Loss) -> Asked {
    Asked {
        lose,
        marks: Vec::new(),
        keep: false,
        in_production: false,
        confirm: None,
        accept_no_row_policies: Vec::new(),
        settle: Duration::from_secs(1),
    }
}

fn work(text: &str, lose: Loss) -> Result<Work, Vec<String>> {
    let told = |errors: Vec<Error>| errors.iter().map(ToString::to_string).collect();
    Work::of(&plan(text), &[], &asked(lose)).map_err(told)
}

#[track_caller]
fn refused(text: &str, lose: Loss, told: &str) {
    let errors = work(text, lose).unwrap_err();
    assert!(errors.iter().any(|error| error.contains(told)), "{errors:?}");
}

#[test]
fn scratch_targets_take_the_place_of_those_that_serve_and_of_nothing_else() {
    let text = [SYSTEMS, USERS, LINES, COPY].concat();
    let found = work(&text, Loss::Both).unwrap();
    let (restore, rebuild) = (found.restore.unwrap(), found.rebuild.unwrap());
    // Staging tables lie in the scratch too, and the duplicate stays where it is.
    for made in [&restore.plan, &rebuild.plan] {
        let staging = made.bigquery.as_ref().and_then(|section| section.staging_dataset.as_deref());
        assert_eq!(staging, Some("rekindle_drill"));
        assert_eq!(made.duplicate.as_ref().unwrap().url.0, "redis://duplicate");
    }
    assert_eq!(restore.plan.redis.unwrap().0, "redis://cache");
    assert_eq!(rebuild.plan.redis.unwrap().0, "redis://scratch");
    assert_eq!(rebuild.routes, ["users", "lines"]);
    // What is rebuilt from BigQuery reads what was restored; what is duplicated is what serves.
    let tables = |plan: &[Route]| -> Vec<String> {
        plan.iter()
            .filter_map(table_of)
            .map(|(dataset, table)| format!("{dataset}.{table}"))
            .collect()
    };
    assert_eq!(tables(&rebuild.plan.routes), ["rekindle_drill.lines", "logs.lines"]);
    assert_eq!(tables(&restore.routes), ["logs.lines"]);

    // Of Redis alone it is rebuilt from the tables that serve.
    let redis = work(&text, Loss::Redis).unwrap();
    assert!(redis.restore.is_none());
    let rebuild = redis.rebuild.unwrap();
    assert_eq!(tables(&rebuild.plan.routes), ["logs.lines", "logs.lines"]);
    assert!(work(&text, Loss::BigQuery).unwrap().rebuild.is_none());
}

#[test]
fn a_duplicate_that_shares_the_cache_is_never_taken_to_be_in_the_scratch() {
    let shared = SYSTEMS.replace("[redis.duplicate]\nurl = \"redis://duplicate\"\n", "");
    let text = [&shared, USERS, COPY].concat();
    let rebuild = work(&text, Loss::Redis).unwrap().rebuild.unwrap();
    assert_eq!(rebuild.plan.duplicate.unwrap().url.0, "redis://cache");
    refused(&text, Loss::Both, "with redis the duplicate of bigquery is lost");
}

#[test]
fn what_a_loss_leaves_no_way_back_for_is_refused() {
    let other = LINES.replace("logs.lines", "logs.others");
    let unrestored = [SYSTEMS, &other, COPY].concat();
    refused(&unrestored, Loss::Both, "which no backup route restores");
    assert!(work(&unrestored, Loss::Redis).is_ok());
    let query = "[[route]]\nname = \"q\"\nquery = \"SELECT id FROM logs.lines\"\nfrom = \"bigquery\"\nkey = \"q:{id}\"\ntype = \"hash\"\n";
    refused(&[SYSTEMS, query, COPY].concat(), Loss::Both, "route q is a query");
    let rows = LINES.replace("type", "use = [\"backup\"]\ntype");
    refused(&[SYSTEMS, USERS, &rows].concat(), Loss::Both, "kept in redis by an application");
    refused(&[SYSTEMS, USERS].concat(), Loss::BigQuery, "no backup route");
    refused(&[SYSTEMS, COPY].concat(), Loss::Redis, "no route that rebuilds redis");
}

#[test]
fn a_dataset_that_is_read_or_staged_in_and_two_tables_of_one_name_are_refused() {
    let drilled = |dataset: &str| SYSTEMS.replace("rekindle_drill", dataset);
    for dataset in ["logs", "Logs", "staging"] {
        refused(&[&drilled(dataset), COPY].concat(), Loss::BigQuery, "a drill empties it");
    }
    let query = "[[route]]\nname = \"q\"\nquery = \"SELECT id FROM `p.Stats.days`\"\nfrom = \"bigquery\"\nkey = \"q:{id}\"\ntype = \"hash\"\n";
    refused(&[&drilled("stats"), query, COPY].concat(), Loss::BigQuery, "read by route q");
    let twin =
        COPY.replace("\"copy\"", "\"twin\"").replace("logs.", "old.").replace("dup:", "old:");
    refused(&[SYSTEMS, COPY, &twin].concat(), Loss::BigQuery, "routes copy, twin all restore");
}

#[test]
fn production_needs_a_confirmation_and_takes_nothing_with_it_for_good() {
    let plan = plan(&[SYSTEMS, USERS, COPY].concat());
    let with = |lose, confirm: Option<&str>| {
        let confirm = confirm.map(str::to_owned);
        Work::of(&plan, &[], &Asked { in_production: true, confirm, ..asked(lose) })
    };
    assert!(with(Loss::Redis, None).is_err());
    assert!(with(Loss::Both, Some("cache:6379/0")).is_err());
    assert!(with(Loss::Redis, Some("cache:6379/0")).unwrap().rebuild.is_some());
    let without = Asked { confirm: Some("cache:6379/0".to_owned()), ..asked(Loss::Redis) };
    assert!(Work::of(&plan, &[], &without).is_err());
}
