//! What a BigQuery route reads: columns, partitioning, size; for a query, the columns of its result.
//!
//! Invariant: nothing is guessed. A type that is not in the type map is refused by name, and so is a kind of table
//! that Storage Read cannot read at a given time.

use super::BigQueryServer;
use crate::connect::bigquery::JobStatement;
use crate::error::{Error, Kind, Result};
use schemas::drift::{ShapeColumn, TableShape};
use schemas::plan::{OnCollision, Origin, Route};
use schemas::{Column, ColumnType, TableSchema, bind};
use serde_json::Value;

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Table { dataset: String, table: String },
    Query { sql: String },
}

/// How BigQuery itself cuts a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioning {
    /// The column, or the pseudo column of ingestion time.
    pub column: String,
    /// `TIMESTAMP`, `DATETIME`, `DATE` or `INT64`.
    pub type_name: String,
    /// Whether the column can be null.
    pub is_nullable: bool,
    /// Whether BigQuery sorts the rows of a table partition by the column, so that a condition on it scans only what
    /// it selects.
    pub is_sorted: bool,
}

/// What a route reads, as BigQuery describes it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Name for messages.
    pub name: String,
    /// Fields of the REST schema, in order.
    pub fields: Vec<Value>,
    /// Rows and bytes as BigQuery counts them; unknown for a query.
    pub rows_estimate: Option<u64>,
    /// Logical bytes of the whole table, or what a query reads.
    pub bytes: u64,
    /// How BigQuery cuts the table.
    pub partitioning: Option<Partitioning>,
    pub(super) origin: Read,
    /// Which table of this name it is.
    pub(super) identity: String,
}

/// Describes the table or query of a route.
pub async fn describe(server: &BigQueryServer, route: &Route) -> Result<Shape> {
    refuse_fields(route)?;
    match &route.origin {
        Origin::Table { schema, table, .. } => describe_table(server, schema, table).await,
        Origin::Query { sql, .. } => describe_query(server, sql).await,
    }
}

/// Refuses what the fields of a route ask for and BigQuery's rows cannot give.
pub fn refuse_fields(route: &Route) -> Result<()> {
    let refused =
        |message: String, hint: &str| Err(Error::new(Kind::Config, message).with_hint(hint));
    if let Some(column) = &route.split_by {
        return refused(
            format!(
                "split_by {column} is not built for bigquery: every range would read the whole table"
            ),
            "leave split_by out; a partitioned table is cut by its own partitions",
        );
    }
    // Rows of a key of many are put in order before they are grouped.
    if let (Some(OnCollision::Last { .. }), None) = (&route.on_collision, &route.many) {
        return refused(
            "on_collision = \"last\" is not built for bigquery, whose rows come in no order"
                .to_owned(),
            "say on_collision = \"error\", or keep one row per key in a query (QUALIFY ROW_NUMBER() OVER (…) = 1)",
        );
    }
    if let Some(column) = route.as_text.first() {
        return refused(
            format!(
                "as_text = [{column:?}] is not built for bigquery, which carries every type it has"
            ),
            "leave as_text out, or cast the column in a query",
        );
    }
    if route.filter.is_some() && matches!(route.origin, Origin::Query { .. }) {
        return refused(
            "where beside a bigquery query would filter its written result".to_owned(),
            "put the condition into the query",
        );
    }
    Ok(())
}

async fn describe_table(server: &BigQueryServer, dataset: &str, table: &str) -> Result<Shape> {
    let bigquery = server.bigquery();
    let name = format!("{dataset}.{table}");
    let Some(found) = bigquery.table(dataset, table).await? else {
        let (what, hint) = match bigquery.dataset(dataset).await? {
            Some(_) => (format!("table {name}"), format!("bq ls {}:{dataset}", bigquery.project())),
            None => {
                (format!("dataset {dataset}"), format!("bq ls --project_id {}", bigquery.project()))
            }
        };
        let message = format!("{what} does not exist in bigquery project {}", bigquery.project());
        return Err(Error::new(Kind::Schema, message)
            .with_hint(format!("mend the plan (see {hint}), then: rekindle plan")));
    };
    let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/type");
    if !matches!(kind, "TABLE" | "SNAPSHOT" | "CLONE" | "") {
        let message = format!("{name} is a {kind}, which cannot be read as of a given time");
        return Err(Error::new(Kind::Config, message)
            .with_hint("write it as query = \"SELECT * FROM …\" with from = \"bigquery\""));
    }
    let number = |pointer: &str| text(pointer).parse::<u64>().unwrap_or(0);
    let created_ms = text("/creationTime").parse::<i64>().unwrap_or(0);
    server.note(bigquery.time_travel_hours(dataset).await?, created_ms.saturating_mul(1_000));
    let fields = fields_of(&found);
    // Rows in the streaming buffer are counted apart.
    let rows = number("/numRows") + number("/streamingBuffer/estimatedRows");
    let bytes = number("/numBytes") + number("/streamingBuffer/estimatedBytes");
    Ok(Shape {
        partitioning: partitioning(&found, &fields),
        identity: format!("{name} {}", text("/creationTime")),
        name,
        fields,
        rows_estimate: Some(rows),
        bytes,
        origin: Read::Table { dataset: dataset.to_owned(), table: table.to_owned() },
    })
}

async fn describe_query(server: &BigQueryServer, sql: &str) -> Result<Shape> {
    if server.staging_dataset().is_none() {
        let message =
            "a bigquery query needs \"staging_dataset\" of [bigquery], where its result is written";
        return Err(Error::new(Kind::Config, message).with_hint(
            "name a dataset in the location of what the query reads, then: rekindle plan",
        ));
    }
    let job = server.bigquery().dry_run_job(&JobStatement::new(sql)).await?;
    let bytes = job.pointer("/statistics/totalBytesProcessed").and_then(Value::as_str);
    let fields = job.pointer("/statistics/query").map(fields_of).unwrap_or_default();
    if fields.is_empty() {
        return Err(Error::new(Kind::Config, "bigquery tells no columns of the query")
            .with_hint("write one SELECT statement, then: rekindle plan"));
    }
    Ok(Shape {
        name: "a query of bigquery".to_owned(),
        fields,
        rows_estimate: None,
        bytes: bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        partitioning: None,
        origin: Read::Query { sql: sql.to_owned() },
        identity: "query".to_owned(),
    })
}

fn fields_of(resource: &Value) -> Vec<Value> {
    let fields = resource.pointer("/schema/fields").and_then(Value::as_array);
    fields.cloned().unwrap_or_default()
}

fn partitioning(table: &Value, fields: &[Value]) -> Option<Partitioning> {
    let text = |pointer: &str| table.pointer(pointer).and_then(Value::as_str);
    let of_column = |column: &str, otherwise: &str| {
        let field = fields.iter().find(|field| {
            field["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(column))
        });
        let type_name = field.and_then(|field| field["type"].as_str()).unwrap_or(otherwise);
        let type_name = if type_name == "INTEGER" { "INT64" } else { type_name };
        Partitioning {
            column: column.to_owned(),
            type_name: type_name.to_owned(),
            is_nullable: field.is_none_or(|field| field["mode"].as_str() != Some("REQUIRED")),
            is_sorted: text("/clustering/fields/0")
                .is_some_and(|first| first.eq_ignore_ascii_case(column)),
        }
    };
    if let Some(column) = text("/rangePartitioning/field") {
        return Some(of_column(column, "INT64"));
    }
    table.get("timePartitioning")?;
    Some(of_column(text("/timePartitioning/field").unwrap_or("_PARTITIONTIME"), "TIMESTAMP"))
}

impl Shape {
    /// Returns what a recorded resource of the REST interface says of a table, with the rows and bytes of its copy.
    pub fn recorded(name: &str, resource: &Value, (rows, bytes): (u64, u64)) -> Self {
        let fields = fields_of(resource);
        let (dataset, table) = name.split_once('.').unwrap_or(("", name));
        let created = resource.pointer("/creationTime").and_then(Value::as_str).unwrap_or_default();
        Self {
            partitioning: partitioning(resource, &fields),
            identity: format!("{name} {created}"),
            name: name.to_owned(),
            fields,
            rows_estimate: Some(rows),
            bytes,
            origin: Read::Table { dataset: dataset.to_owned(), table: table.to_owned() },
        }
    }

    /// Returns the `GoogleSQL` type of a column.
    pub fn type_of(&self, column: &str) -> Option<String> {
        let field = self.fields.iter().find(|field| field["name"].as_str() == Some(column))?;
        Some(source_type(field))
    }

    /// Returns the whole table, by which later changes of it are noticed.
    pub fn table_shape(&self) -> TableShape {
        let identity = matches!(self.origin, Read::Table { .. }).then(|| self.identity.clone());
        TableShape { identity, ..shape_of(&self.name, &self.fields) }
    }

    /// Returns the schema of the columns a route needs, every refusal at once.
    pub fn schema(&self, route: &Route) -> std::result::Result<TableSchema, Vec<String>> {
        let name_of = |field: &Value| field["name"].as_str().unwrap_or_default().to_owned();
        let names: Vec<String> = self.fields.iter().map(name_of).collect();
        let needed = bind::columns_needed(route, &names)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut columns = Vec::new();
        let mut mistakes = Vec::new();
        for name in needed {
            let Some(field) = self.fields.iter().find(|field| name_of(field) == name) else {
                continue;
            };
            match ColumnType::of_bigquery(field) {
                Ok(column_type) => {
                    let source_type = source_type(field);
                    columns.push(Column { name, column_type, source_type, as_text: false });
                }
                Err(refused) => mistakes.push(format!(
                    "route {}: column {name} has type {refused}, which cannot be carried; leave it out with columns",
                    route.name
                )),
            }
        }
        if mistakes.is_empty() {
            // BigQuery's primary keys are not enforced, so they prove nothing.
            Ok(TableSchema { table: self.name.clone(), columns, unique_keys: Vec::new() })
        } else {
            Err(mistakes)
        }
    }
}

/// Returns the whole table that a resource of the REST interface describes, by which changes of it are noticed.
pub fn resource_shape(name: &str, resource: &Value) -> TableShape {
    shape_of(name, &fields_of(resource))
}

/// BigQuery numbers no columns, so a renamed one is told by its type and its place in the order.
fn shape_of(name: &str, fields: &[Value]) -> TableShape {
    let column = |field: &Value| ShapeColumn {
        name: field["name"].as_str().unwrap_or_default().to_owned(),
        source_type: source_type(field),
        place: None,
        is_required: field["mode"].as_str() == Some("REQUIRED"),
    };
    TableShape {
        table: name.to_owned(),
        identity: None,
        columns: fields.iter().map(column).collect(),
        unique_keys: Vec::new(),
    }
}

/// Returns every column of a table resource in order, and the names of those that are REQUIRED; every refusal at once.
pub fn table_schema(
    name: &str,
    resource: &Value,
) -> std::result::Result<(TableSchema, Vec<String>), Vec<String>> {
    let (mut columns, mut required, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields_of(resource) {
        let name = field["name"].as_str().unwrap_or_default().to_owned();
        if field["mode"].as_str() == Some("REQUIRED") {
            required.push(name.clone());
        }
        match ColumnType::of_bigquery(&field) {
            Ok(column_type) => {
                let source_type = source_type(&field);
                columns.push(Column { name, column_type, source_type, as_text: false });
            }
            Err(refused) => {
                mistakes.push(format!("column {name} has type {refused}, which cannot be carried"));
            }
        }
    }
    if mistakes.is_empty() {
        let table = name.to_owned();
        Ok((TableSchema { table, columns, unique_keys: Vec::new() }, required))
    } else {
        Err(mistakes)
    }
}

/// A field's type as `GoogleSQL` writes it.
pub(super) fn source_type(field: &Value) -> String {
    let text = |name: &str| field.get(name).and_then(Value::as_str).unwrap_or_default();
    let scalar = match text("type") {
        "INTEGER" => "INT64".to_owned(),
        "FLOAT" => "FLOAT64".to_owned(),
        "BOOLEAN" => "BOOL".to_owned(),
        "RANGE" => {
            let element = field.pointer("/rangeElementType/type").and_then(Value::as_str);
            format!("RANGE<{}>", element.unwrap_or_default())
        }
        "RECORD" | "STRUCT" => {
            let members = field.get("fields").and_then(Value::as_array).map(Vec::as_slice);
            let member = |field: &Value| {
                format!("{} {}", field["name"].as_str().unwrap_or_default(), source_type(field))
            };
            let members: Vec<String> = members.unwrap_or_default().iter().map(member).collect();
            format!("STRUCT<{}>", members.join(", "))
        }
        other => other.to_owned(),
    };
    if text("mode").eq_ignore_ascii_case("REPEATED") { format!("ARRAY<{scalar}>") } else { scalar }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn partitioning_is_by_column_range_or_ingestion() {
        let fields = [
            json!({"name": "ts", "type": "TIMESTAMP", "mode": "REQUIRED"}),
            json!({"name": "n", "type": "INTEGER"}),
        ];
        let of = |table: Value| partitioning(&table, &fields);
        let by_ts = of(json!({"timePartitioning": {"type": "DAY", "field": "ts"}})).unwrap();
        assert_eq!((by_ts.type_name.as_str(), by_ts.is_nullable), ("TIMESTAMP", false));
        assert!(!by_ts.is_sorted);
        let sorted = of(json!({"timePartitioning": {"type": "DAY", "field": "ts"},
            "clustering": {"fields": ["ts", "n"]}}));
        assert!(sorted.unwrap().is_sorted);
        let by_n = of(json!({"rangePartitioning": {"field": "n", "range": {}}})).unwrap();
        assert_eq!((by_n.type_name.as_str(), by_n.is_nullable), ("INT64", true));
        let by_ingestion = of(json!({"timePartitioning": {"type": "DAY"}})).unwrap();
        assert_eq!(by_ingestion.column, "_PARTITIONTIME");
        assert!(by_ingestion.is_nullable);
        assert_eq!(of(json!({})), None);
    }

    #[test]
    fn types_read_as_in_sql() {
        let nested = json!({"type": "RECORD", "mode": "REPEATED", "fields": [
            {"name": "k", "type": "STRING"}, {"name": "v", "type": "FLOAT", "mode": "REPEATED"}]});
        assert_eq!(source_type(&nested), "ARRAY<STRUCT<k STRING, v ARRAY<FLOAT64>>>");
    }
}
