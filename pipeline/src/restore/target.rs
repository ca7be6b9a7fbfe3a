//! Table resources of a restore: the staging table, the destination, and what is put back after publishing. Pure.
//!
//! Invariant: what was recorded of a table is either made again or named as not put back, before anything is published.

use schemas::manifest::TableRecord;
use serde_json::{Map, Value, json};
use stages::{Error, Kind, Result};

/// How long a staging table lives when nobody drops it.
const STAGING_DAYS: i64 = 7;
/// The same of a table that a measurement restores into.
const SCRATCH_DAYS: i64 = 1;
const DAY_MS: i64 = 24 * 3_600_000;
/// What makes a table what it is, and cannot be changed later.
const SHAPE: [&str; 6] = [
    "schema",
    "timePartitioning",
    "rangePartitioning",
    "clustering",
    "encryptionConfiguration",
    "defaultCollation",
];
/// What can be put back on a table that is there.
const CHANGEABLE: [&str; 8] = [
    "schema",
    "friendlyName",
    "description",
    "labels",
    "defaultRoundingMode",
    "resourceTags",
    "tableConstraints",
    "maxStaleness",
];
/// What a resource tells without it being ours to set.
const TOLD: [&str; 10] = [
    "kind",
    "id",
    "tableReference",
    "type",
    "location",
    "creationTime",
    "expirationTime",
    "requirePartitionFilter",
    "numRows",
    "etag",
];

fn kept(resource: &Value, fields: &[&str]) -> Map<String, Value> {
    let given = |field: &&&str| resource.get(**field).is_some_and(|value| !value.is_null());
    let field = |field: &&str| ((*field).to_owned(), resource[*field].clone());
    fields.iter().filter(given).map(field).collect()
}

/// Refuses what is no table of rows, or cannot be restored as one.
pub(super) fn refuse_kind(record: &TableRecord) -> Result<()> {
    let resource = &record.resource;
    let kind = resource["type"].as_str().unwrap_or("TABLE");
    let refuse = |what: String| {
        Err(Error::new(Kind::Config, format!("cannot restore {}: {what}", record.table))
            .with_hint("take the route out of the plan, or name others with --route"))
    };
    if kind != "TABLE" {
        return refuse(format!("it was recorded as a {kind}, which holds no rows of its own"));
    }
    Ok(())
}

/// The staging table: shaped like the recorded one, but nothing in it expires early or needs a filter to be read.
pub(super) fn staging(record: &TableRecord, run_id: &str, now_ms: i64) -> Value {
    let mut made = kept(&record.resource, &SHAPE);
    without_partition_expiry(&mut made);
    if is_by_arrival(&record.resource) {
        // Each holds one table partition, and its rows arrive when they are copied from here.
        made.remove("timePartitioning");
    }
    let expires = now_ms + STAGING_DAYS * DAY_MS;
    made.insert("expirationTime".into(), expires.to_string().into());
    made.insert("description".into(), format!("rekindle restores {} here", record.table).into());
    made.insert("labels".into(), json!({"rekindle_run": run_id}));
    Value::Object(made)
}

fn without_partition_expiry(made: &mut Map<String, Value>) {
    if let Some(Value::Object(partitioning)) = made.get_mut("timePartitioning") {
        partitioning.remove("expirationMs");
        partitioning.remove("requirePartitionFilter");
    }
}

/// The destination where there is none. A required partition filter comes back after the proof, which reads it all.
pub(super) fn destination(record: &TableRecord, now_ms: i64) -> Value {
    let resource = &record.resource;
    let mut made = kept(resource, &SHAPE);
    made.extend(kept(resource, &CHANGEABLE));
    if let Some(Value::Object(partitioning)) = made.get_mut("timePartitioning") {
        partitioning.remove("requirePartitionFilter");
    }
    if let Some(expires) = expiry(resource).filter(|at| *at > now_ms) {
        made.insert("expirationTime".into(), expires.to_string().into());
    }
    Value::Object(made)
}

/// Lets a table that is only measured with go by itself, where nobody drops it.
pub(super) fn expire_soon(made: &mut Value, now_ms: i64) {
    made["expirationTime"] = (now_ms + SCRATCH_DAYS * DAY_MS).to_string().into();
}

/// What is set on the destination after it was published whole: what a copy does not carry.
pub(super) fn put_back(record: &TableRecord, now_ms: i64) -> Value {
    let resource = &record.resource;
    let mut change = kept(resource, &CHANGEABLE);
    if let Some(expires) = expiry(resource).filter(|at| *at > now_ms) {
        change.insert("expirationTime".into(), expires.to_string().into());
    }
    if let Some(Value::Object(partitioning)) = resource.get("timePartitioning") {
        // The filter has a field of its own; BigQuery refuses the old place of it beside the new one.
        let mut partitioning = partitioning.clone();
        partitioning.remove("requirePartitionFilter");
        change.insert("timePartitioning".into(), Value::Object(partitioning));
    }
    if needs_filter(resource) {
        change.insert("requirePartitionFilter".into(), true.into());
    }
    Value::Object(change)
}

fn expiry(resource: &Value) -> Option<i64> {
    resource["expirationTime"].as_str()?.parse().ok()
}

/// Whether queries of a table must name its partitions.
pub(super) fn needs_filter(resource: &Value) -> bool {
    let is_true = |value: &Value| value.as_bool() == Some(true);
    is_true(&resource["requirePartitionFilter"])
        || is_true(&resource["timePartitioning"]["requirePartitionFilter"])
}

/// Names what was recorded and is not put back; row access policies are named where they are guarded.
pub(super) fn not_put_back(record: &TableRecord, now_ms: i64) -> Vec<String> {
    let resource = &record.resource;
    let mut named = Vec::new();
    for unread in &record.unreadable {
        named.push(format!("{unread} could not be read at backup, so it is not known"));
    }
    if let Some(at) = expiry(resource).filter(|at| *at <= now_ms) {
        named.push(format!(
            "the expiry of the table lies in the past ({}); the table is made without one",
            crate::summarize::rfc3339(at)
        ));
    }
    let is_known = |field: &&String| {
        let field = field.as_str();
        SHAPE.contains(&field)
            || CHANGEABLE.contains(&field)
            || TOLD.contains(&field)
            || field.starts_with("num")
    };
    let fields = resource.as_object().into_iter().flat_map(Map::keys);
    named.extend(
        fields.filter(|field| !is_known(field)).map(|field| format!("field {field} of the table")),
    );
    named
}

/// The IAM policy to set; `None` where it says nothing. The recorded etag is that of another table.
pub(super) fn policy(recorded: &Value) -> Option<Value> {
    let bindings = recorded.get("bindings")?.as_array()?;
    if bindings.is_empty() {
        return None;
    }
    let mut policy = recorded.clone();
    policy.as_object_mut()?.remove("etag");
    Some(policy)
}

/// Rows that a table resource tells of, those of its streaming buffer included.
pub(super) fn rows(resource: &Value) -> u64 {
    let number =
        |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0);
    number(&resource["numRows"]) + number(&resource["streamingBuffer"]["estimatedRows"])
}

/// Whether rows are still in the streaming buffer of a table.
pub(super) fn has_buffer(resource: &Value) -> bool {
    resource.get("streamingBuffer").is_some_and(|buffer| !buffer.is_null())
}

/// Whether a table has table partitions.
pub(super) fn is_partitioned(resource: &Value) -> bool {
    ["timePartitioning", "rangePartitioning"]
        .iter()
        .any(|field| resource.get(*field).is_some_and(|value| !value.is_null()))
}

/// Whether a row belongs to the table partition of the time it arrived.
pub(super) fn is_by_arrival(resource: &Value) -> bool {
    resource.get("timePartitioning").is_some_and(|partitioning| {
        !partitioning.is_null() && partitioning["field"].as_str().is_none_or(str::is_empty)
    })
}

/// The names of the columns, in order.
pub(super) fn columns(resource: &Value) -> Vec<String> {
    let fields = resource.pointer("/schema/fields").and_then(Value::as_array);
    let name = |field: &Value| field["name"].as_str().map(str::to_owned);
    fields.into_iter().flatten().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TableRecord {
        let resource = json!({
            "id": "p:logs.t", "type": "TABLE", "creationTime": "1", "location": "US", "kind": "bigquery#table",
            "schema": {"fields": [{"name": "ts", "type": "TIMESTAMP", "mode": "REQUIRED"}, {"name": "b", "type": "STRING"}]},
            "timePartitioning": {"type": "DAY", "field": "ts", "expirationMs": "5", "requirePartitionFilter": true},
            "requirePartitionFilter": true, "clustering": {"fields": ["b"]}, "labels": {"a": "b"},
            "description": "logs", "encryptionConfiguration": {"kmsKeyName": "k"}, "expirationTime": "100",
            "externalCatalogTableOptions": {"x": 1},
        });
        TableRecord::new("logs", "t", &resource).unwrap()
    }

    #[test]
    fn staging_keeps_the_shape_and_nothing_that_hides_or_drops_rows() {
        let made = staging(&record(), "r1", 0);
        assert_eq!(made["timePartitioning"], json!({"type": "DAY", "field": "ts"}));
        assert_eq!(made["encryptionConfiguration"]["kmsKeyName"], "k");
        assert_eq!(made["expirationTime"], (7 * DAY_MS).to_string());
        assert!(made.get("requirePartitionFilter").is_none());
        assert_eq!(made["labels"]["rekindle_run"], "r1");
        let mut arrival = record();
        arrival.resource["timePartitioning"] = json!({"type": "DAY"});
        assert!(staging(&arrival, "r1", 0).get("timePartitioning").is_none());
        assert!(is_by_arrival(&arrival.resource) && !is_by_arrival(&record().resource));
    }

    #[test]
    fn the_destination_is_made_with_all_but_the_filter_which_comes_back() {
        let made = destination(&record(), 50);
        assert_eq!(made["timePartitioning"]["expirationMs"], "5");
        assert_eq!(
            (made["description"].clone(), made["expirationTime"].clone()),
            (json!("logs"), json!("100"))
        );
        assert!(made.get("requirePartitionFilter").is_none());
        let mut scratch = made.clone();
        expire_soon(&mut scratch, 50);
        assert_eq!(scratch["expirationTime"], (50 + DAY_MS).to_string());
        let change = put_back(&record(), 50);
        assert_eq!(change["requirePartitionFilter"], true);
        assert!(change["timePartitioning"].get("requirePartitionFilter").is_none());
        assert!(change.get("clustering").is_none() && needs_filter(&record().resource));
    }

    #[test]
    fn what_is_not_put_back_is_named() {
        let mut record = record();
        record.unreadable = vec!["iam_policy".into()];
        let named = not_put_back(&record, 100).join("\n");
        for part in ["iam_policy", "in the past", "externalCatalogTableOptions"] {
            assert!(named.contains(part), "{part} is not in {named}");
        }
        assert!(put_back(&record, 100).get("expirationTime").is_none());
    }

    #[test]
    fn only_tables_of_rows_are_restored() {
        assert!(refuse_kind(&record()).is_ok());
        let mut view = record();
        view.resource["type"] = json!("VIEW");
        assert!(refuse_kind(&view).is_err());
    }

    #[test]
    fn rows_in_the_streaming_buffer_are_rows() {
        let resource = json!({"numRows": "2", "streamingBuffer": {"estimatedRows": "3"}});
        assert_eq!(
            (rows(&resource), has_buffer(&resource), is_partitioned(&resource)),
            (5, true, false)
        );
        assert_eq!(columns(&record().resource), ["ts", "b"]);
        assert_eq!(policy(&json!({"etag": "x", "bindings": []})), None);
        let given = json!({"etag": "x", "version": 1, "bindings": [{"role": "r"}]});
        assert_eq!(policy(&given), Some(json!({"version": 1, "bindings": [{"role": "r"}]})));
    }
}
