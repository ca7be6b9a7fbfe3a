//! The shape of what a route reads: columns, physical relations, unique keys, size.
//!
//! Invariant: nothing is guessed. A column type that is not in the type map is refused by name, with the
//! way out (`as_text`).

use super::columns::columns;
use super::snapshot::PostgresServer;
use super::sql::quote;
use super::watch::fingerprint;
use crate::connect::postgres::from_sqlx;
use crate::error::{Error, Kind, Result};
use schemas::drift::{ShapeColumn, TableShape};
use schemas::plan::{OnCollision, Origin, Route};
use schemas::type_map::PgType;
use schemas::{Column, ColumnType, TableSchema, bind};
use sqlx::{PgConnection, Row};

/// How the rows of a route are cut into partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Ranges of heap blocks.
    Ctid,
    /// Ranges of `split_by`.
    Key,
    /// One partition.
    Whole,
}

/// One physical relation: the table itself, or a leaf of a partitioned or inheritance parent.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// Qualified and quoted.
    pub name: String,
    /// `pg_class.oid`.
    pub oid: i64,
    /// `pg_relation_filenode`: changes when the relation is rewritten (VACUUM FULL, TRUNCATE, CLUSTER).
    pub filenode: i64,
    /// Whether it is stored in the heap access method, so that tuple positions and versions exist.
    pub is_heap: bool,
    /// Size of the main fork in bytes.
    pub bytes: i64,
    /// Estimated rows; negative when the relation was never analysed.
    pub reltuples: f64,
}

/// What a route reads, as the source describes it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Name for messages.
    pub name: String,
    /// `pg_class.oid` of the table; a query has none.
    pub oid: Option<i64>,
    /// Physical relations; empty for a query.
    pub relations: Vec<Relation>,
    /// Every column with its type, in table order.
    pub columns: Vec<SourceColumn>,
    /// Column sets kept distinct by the source.
    pub unique_keys: Vec<Vec<String>>,
    /// Bytes per heap block.
    pub block_size: i64,
    /// What is compared to see whether any of this changed; a query has none.
    pub fingerprint: Option<String>,
}

/// One column as the source describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// Name.
    pub name: String,
    /// Type name with its modifier, for example `character varying(20)`.
    pub type_name: String,
    /// What the type map needs.
    pub pg_type: PgType,
    /// `pg_attribute.attnum`, which no other column of the table ever has; a query has none.
    pub place: Option<i64>,
    /// Whether it is declared NOT NULL.
    pub is_required: bool,
}

impl Shape {
    /// Returns how the route is cut.
    pub fn cut(&self, route: &Route) -> Cut {
        let is_heap = self.is_heap();
        if route.many.is_some() {
            // Where all rows share one key, nothing can be cut.
            return if route.key.columns().next().is_some() { Cut::Key } else { Cut::Whole };
        }
        match (&route.on_collision, &route.split_by) {
            // The last row can only be told when all rows come in one order.
            (Some(OnCollision::Last { .. }), _) => Cut::Whole,
            _ if is_heap => Cut::Ctid,
            (_, Some(_)) => Cut::Key,
            _ => Cut::Whole,
        }
    }

    /// Whether every relation is stored in the heap access method.
    pub fn is_heap(&self) -> bool {
        !self.relations.is_empty() && self.relations.iter().all(|relation| relation.is_heap)
    }

    /// Returns the whole table, by which later changes of it are noticed.
    pub fn table_shape(&self) -> TableShape {
        let column = |column: &SourceColumn| ShapeColumn {
            name: column.name.clone(),
            source_type: column.type_name.clone(),
            place: column.place,
            is_required: column.is_required,
        };
        TableShape {
            table: self.name.clone(),
            identity: self.oid.map(|oid| oid.to_string()),
            columns: self.columns.iter().map(column).collect(),
            unique_keys: self.unique_keys.clone(),
        }
    }

    /// Returns the identity of the physical relations: oid and file of each.
    pub fn identity(&self) -> String {
        let mut parts: Vec<String> =
            self.relations.iter().map(|r| format!("{}:{}", r.oid, r.filenode)).collect();
        parts.sort();
        parts.join(" ")
    }

    /// Estimated rows; `None` when nothing is known (never analysed, a view, a query).
    pub fn rows_estimate(&self) -> Option<u64> {
        if self.relations.is_empty()
            || self.relations.iter().any(|r| r.reltuples < 0.0 || !r.is_heap)
        {
            return None;
        }
        let rows: f64 = self.relations.iter().map(|r| r.reltuples).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate, not negative"
        )]
        Some(rows as u64)
    }

    /// Bytes on disk of all relations.
    pub fn bytes(&self) -> u64 {
        self.relations.iter().map(|r| u64::try_from(r.bytes).unwrap_or(0)).sum()
    }

    /// Returns the schema of the columns a route needs, every refusal at once.
    pub fn schema(&self, route: &Route) -> std::result::Result<TableSchema, Vec<String>> {
        let names: Vec<String> = self.columns.iter().map(|c| c.name.clone()).collect();
        let needed = bind::columns_needed(route, &names)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut columns = Vec::new();
        let mut mistakes = Vec::new();
        for name in needed {
            let Some(source) = self.columns.iter().find(|c| c.name == name) else { continue };
            let as_text = route.as_text.contains(&name);
            let column_type = if as_text {
                Some(ColumnType::Text)
            } else {
                ColumnType::of_postgres(&source.pg_type)
            };
            match column_type {
                Some(column_type) => columns.push(Column {
                    name,
                    column_type,
                    source_type: source.type_name.clone(),
                    as_text,
                }),
                None => mistakes.push(format!(
                    "route {}: column {name} has type {}, which cannot be carried; list it in as_text or leave it out with columns",
                    route.name, source.type_name
                )),
            }
        }
        if mistakes.is_empty() {
            Ok(TableSchema {
                table: self.name.clone(),
                columns,
                unique_keys: self.unique_keys.clone(),
            })
        } else {
            Err(mistakes)
        }
    }
}

/// Describes what a route reads. Fails with `Schema` when the table does not exist.
pub async fn describe(server: &PostgresServer, route: &Route) -> Result<Shape> {
    let mut connection = server.connection().await?;
    describe_on(&mut connection, route).await
}

/// Describes what a route reads, over a connection that is in no transaction.
pub(super) async fn describe_on(connection: &mut PgConnection, route: &Route) -> Result<Shape> {
    // First of all, so that what changes meanwhile is noticed later.
    let fingerprint = fingerprint(connection, route).await?;
    let block_size: i64 = sqlx::query_scalar("select current_setting('block_size')::bigint")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| from_sqlx(error, "cannot read block_size of alloydb"))?;
    let name = match &route.origin {
        Origin::Table { schema, table, .. } => format!("{schema}.{table}"),
        Origin::Query { .. } => format!("query of route {}", route.name),
    };
    let (oid, relations, unique_keys) = match &route.origin {
        Origin::Table { schema, table, .. } => {
            let oid = find(connection, schema, table).await?;
            let relations = relations(connection, oid, &name).await?;
            (Some(oid), relations, unique_keys(connection, oid, &name).await?)
        }
        Origin::Query { .. } => (None, Vec::new(), Vec::new()),
    };
    let columns = columns(connection, route, &name).await?;
    Ok(Shape { name, oid, relations, columns, unique_keys, block_size, fingerprint })
}

async fn find(connection: &mut PgConnection, schema: &str, table: &str) -> Result<i64> {
    let found: Option<i64> = sqlx::query_scalar(
        "select c.oid::bigint from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')",
    )
    .bind(schema)
    .bind(table)
    .fetch_optional(&mut *connection)
    .await
    .map_err(|error| from_sqlx(error, &format!("cannot look up {schema}.{table}")))?;
    if let Some(oid) = found {
        return Ok(oid);
    }
    let others: Vec<String> = sqlx::query_scalar(
        "select n.nspname || '.' || c.relname from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_|^information_schema$' \
         and (n.nspname = $1 or c.relname = $2) order by 1 limit 10",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(connection)
    .await
    .map_err(|error| from_sqlx(error, "cannot list the tables of alloydb"))?;
    let hint = if others.is_empty() {
        "check schema and table of the route, then: rekindle plan".to_owned()
    } else {
        format!("there is: {}; mend the plan, then: rekindle plan", others.join(", "))
    };
    Err(Error::new(Kind::Schema, format!("table {schema}.{table} does not exist")).with_hint(hint))
}

/// Expands a parent to the relations that hold rows. The parent of plain inheritance holds rows itself.
async fn relations(connection: &mut PgConnection, oid: i64, name: &str) -> Result<Vec<Relation>> {
    let failed = |error| from_sqlx(error, &format!("cannot describe {name}"));
    let rows = sqlx::query(
        "with recursive tree as (select $1::bigint::oid as oid union all \
         select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid) \
         select c.oid::bigint, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid)::bigint, 0), \
         coalesce(a.amname = 'heap', false) and c.relkind in ('r', 'm'), \
         case when c.relkind in ('r', 'm') then pg_relation_size(c.oid) else 0 end, \
         c.reltuples::float8, has_any_column_privilege(c.oid, 'select') \
         from tree join pg_class c on c.oid = tree.oid join pg_namespace n on n.oid = c.relnamespace \
         left join pg_am a on a.oid = c.relam where c.relkind <> 'p' order by c.oid",
    )
    .bind(oid)
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    let mut relations = Vec::with_capacity(rows.len());
    for row in rows {
        let schema: String = row.try_get(1).map_err(failed)?;
        let table: String = row.try_get(2).map_err(failed)?;
        let is_readable: bool = row.try_get(7).map_err(failed)?;
        if !is_readable {
            return Err(Error::new(Kind::Auth, format!("no permission to read {schema}.{table}"))
                .with_hint(format!(
                    "grant select on {}.{} to the user of [alloydb]",
                    quote(&schema),
                    quote(&table)
                )));
        }
        relations.push(Relation {
            name: format!("{}.{}", quote(&schema), quote(&table)),
            oid: row.try_get(0).map_err(failed)?,
            filenode: row.try_get(3).map_err(failed)?,
            is_heap: row.try_get(4).map_err(failed)?,
            bytes: row.try_get(5).map_err(failed)?,
            reltuples: row.try_get(6).map_err(failed)?,
        });
    }
    Ok(relations)
}

/// Unique indexes that prove a key: valid, immediate, without predicate or expression. An index on a
/// parent of plain inheritance says nothing about its children, so it proves nothing.
async fn unique_keys(
    connection: &mut PgConnection,
    oid: i64,
    name: &str,
) -> Result<Vec<Vec<String>>> {
    sqlx::query_scalar(
        "select array_agg(a.attname::text order by k.n) from pg_index i \
         join pg_class c on c.oid = i.indrelid \
         cross join lateral unnest(i.indkey) with ordinality k(attnum, n) \
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum \
         where i.indrelid = $1::bigint::oid and i.indisunique and i.indisvalid and i.indimmediate \
         and i.indpred is null and i.indexprs is null and k.n <= i.indnkeyatts \
         and (c.relkind = 'p' or not exists (select from pg_inherits h where h.inhparent = c.oid)) \
         group by i.indexrelid order by i.indexrelid",
    )
    .bind(oid)
    .fetch_all(connection)
    .await
    .map_err(|error| from_sqlx(error, &format!("cannot read the indexes of {name}")))
}
