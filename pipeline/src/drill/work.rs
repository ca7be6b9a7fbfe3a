//! What a drill is going to do, made from the plan alone: routes, the plans with scratch targets in them, and refusals.
//!
//! Invariant: nothing is connected to; what can be refused by reading the plan is refused here.

use super::{Asked, Loss};
use crate::backup::rows::is_row_route;
use schemas::plan::{BigQuery, Drill, Duplicate, Origin, Secret, System};
use schemas::{Plan, Route};
use stages::{Error, Kind};
use std::collections::BTreeMap;

/// What is done, in which order, with which plans.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) loss: Loss,
    /// BigQuery, where it is lost.
    pub(super) restore: Option<Restore>,
    /// Redis, where it is lost.
    pub(super) rebuild: Option<Rebuild>,
}

/// The restore of BigQuery.
#[derive(Debug)]
pub(super) struct Restore {
    /// The plan, with everything that is made on the way inside of the scratch dataset too.
    pub(super) plan: Plan,
    pub(super) dataset: String,
    pub(super) routes: Vec<Route>,
}

/// The rebuild of Redis.
#[derive(Debug)]
pub(super) struct Rebuild {
    /// The plan with the scratch as its Redis, and where both are lost with the restored tables.
    pub(super) plan: Plan,
    pub(super) routes: Vec<String>,
}

fn refuse(message: impl Into<String>, hint: &str) -> Error {
    Error::new(Kind::Config, message).with_hint(hint)
}

/// Dataset and name of a table of BigQuery.
pub(super) fn table_of(route: &Route) -> Option<(&str, &str)> {
    match &route.origin {
        Origin::Table { system: System::BigQuery, schema, table } => Some((schema, table)),
        _ => None,
    }
}

impl Work {
    pub(super) fn of(plan: &Plan, names: &[String], asked: &Asked) -> Result<Self, Vec<Error>> {
        let Some(targets) = &plan.drill else {
            return Err(vec![refuse(
                "the plan has no [drill] section, which names the scratch targets",
                "add [drill] with redis = \"redis://…\", dataset = \"rekindle_drill\", or both",
            )]);
        };
        let mut mistakes = production(asked);
        mistakes.extend(unknown_routes(plan, names, asked.lose));
        let is_wanted = |route: &&Route| names.is_empty() || names.contains(&route.name);
        let restore = asked.lose.bigquery().then(|| {
            let wanted = |route: &&Route| route.uses.backup && is_wanted(route);
            restore(plan, targets, plan.routes.iter().filter(wanted).cloned().collect())
        });
        let restore = taken(restore, &mut mistakes);
        let rebuild = asked.lose.redis().then(|| {
            let wanted = |route: &&Route| route.uses.rebuild && is_wanted(route);
            let names = plan.routes.iter().filter(wanted).map(|route| route.name.clone()).collect();
            rebuild(plan, targets, names, restore.as_ref(), asked)
        });
        let rebuild = taken(rebuild, &mut mistakes);
        if asked.lose == Loss::Both {
            mistakes.extend(cycle(plan, restore.as_ref()));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self { loss: asked.lose, restore, rebuild })
    }
}

fn taken<T>(made: Option<Result<T, Vec<Error>>>, mistakes: &mut Vec<Error>) -> Option<T> {
    match made? {
        Ok(made) => Some(made),
        Err(found) => {
            mistakes.extend(found);
            None
        }
    }
}

/// Production has to be asked for twice, and BigQuery's is not lost at all.
fn production(asked: &Asked) -> Vec<Error> {
    match (asked.in_production, &asked.confirm) {
        (true, _) if asked.lose.bigquery() => vec![refuse(
            "--in-production: losing a dataset of production is not built",
            "drill bigquery in a scratch dataset: leave --in-production away",
        )],
        (true, None) => vec![refuse(
            "--in-production empties the redis that serves; it needs a second confirmation",
            "type where it is, as `rekindle plan` shows it: --confirm HOST:PORT/DB",
        )],
        (false, Some(_)) => vec![refuse(
            "--confirm goes with --in-production only",
            "leave --confirm away: a scratch needs none",
        )],
        _ => Vec::new(),
    }
}

fn unknown_routes(plan: &Plan, names: &[String], loss: Loss) -> Vec<Error> {
    let problem = |name: &String| {
        let Some(route) = plan.routes.iter().find(|route| route.name == *name) else {
            return Some(refuse(
                format!("--route {name}: the plan has no such route"),
                "rekindle plan",
            ));
        };
        let has_part =
            (loss.redis() && route.uses.rebuild) || (loss.bigquery() && route.uses.backup);
        (!has_part).then(|| {
            let message = format!("--route {name}: it has no part in a loss of {}", loss.word());
            refuse(message, "name other routes, or leave --route away")
        })
    };
    names.iter().filter_map(problem).collect()
}

fn restore(plan: &Plan, targets: &Drill, routes: Vec<Route>) -> Result<Restore, Vec<Error>> {
    let Some(dataset) = targets.dataset.clone() else {
        return Err(vec![refuse(
            "the plan has no dataset in [drill], where bigquery is restored",
            "add dataset = \"rekindle_drill\" to [drill]",
        )]);
    };
    let Some(section) = &plan.bigquery else {
        return Err(vec![refuse("the plan has no [bigquery] section", "rekindle plan")]);
    };
    if routes.is_empty() {
        return Err(vec![refuse(
            "the plan has no backup route, so nothing brings bigquery back",
            "add a [[route]] with type = \"blocks\", then: rekindle backup bigquery",
        )]);
    }
    let mut mistakes = serving_dataset(plan, section, &dataset);
    mistakes.extend(same_names(&routes));
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let bigquery = BigQuery { staging_dataset: Some(dataset.clone()), ..section.clone() };
    Ok(Restore { plan: Plan { bigquery: Some(bigquery), ..plan.clone() }, dataset, routes })
}

/// The scratch is emptied, so no route and no other command may use it. Some clients fold the case of names.
fn serving_dataset(plan: &Plan, section: &BigQuery, dataset: &str) -> Vec<Error> {
    let mut mistakes = Vec::new();
    let mut found = |what: String| {
        mistakes.push(refuse(
            format!("dataset {dataset} of [drill] is {what}: a drill empties it"),
            "name a dataset of its own in [drill]",
        ));
    };
    if section.staging_dataset.as_ref().is_some_and(|other| other.eq_ignore_ascii_case(dataset)) {
        found("the staging_dataset of [bigquery]".to_owned());
    }
    for route in &plan.routes {
        let is_read = match &route.origin {
            Origin::Table { system: System::BigQuery, schema, .. } => {
                schema.eq_ignore_ascii_case(dataset)
            }
            Origin::Query { system: System::BigQuery, sql } => names(sql, dataset),
            _ => false,
        };
        if is_read {
            found(format!("read by route {}", route.name));
        }
    }
    mistakes
}

/// Whether a statement has a word.
fn names(sql: &str, word: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|other| other.eq_ignore_ascii_case(word))
}

/// Tables of several datasets come into one, where each needs a name of its own.
fn same_names(routes: &[Route]) -> Vec<Error> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for route in routes {
        if let Some((_, table)) = table_of(route) {
            by_name.entry(table).or_default().push(&route.name);
        }
    }
    let several = by_name.into_iter().filter(|(_, routes)| routes.len() > 1);
    several
        .map(|(table, routes)| {
            let message = format!(
                "routes {} all restore a table {table}, and the scratch dataset takes one of that name",
                routes.join(", ")
            );
            refuse(message, "drill them one after the other: name one of them with --route")
        })
        .collect()
}

fn rebuild(
    plan: &Plan,
    targets: &Drill,
    names: Vec<String>,
    restore: Option<&Restore>,
    asked: &Asked,
) -> Result<Rebuild, Vec<Error>> {
    let Some(url) = targets.redis.clone() else {
        return Err(vec![refuse(
            "the plan has no redis in [drill], where redis is rebuilt",
            "add redis = \"redis://…\" to [drill]",
        )]);
    };
    if names.is_empty() {
        return Err(vec![refuse("the plan has no route that rebuilds redis", "rekindle plan")]);
    }
    let mut mistakes = Vec::new();
    if asked.in_production {
        mistakes.extend(lost_for_good(plan));
    }
    let mut plan = with_redis(plan, url);
    if let Some(restore) = restore {
        plan.bigquery.clone_from(&restore.plan.bigquery);
        for route in plan.routes.iter_mut().filter(|route| names.contains(&route.name)) {
            mistakes.extend(read_restored(route, restore).err());
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(Rebuild { plan, routes: names })
}

/// The plan with another Redis; the duplicate stays where it is.
fn with_redis(plan: &Plan, url: Secret) -> Plan {
    let duplicate = plan.duplicate.clone().or(plan.redis.as_ref().map(Duplicate::in_target));
    Plan { redis: Some(url), duplicate, ..plan.clone() }
}

/// Lets a route read the restored table instead of the lost one; one that cannot is refused.
fn read_restored(route: &mut Route, restore: &Restore) -> Result<(), Error> {
    if route.origin.system() != System::BigQuery {
        return Ok(());
    }
    let name = &route.name;
    let wanted = match &route.origin {
        Origin::Table { schema, table, .. } => (schema.clone(), table.clone()),
        Origin::Query { .. } => {
            let message = format!(
                "route {name} is a query, which names datasets itself: it would read the bigquery that is lost"
            );
            return Err(refuse(message, "name the other routes with --route"));
        }
    };
    let is_restored = restore
        .routes
        .iter()
        .any(|other| table_of(other) == Some((wanted.0.as_str(), wanted.1.as_str())));
    if !is_restored {
        let message = format!(
            "route {name} reads {}.{}, which no backup route restores: with both lost nothing brings its keys back",
            wanted.0, wanted.1
        );
        return Err(refuse(
            message,
            "add a backup route for the table, or name the others with --route",
        ));
    }
    route.origin = Origin::Table {
        system: System::BigQuery,
        schema: restore.dataset.clone(),
        table: wanted.1,
    };
    Ok(())
}

/// What an emptied production Redis would take with it.
fn lost_for_good(plan: &Plan) -> Vec<Error> {
    let rows = plan.routes.iter().filter(|route| is_row_route(route));
    let mut mistakes: Vec<Error> = rows
        .map(|route| {
            let message = format!(
                "--in-production: rows of route {} are kept in that redis by an application, and no rebuild brings them back",
                route.name
            );
            refuse(message, "drill in a scratch: leave --in-production away")
        })
        .collect();
    if plan.duplicate.is_none() && plan.routes.iter().any(|route| route.uses.backup) {
        mistakes.push(refuse(
            "--in-production: the duplicate of bigquery lives in that redis, and would be lost with it",
            "give the duplicate an instance of its own: [redis.duplicate]",
        ));
    }
    mistakes
}

/// What nothing brings back where both are lost.
fn cycle(plan: &Plan, restore: Option<&Restore>) -> Vec<Error> {
    let mut mistakes = Vec::new();
    if plan.duplicate.is_none() {
        mistakes.push(refuse(
            "with redis the duplicate of bigquery is lost, because both share an instance: nothing brings bigquery back",
            "give the duplicate an instance of its own: [redis.duplicate]; rekindle plan --lost redis,bigquery",
        ));
    }
    let routes = restore.map(|restore| restore.routes.as_slice()).unwrap_or_default();
    mistakes.extend(routes.iter().filter(|route| is_row_route(route)).map(|route| {
        let message = format!(
            "route {}: its rows are kept in redis by an application, and are lost with it",
            route.name
        );
        refuse(message, "name the other routes with --route")
    }));
    mistakes
}

#[cfg(test)]
mod tests;
