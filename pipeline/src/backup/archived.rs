//! What is particular to the archive: which routes it holds, which key its files have, how old it is.
//!
//! Invariant: a route that is not archived is named; files of two keys come to be only where everything is copied anew.

use super::Options;
use super::age::{Age, parsed};
use super::rows::{is_row_route, keys_of};
use super::run::table_of;
use super::table::Table;
use crate::place::Place;
use crate::wiring;
use schemas::manifest::Manifest;
use schemas::{Plan, Route};
use stages::load::store::{Store, Values};
use stages::transform::form::Form;
use stages::transform::parquet_file::{key_id, wrong_key};
use stages::{Error, Kind, Result};

/// Whether a route has a copy in that place.
pub(crate) fn is_kept(route: &Route, place: Place) -> bool {
    route.uses.backup && (place == Place::Redis || !is_row_route(route))
}

/// The routes of a plan that a backup counts row by row, which no archive holds.
pub(crate) fn rows_left_out(plan: &Plan) -> Vec<&str> {
    plan.routes
        .iter()
        .filter(|route| is_row_route(route))
        .map(|route| route.name.as_str())
        .collect()
}

/// Says which routes are left out because their rows are the application's.
pub(crate) fn left_out(plan: &Plan, place: Place, asked: &[String]) -> Option<String> {
    let names = rows_left_out(plan);
    let is_told = place == Place::Archive && asked.is_empty() && !names.is_empty();
    is_told.then(|| rows_are_not_archived(&names))
}

/// The words for routes that no archive holds.
pub(crate) fn rows_are_not_archived(names: &[&str]) -> String {
    format!(
        "route {} is not archived: its rows are those that the application keeps in redis; to archive its table, add a route of type = \"blocks\"",
        names.join(", ")
    )
}

/// Refuses a route that was named and that no archive holds.
pub(crate) fn refuse_rows(plan: &Plan, place: Place, name: &str) -> Result<()> {
    let is_meant = |route: &Route| route.name == name && is_row_route(route);
    if place == Place::Redis || !plan.routes.iter().any(is_meant) {
        return Ok(());
    }
    Err(Error::new(Kind::Config, rows_are_not_archived(&[name])).with_hint("rekindle plan"))
}

/// Refuses to add files of another key to those that are there; returns what a person should know of them.
pub(crate) async fn check_key(
    store: &dyn Store,
    table: &Table,
    options: &Options,
) -> Result<Option<String>> {
    let Form::Parquet(key) = store.form() else { return Ok(None) };
    let newest = table.standing.manifests.values().filter_map(Manifest::newest);
    let Some((name, version)) =
        table.standing.manifests.keys().zip(newest).find(|(name, version)| {
            !version.blocks.is_empty() && !table.standing.damage.contains_key(*name)
        })
    else {
        return Ok(None);
    };
    let first = table.keys.block(name, version.generation, 0);
    // One that is missing by now is found by whoever needs it.
    let Some(file) = store.get(&first).await? else { return Ok(None) };
    let own = key.as_ref().map(|key| key.id_text());
    match key_id(file)? {
        Some(asked) if Some(&asked) != own.as_ref() && !options.full => {
            Err(wrong_key(&asked, key.as_deref()).with_hint(
                "give the archive its key back, or write all of it anew with this one: rekindle backup bigquery --full",
            ))
        }
        None if own.is_some() && !options.full => Ok(Some(format!(
            "files of {} were archived without a key and can be read by anybody; to encrypt all of them: {}",
            table.full_name(),
            Place::Archive.named("rekindle backup bigquery --full")
        ))),
        _ => Ok(None),
    }
}

/// Reads how old the archive of every route is; empty where the plan has none.
pub async fn archive_ages(plan: &Plan) -> Result<Vec<Age>> {
    if plan.archive.is_none() {
        return Ok(Vec::new());
    }
    let archive = wiring::open_archive(plan)?;
    let mut ages = Vec::new();
    for route in plan.routes.iter().filter(|route| is_kept(route, Place::Archive)) {
        let stored = archive.get(&keys_of(route).run()).await?;
        let rpo = plan.bigquery_objective.rpo;
        ages.push(Age::of(&route.name, table_of(route), parsed(stored.as_deref()), rpo));
    }
    Ok(ages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_rows_is_named_and_never_left_out_silently() {
        let text = "[bigquery]\nproject = \"p\"\n[redis]\nurl = \"redis://h\"\n\
            [[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\ntype = \"blocks\"\nkey = \"log\"\n\
            [[route]]\nname = \"lines\"\ntable = \"bigquery:d.t\"\ntype = \"stream\"\nkey = \"lines\"\n";
        let no_file = |_: &str| Err(std::io::Error::other("no file"));
        let plan = Plan::parse(text, &|_| None, &no_file).unwrap();
        let kept = |place: Place| plan.routes.iter().filter(|route| is_kept(route, place)).count();
        assert_eq!((kept(Place::Redis), kept(Place::Archive)), (2, 1));
        let told = left_out(&plan, Place::Archive, &[]).unwrap();
        assert!(told.contains("route lines is not archived"), "{told}");
        assert_eq!(left_out(&plan, Place::Redis, &[]), None);
        assert_eq!(refuse_rows(&plan, Place::Archive, "lines").unwrap_err().kind(), Kind::Config);
        assert!(refuse_rows(&plan, Place::Archive, "logs").is_ok());
        assert!(refuse_rows(&plan, Place::Redis, "lines").is_ok());
    }
}
