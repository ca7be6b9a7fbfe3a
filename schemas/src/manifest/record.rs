//! A recorded table: what BigQuery says of it, because after the disaster it says it nowhere else.
//!
//! Invariant: the key of a record is the hash of its text, so it cannot change under its name; what moves by itself
//! (row counts, etags, times of modification) is not in it.

use super::{FORMAT, ManifestError, know_format, text};
use crate::seal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

/// Fields of a table resource that change without anyone changing the table.
const MOVING: [&str; 12] = [
    "etag",
    "lastModifiedTime",
    "numBytes",
    "numLongTermBytes",
    "numRows",
    "numPartitions",
    "numTimeTravelPhysicalBytes",
    "numTotalLogicalBytes",
    "numTotalPhysicalBytes",
    "numActiveLogicalBytes",
    "streamingBuffer",
    "selfLink",
];
/// Prefixes of newer counters of the same kind.
const MOVING_PREFIXES: [&str; 4] = ["numActive", "numLongTerm", "numTotal", "numCurrent"];

/// What was recorded of a table, under the hash of its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// `dataset.table`.
    pub table: String,
    /// `id` of the table resource.
    pub table_id: String,
    /// `creationTime`, milliseconds since 1970.
    pub table_created_ms: i64,
    /// Location of the dataset.
    pub location: Option<String>,
    /// Name of the customer-managed encryption key.
    pub kms_key_name: Option<String>,
    /// The table resource as `tables.get` returns it, without what moves by itself.
    pub resource: Value,
    /// The IAM policy of the table, where it can be read.
    pub iam_policy: Option<Value>,
    /// The row access policies of the table, where they can be read.
    pub row_access_policies: Option<Value>,
    /// What could not be read, by name: `iam_policy`, `row_access_policies`.
    pub unreadable: Vec<String>,
}

impl TableRecord {
    /// Takes a table resource; `None` when it lacks what every table resource has.
    pub fn new(dataset: &str, table: &str, resource: &Value) -> Option<Self> {
        let mut kept = resource.clone();
        kept.as_object_mut()?.retain(|field, _| !is_moving(field));
        Some(Self {
            format: FORMAT,
            table: format!("{dataset}.{table}"),
            table_id: resource["id"].as_str()?.to_owned(),
            table_created_ms: millis(&resource["creationTime"])?,
            location: resource["location"].as_str().map(str::to_owned),
            kms_key_name: resource["encryptionConfiguration"]["kmsKeyName"]
                .as_str()
                .map(str::to_owned),
            resource: kept,
            iam_policy: None,
            row_access_policies: None,
            unreadable: Vec::new(),
        })
    }

    /// Returns the text to store and the hash that names it.
    pub fn to_json(&self) -> (Vec<u8>, u128) {
        let text = text(self);
        let hash = xxh3_128(&text);
        (text, hash)
    }

    /// Reads what is stored under a hash of 32 hex digits.
    pub fn parse(stored: &[u8], schema_hash: &str) -> Result<Self, ManifestError> {
        let document = format!("the recorded table {schema_hash}");
        if stored.starts_with(&seal::MAGIC) {
            let reason = "its seal does not open".to_owned();
            return Err(ManifestError::Altered { document, reason });
        }
        if format!("{:032x}", xxh3_128(stored)) != schema_hash {
            return Err(ManifestError::Altered {
                document,
                reason: "it does not match the hash in its key".to_owned(),
            });
        }
        know_format(stored, &document)?;
        serde_json::from_slice(stored)
            .map_err(|error| ManifestError::Altered { document, reason: error.to_string() })
    }
}

fn is_moving(field: &str) -> bool {
    MOVING.contains(&field) || MOVING_PREFIXES.iter().any(|prefix| field.starts_with(prefix))
}

/// REST sends 64-bit numbers as strings.
fn millis(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}
