//! The columns of a table, view or query, and their types down to what they are made of.
//!
//! Invariant: the catalogue tells, never the name of a type: a type of an extension is known by the extension, a domain by
//! its base, a range by its subtype.

use super::shape::SourceColumn;
use super::sql::from_origin;
use crate::connect::postgres::from_sqlx;
use crate::error::{Error, Kind, Result};
use schemas::plan::{Origin, Route};
use schemas::type_map::PgType;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, Statement, TypeInfo};

/// Describes the columns: those of a table or view by the catalogue, those of a query by preparing it.
pub(super) async fn columns(
    connection: &mut PgConnection,
    route: &Route,
    name: &str,
) -> Result<Vec<SourceColumn>> {
    let found = match &route.origin {
        Origin::Table { schema, table, .. } => table_columns(connection, schema, table).await?,
        Origin::Query { .. } => query_columns(connection, route, name).await?,
    };
    let mut columns = Vec::with_capacity(found.len());
    for (column, oid, exact) in found {
        let (mut pg_type, type_name) = pg_type(connection, oid, name).await?;
        // A domain travels as what it is based on.
        while pg_type.kind == 'd'
            && let Some(base) = pg_type.inner
        {
            pg_type = *base;
        }
        let (type_name, place, is_required) = match exact {
            Some(Exact { type_name, place, is_required }) => (type_name, Some(place), is_required),
            None => (type_name, None, false),
        };
        columns.push(SourceColumn { name: column, type_name, pg_type, place, is_required });
    }
    Ok(columns)
}

/// Name and type of a column, and what only the catalogue tells.
type Found = (String, i64, Option<Exact>);

/// What the catalogue tells of the column of a table.
struct Exact {
    /// The type's name with its modifier.
    type_name: String,
    /// `attnum`.
    place: i64,
    is_required: bool,
}

/// Type names have their modifiers, so that `varchar(20)` to `varchar(40)` counts as drift.
async fn table_columns(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> Result<Vec<Found>> {
    let failed = |error| from_sqlx(error, &format!("cannot describe {schema}.{table}"));
    let rows: Vec<(String, i64, String, i64, bool)> = sqlx::query_as(
        "select a.attname::text, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod), a.attnum::bigint, \
         a.attnotnull from pg_attribute a \
         join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped order by a.attnum",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    let found = rows.into_iter().map(|(name, oid, type_name, place, is_required)| {
        (name, oid, Some(Exact { type_name, place, is_required }))
    });
    Ok(found.collect())
}

async fn query_columns(
    connection: &mut PgConnection,
    route: &Route,
    name: &str,
) -> Result<Vec<Found>> {
    let sql = format!("select * from {}", from_origin(route));
    let statement = (&mut *connection)
        .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(sql)))
        .await
        .map_err(|error| match error {
            // The driver asks for every type, and there are kinds that it does not know.
            sqlx::Error::ColumnDecode { .. } => Error::new(
                Kind::Schema,
                format!("{name} returns a type that cannot be described, a multirange for example"),
            )
            .with_hint("cast the column to text in the query, then: rekindle plan"),
            error => from_sqlx(error, &format!("cannot describe {name}")),
        })?;
    let mut columns = Vec::new();
    for column in statement.columns() {
        let info = sqlx::Column::type_info(column);
        let Some(oid) = info.oid() else {
            return Err(Error::new(
                Kind::Schema,
                format!(
                    "column {} of {name} has type {}, which alloydb does not identify",
                    sqlx::Column::name(column),
                    info.name()
                ),
            ));
        };
        columns.push((sqlx::Column::name(column).to_owned(), i64::from(oid.0), None));
    }
    Ok(columns)
}

/// Describes a type and what it is made of, and returns its name as SQL writes it.
async fn pg_type(connection: &mut PgConnection, oid: i64, name: &str) -> Result<(PgType, String)> {
    let failed = |error| from_sqlx(error, &format!("cannot describe the types of {name}"));
    let mut outer: Vec<PgType> = Vec::new();
    let mut shown = None;
    let mut next = Some(oid);
    while let Some(oid) = next {
        let row = sqlx::query(
            "select t.typname::text, n.nspname::text, t.typtype::text, x.extname::text, format_type(t.oid, null), \
             case when t.typtype = 'd' then nullif(t.typbasetype, 0)::bigint \
             when t.typtype = 'r' then r.rngsubtype::bigint \
             when t.typcategory = 'A' then nullif(t.typelem, 0)::bigint end from pg_type t \
             join pg_namespace n on n.oid = t.typnamespace left join pg_range r on r.rngtypid = t.oid \
             left join pg_depend d on d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e' \
             left join pg_extension x on x.oid = d.refobjid where t.oid = $1::bigint::oid",
        )
        .bind(oid)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
        let kind: String = row.try_get(2).map_err(failed)?;
        let kind = kind.chars().next().unwrap_or('?');
        next = match kind {
            'm' => Some(range_of(connection, oid).await.map_err(failed)?),
            _ => row.try_get(5).map_err(failed)?,
        };
        shown = shown.or(row.try_get(4).map_err(failed)?);
        outer.push(PgType {
            name: row.try_get(0).map_err(failed)?,
            schema: row.try_get(1).map_err(failed)?,
            kind,
            extension: row.try_get(3).map_err(failed)?,
            inner: None,
        });
    }
    let within =
        |inner, outer: PgType| Some(PgType { inner: Option::map(inner, Box::new), ..outer });
    match (outer.into_iter().rev().fold(None, within), shown) {
        (Some(pg_type), Some(shown)) => Ok((pg_type, shown)),
        _ => Err(Error::new(Kind::Internal, format!("type {oid} of {name} has no name"))),
    }
}

/// The range type of a multirange; servers before 14 have neither, nor the column that is asked for.
async fn range_of(
    connection: &mut PgConnection,
    oid: i64,
) -> std::result::Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select rngtypid::bigint from pg_range where rngmultitypid = $1::bigint::oid",
    )
    .bind(oid)
    .fetch_one(connection)
    .await
}
