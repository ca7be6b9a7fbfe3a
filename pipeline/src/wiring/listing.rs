//! What there is to write routes for: tables of PostgreSQL, tables of BigQuery.
//!
//! Invariant: only catalogues are read, no row.

use super::{On, Sources, connect_backup_source, connect_postgres, describe_postgres};
use schemas::{ColumnType, Plan, Route};
use serde_json::Value;
use stages::Result;
use stages::extract::postgres::{self, Listed};

/// One column, and whether its type is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedColumn {
    /// Name.
    pub name: String,
    /// The system's own name of the type.
    pub type_name: String,
    /// The type it is carried as; `None` where it is not.
    pub column_type: Option<ColumnType>,
}

/// One table of BigQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBigQuery {
    /// Dataset.
    pub dataset: String,
    /// Name.
    pub table: String,
    /// `TABLE`, `VIEW` and so on.
    pub kind: String,
    /// What it is partitioned by: a column, `arrival time`, or nothing.
    pub partitioned_by: Option<String>,
    /// Columns whose order is time, which a watermark may be.
    pub times: Vec<String>,
    /// Columns of types that are not carried, with the type.
    pub refused: Vec<String>,
}

/// A PostgreSQL whose tables are listed.
pub struct PostgresListing {
    sources: Sources,
}

impl PostgresListing {
    /// Connects to the PostgreSQL of a plan.
    pub async fn connect(plan: &Plan) -> Result<Self> {
        let server = connect_postgres(plan, 1).await?;
        Ok(Self { sources: Sources::of_postgres(server) })
    }

    /// Lists what could be a route.
    pub async fn tables(&self) -> Result<Vec<Listed>> {
        let server = self.sources.postgres()?;
        Box::pin(server.watched(postgres::list(server))).await
    }

    /// Returns the columns of what a route reads.
    pub async fn columns(&self, route: &Route) -> Result<Vec<ListedColumn>> {
        let server = self.sources.postgres()?;
        let shape = Box::pin(server.watched(postgres::describe(server, route))).await?;
        let listed = |column: postgres::SourceColumn| ListedColumn {
            column_type: ColumnType::of_postgres(&column.pg_type),
            name: column.name,
            type_name: column.type_name,
        };
        Ok(shape.columns.into_iter().map(listed).collect())
    }

    /// Returns what is wrong with a route, as `rekindle plan` would tell.
    pub async fn problems(&self, route: &Route) -> Result<Vec<String>> {
        match describe_postgres(self.sources.postgres()?, route).await {
            Ok(On { .. }) => Ok(Vec::new()),
            Err(errors) => {
                let told = errors.iter().map(ToString::to_string).collect();
                // A system that is away is nothing about the route.
                let away = errors.into_iter().find(|error| error.kind().is_transient());
                away.map_or(Ok(told), Err)
            }
        }
    }
}

/// Lists the tables of the BigQuery of a plan, all datasets but that for staging.
pub async fn list_bigquery(plan: &Plan) -> Result<Vec<ListedBigQuery>> {
    let bigquery = connect_backup_source(plan).await?;
    let staging = plan.bigquery.as_ref().and_then(|section| section.staging_dataset.as_deref());
    let mut listed = Vec::new();
    for dataset in bigquery.datasets().await? {
        if Some(dataset.as_str()) == staging {
            continue;
        }
        for found in bigquery.tables(&dataset).await? {
            let name = found.pointer("/tableReference/tableId").and_then(Value::as_str);
            let Some(name) = name else { continue };
            // The list tells no columns; a table that is gone by now is none.
            if let Some(table) = bigquery.table(&dataset, name).await? {
                listed.push(listed_table(&dataset, name, &table));
            }
        }
    }
    listed.sort_by(|a, b| (&a.dataset, &a.table).cmp(&(&b.dataset, &b.table)));
    Ok(listed)
}

fn listed_table(dataset: &str, name: &str, table: &Value) -> ListedBigQuery {
    let text = |pointer: &str| table.pointer(pointer).and_then(Value::as_str);
    let fields = table.pointer("/schema/fields").and_then(Value::as_array);
    let fields = fields.map(Vec::as_slice).unwrap_or_default();
    let name_of = |field: &Value| field["name"].as_str().unwrap_or_default().to_owned();
    let is_time = |field: &&Value| {
        matches!(field["type"].as_str(), Some("TIMESTAMP" | "DATETIME" | "DATE"))
            && field["mode"].as_str() != Some("REPEATED")
    };
    let refused = fields.iter().filter_map(|field| {
        let refused = ColumnType::of_bigquery(field).err()?;
        Some(format!("{} {refused}", name_of(field)))
    });
    let partitioned_by = text("/rangePartitioning/field")
        .or_else(|| text("/timePartitioning/field"))
        .or_else(|| table.get("timePartitioning").map(|_| ARRIVAL_TIME));
    ListedBigQuery {
        dataset: dataset.to_owned(),
        table: name.to_owned(),
        kind: text("/type").unwrap_or("TABLE").to_owned(),
        partitioned_by: partitioned_by.map(str::to_owned),
        times: fields.iter().filter(is_time).map(name_of).collect(),
        refused: refused.collect(),
    }
}

/// What a table is called partitioned by that has no column for it.
pub const ARRIVAL_TIME: &str = "arrival time";
