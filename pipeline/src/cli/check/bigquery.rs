//! The controls of BigQuery as a source: whether it answers, and every route's table.
//!
//! Invariant: no row is fetched and no query that bills is run; a read session is made, which costs nothing and needs
//! every permission that a read needs.

use super::controls::Control;
use crate::cli::figures::{bytes, count};
use crate::wiring::{Described, Sources, connect_sources, describe_routes, read_estimate};
use schemas::plan::System;
use schemas::{Plan, Route};

/// Looks at BigQuery and at every route that rebuilds from it (all when `names` is empty).
pub(super) async fn controls(plan: &Plan, names: &[String]) -> Vec<Control> {
    let is_read = |route: &&Route| {
        route.uses.rebuild
            && route.origin.system() == System::BigQuery
            && (names.is_empty() || names.contains(&route.name))
    };
    let routes: Vec<Route> = plan.routes.iter().filter(is_read).cloned().collect();
    if routes.is_empty() {
        return Vec::new();
    }
    let sources = match connect_sources(plan, &routes, 1).await {
        Ok(sources) => sources,
        Err(error) => {
            return vec![
                Control::of_error("bigquery", &error),
                Control::unknown("bigquery routes", "not looked at, because bigquery could not be"),
            ];
        }
    };
    let address = sources.addresses().into_iter().map(|(_, address)| address).collect::<String>();
    let mut controls = vec![Control::ok("bigquery", format!("answers queries at {address}"))];
    for route in routes {
        controls.extend(of_route(&sources, route).await);
    }
    controls
}

async fn of_route(sources: &Sources, route: Route) -> Vec<Control> {
    let name = format!("route {}", route.name);
    let mut described = match describe_routes(sources, std::slice::from_ref(&route)).await {
        Ok(described) => described,
        Err(errors) => {
            return errors.iter().map(|error| Control::of_error(&name, error)).collect();
        }
    };
    let Some(described) = described.pop() else { return Vec::new() };
    let (facts, columns) = (described.facts(), described.bound().schema.columns.len());
    let mut controls = vec![readable(sources, described, &name, (&facts.table, columns)).await];
    let template = route.key.text();
    let key = if route.is_rebuilt_stream() {
        format!("{template} is the prefix of streams, one of each partition")
    } else {
        format!("{template} is not proven unique; checked before the first write")
    };
    controls.push(Control::ok(format!("{name}: key"), key));
    controls.push(match facts.rows {
        Some(rows) => Control::ok(
            format!("{name}: rows"),
            format!("about {}, {} stored", count(rows), bytes(facts.bytes)),
        ),
        None => Control::unknown(
            format!("{name}: rows"),
            "a query or a filtered table has no estimate; neither has the time a run takes",
        ),
    });
    controls
}

async fn readable(
    sources: &Sources,
    described: Described,
    name: &str,
    (table, columns): (&str, usize),
) -> Control {
    match read_estimate(sources, described).await {
        Ok(Some(estimate)) => {
            let billed = bytes(estimate.bytes_billed);
            Control::ok(
                name,
                format!("{table} is readable, {columns} columns carried, {billed} billed"),
            )
        }
        Ok(None) => Control::ok(name, format!("{table} is readable, {columns} columns carried")),
        Err(error) => Control::of_error(name, &error),
    }
}
