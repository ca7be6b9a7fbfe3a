//! Rows of builds as PostgreSQL sends them, and the route that carries them.
//!
//! Invariant: a row is a function of its number alone, so every run measures the same bytes.

use bytes::Bytes;
use schemas::{BoundRoute, Column, ColumnType, Plan, TableSchema};
use std::sync::Arc;

/// The begin of 2024, in microseconds since 2000.
const FIRST_US: i64 = 757_382_400_000_000;
/// Rows in a block of the table.
const ROWS_PER_BLOCK: u64 = 50;

/// The table.
pub fn schema() -> TableSchema {
    let columns = [
        ("id", ColumnType::Int8),
        ("repo_id", ColumnType::Int4),
        ("status", ColumnType::Text),
        ("commit_sha", ColumnType::Text),
        ("is_tagged", ColumnType::Bool),
        ("duration_seconds", ColumnType::Float8),
        ("finished_at", ColumnType::TimestampTz),
    ];
    table("public.builds", &columns, vec![vec!["id".into()]])
}

/// A table of these columns.
pub fn table(
    name: &str,
    columns: &[(&str, ColumnType)],
    unique_keys: Vec<Vec<String>>,
) -> TableSchema {
    let columns = columns.iter().map(|(name, column_type)| Column {
        name: (*name).into(),
        source_type: column_type.name(),
        column_type: column_type.clone(),
        as_text: false,
    });
    TableSchema { table: name.into(), columns: columns.collect(), unique_keys }
}

/// A plan of one route over that table: the layout as the plan writes it, and more lines of the route.
///
/// # Panics
/// Where that is no plan.
pub fn plan(layout: &str, more: &str) -> Plan {
    let key = if layout == "stream" { "builds" } else { "build:{id}" };
    let text = format!(
        "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"builds\"\n\
         table = \"alloydb:builds\"\nkey = \"{key}\"\ntype = \"{layout}\"\n{more}\n"
    );
    let no_file = |_: &str| Err(std::io::Error::other("no file"));
    Plan::parse(&text, &|_| None, &no_file).expect("the plan is sound")
}

/// The route of a plan, bound.
///
/// # Panics
/// Where it does not fit the table.
pub fn bound(plan: &Plan) -> Arc<BoundRoute> {
    let bound = BoundRoute::bind(&plan.routes[0], schema());
    Arc::new(bound.expect("the route fits the table"))
}

/// The block that a row is in.
///
/// # Panics
/// Where its number is beyond the blocks of a table.
pub fn block_of(row: u64) -> u32 {
    u32::try_from(row / ROWS_PER_BLOCK).expect("few blocks")
}

/// So many rows from a number on, each behind its ctid, as the extract delivers them.
///
/// # Panics
/// Where the numbers are beyond the blocks of a table.
pub fn wire(first: u64, rows: usize) -> Bytes {
    let mut bytes = Vec::new();
    for row in first..first + rows as u64 {
        let random = random_of(row);
        let statuses = ["succeeded", "failed", "cancelled", "running"];
        let status = statuses[usize::try_from(random % 4).expect("below 4")];
        let sha = format!("{random:016x}{:016x}{row:08x}", random.rotate_left(17));
        let seconds = (random % 3_600_000) as f64 / 1000.0;
        let finished = FIRST_US + i64::try_from(random % 31_536_000_000_000).expect("a year");
        let mut ctid = [0; 6];
        ctid[..4].copy_from_slice(&block_of(row).to_be_bytes());
        ctid[5] = u8::try_from(row % ROWS_PER_BLOCK + 1).expect("at most 50");
        let (seconds, finished) = (seconds.to_be_bytes(), finished.to_be_bytes());
        let is_null = random.is_multiple_of(20);
        let fields: [Option<&[u8]>; 8] = [
            Some(&ctid),
            Some(&(10_000_000 + row).to_be_bytes()),
            Some(&u32::try_from(random % 100_000).expect("small").to_be_bytes()),
            Some(status.as_bytes()),
            Some(sha.as_bytes()),
            Some(&[u8::from(random & 64 != 0)]),
            (!is_null).then_some(&seconds),
            (!is_null).then_some(&finished),
        ];
        bytes.extend_from_slice(&8_i16.to_be_bytes());
        for field in fields {
            let length = field.map_or(-1, |field| i32::try_from(field.len()).expect("short"));
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field.unwrap_or_default());
        }
    }
    Bytes::from(bytes)
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014).
fn random_of(row: u64) -> u64 {
    let mut bits = row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
