//! Which routes can be read together: those over the same heap tables of PostgreSQL.
//!
//! Invariant: routes of one pass are cut alike, because they share one look at the sizes of their tables.

use super::{Described, On, Sources};
use crate::one_pass::Membership;
use schemas::BoundRoute;
use stages::Result;
use stages::extract::PassSource;
use stages::extract::postgres::{Cut, PostgresPass, Shape};
use std::sync::Arc;

/// The identity of what a route reads in ranges of blocks; `None` where it is read otherwise.
fn ranges_of(described: &Described) -> Option<String> {
    match described {
        // A stream starts over with its partition, and would hold the others of a pass up.
        Described::Postgres(On { bound, shape })
            if shape.cut(&bound.route) == Cut::Ctid && !bound.is_stream() =>
        {
            Some(shape.identity())
        }
        Described::Postgres(_) | Described::BigQuery(_) | Described::Archived(_) => None,
    }
}

/// Gives routes over the same tables the sizes that the first of them was described with: a table that grew in
/// between would be cut at other blocks.
pub(super) fn align(described: &mut [Described]) {
    let mut known: Vec<Shape> = Vec::new();
    for found in described {
        if ranges_of(found).is_none() {
            continue;
        }
        let Described::Postgres(On { shape, .. }) = found else { continue };
        match known.iter().find(|other| other.identity() == shape.identity()) {
            Some(other) => shape.relations.clone_from(&other.relations),
            None => known.push(shape.clone()),
        }
    }
}

/// Returns the passes that more than one route can take part in, by the index of the route.
pub(super) fn passes(
    sources: &Sources,
    described: &[Described],
) -> Result<Vec<(usize, Membership)>> {
    let mut tables: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, found) in described.iter().enumerate() {
        let Some(table) = ranges_of(found) else { continue };
        match tables.iter_mut().find(|(other, _)| *other == table) {
            Some((_, members)) => members.push(index),
            None => tables.push((table, vec![index])),
        }
    }
    let mut memberships = Vec::new();
    for (pass, (_, members)) in tables.into_iter().enumerate() {
        if members.len() < 2 {
            continue;
        }
        let routes: Vec<Arc<BoundRoute>> =
            members.iter().map(|index| Arc::clone(described[*index].bound())).collect();
        let server = Arc::clone(sources.postgres()?);
        let source: Arc<dyn PassSource> = Arc::new(PostgresPass::new(server, routes));
        memberships.extend(members.into_iter().enumerate().map(|(place, index)| {
            (index, Membership { pass, source: Arc::clone(&source), place })
        }));
    }
    Ok(memberships)
}
