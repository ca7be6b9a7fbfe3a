//! Everything here that parses what servers sent, given what no server means to send.
//!
//! Invariant: no panic, no hang, bounded memory, and an error is of the documented kind.

mod arrow;
mod copy;
mod rdb;
mod redis;

use fixtures::fuzz::Fuzz;
use schemas::plan::Plan;
use schemas::{BoundRoute, Column, ColumnType, TableSchema};
use std::sync::Arc;

fn heap(run: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(run).bytes_max
}

/// The parser of this name, and bytes that it takes.
pub(crate) fn fuzz(name: &'static str, corpus: Vec<Vec<u8>>) -> Fuzz {
    Fuzz::new(name, heap, corpus)
}

fn table(columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(name, column_type): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        source_type: column_type.name(),
        column_type: column_type.clone(),
        as_text: false,
    };
    let columns = columns.iter().map(column).collect();
    TableSchema { table: "d.t".into(), columns, unique_keys: vec![vec!["id".into()]] }
}

/// A route of this layout over `id`, `name` and `at`, versioned by `at`.
fn route(layout: &str, more: &str) -> Arc<BoundRoute> {
    let text = format!(
        "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\n\
         table = \"alloydb:t\"\ntype = \"{layout}\"\n{more}\n"
    );
    let plan = Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap();
    let columns =
        [("id", ColumnType::Int8), ("name", ColumnType::Text), ("at", ColumnType::TimestampTz)];
    Arc::new(BoundRoute::bind(&plan.routes[0], table(&columns)).unwrap())
}
