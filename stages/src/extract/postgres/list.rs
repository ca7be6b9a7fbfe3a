//! The tables of a database with their primary keys, for a first plan.
//!
//! Invariant: only the catalogue is read; what belongs to the system or is a part of another table is left out.

use super::snapshot::PostgresServer;
use crate::connect::postgres::from_sqlx;
use crate::error::Result;
use sqlx::Row;

/// What a listed relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedKind {
    /// A table, partitioned or not.
    Table,
    /// A view, materialized view or foreign table: nothing proves a key.
    Other,
}

/// One table, view or foreign table.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Schema.
    pub schema: String,
    /// Name.
    pub table: String,
    /// What it is.
    pub kind: ListedKind,
    /// Columns of the primary key in its order; empty where there is none.
    pub primary_key: Vec<String>,
}

/// Lists what could be a route, by schema and name.
pub async fn list(server: &PostgresServer) -> Result<Vec<Listed>> {
    let failed = |error| from_sqlx(error, "cannot list the tables of alloydb");
    let mut connection = server.connection().await?;
    let rows = sqlx::query(
        "select n.nspname::text, c.relname::text, c.relkind in ('r', 'p'), \
         coalesce((select array_agg(a.attname::text order by k.n) from pg_index i \
           cross join lateral unnest(i.indkey) with ordinality k(attnum, n) \
           join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum \
           where i.indrelid = c.oid and i.indisprimary and k.n <= i.indnkeyatts), '{}'::text[]) \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition \
         and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1, 2",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    rows.iter()
        .map(|row| {
            let is_table: bool = row.try_get(2).map_err(failed)?;
            Ok(Listed {
                schema: row.try_get(0).map_err(failed)?,
                table: row.try_get(1).map_err(failed)?,
                kind: if is_table { ListedKind::Table } else { ListedKind::Other },
                primary_key: row.try_get(3).map_err(failed)?,
            })
        })
        .collect()
}
