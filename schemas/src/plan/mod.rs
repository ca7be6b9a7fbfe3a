//! The plan file: what to rebuild, from where, into which keys.
//!
//! Invariant: a `Plan` is validated; every mistake of a file is reported at once, with its place, and a
//! field whose feature is not built is refused by name, never ignored.

mod address;
mod archive;
mod cluster;
mod columns;
mod definition;
mod drill;
mod duplicate;
mod json_schema;
mod many;
mod mistake;
mod newest;
mod origin;
mod raw;
mod route;
mod sql;
mod stream;
mod substitute;
#[cfg(test)]
mod tests;
mod unrouted;
mod validate;

pub use address::redact_url;
pub use archive::{Archive, ArchivePlace};
pub use cluster::Cluster;
pub use drill::Drill;
pub use duplicate::Duplicate;
pub use json_schema::json_schema;
pub use many::{Many, Order, Score, ScoreUnit};
pub use mistake::{PlanError, PlanErrors};
pub use unrouted::{OWN_KEYS, Unrouted};

use crate::drift::OnDrift;
use crate::json_path::JsonPath;
use crate::key::KeyTemplate;
use std::fmt;
use std::io;
use std::time::Duration;

/// A string that may be a secret (URLs carry passwords). `Debug` and `Display` never show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A validated plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// RTO and RPO of Redis; both default to 24 h.
    pub redis_objective: Objective,
    /// The objective called `bigquery`; RTO and RPO both default to 24 h.
    pub bigquery_objective: Objective,
    /// The objective called `alloydb`, of its own backups; both default to 24 h.
    pub alloydb_objective: Objective,
    /// The `[alloydb]` section: the source.
    pub alloydb: Option<AlloyDb>,
    /// The `[bigquery]` section: the second source, and the target of a restore.
    pub bigquery: Option<BigQuery>,
    /// The Redis target.
    pub redis: Option<Secret>,
    /// The `[redis.duplicate]` section; without it the duplicate of BigQuery lives in the Redis target.
    pub duplicate: Option<Duplicate>,
    /// The `[archive]` section: a third copy of BigQuery, in files.
    pub archive: Option<Archive>,
    /// Routes in file order; names are distinct.
    pub routes: Vec<Route>,
    /// What lives in the Redis target and no route writes; prefixes are distinct.
    pub unrouted: Vec<Unrouted>,
    /// The `[drill]` section: the scratch targets of a restoration test.
    pub drill: Option<Drill>,
}

impl Plan {
    /// Parses and checks the text of a plan file.
    ///
    /// `lookup` answers `${env:NAME}` and `read_file` answers `${file:PATH}`. Returns every mistake at once, or the
    /// syntax errors alone where the file is not TOML. No message holds a substituted value.
    pub fn parse(
        text: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
        read_file: &dyn Fn(&str) -> io::Result<String>,
    ) -> Result<Self, PlanErrors> {
        validate::plan(text, lookup, read_file)
    }

    /// Returns a URL of this plan in a form that may be printed; see [`redact_url`].
    pub fn redacted_url(url: &Secret) -> String {
        redact_url(&url.0)
    }
}

/// Recovery time and recovery point objective of one system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objective {
    /// How long a rebuild may take from the loss.
    pub rto: Duration,
    /// How old the rebuilt data may be.
    pub rpo: Duration,
}

/// The `[alloydb]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlloyDb {
    /// A `postgres://` or `postgresql://` URL.
    pub url: Secret,
    /// How long one snapshot may be held on the source; default 1 h.
    pub snapshot_max: Duration,
    /// The cluster whose backups are looked at, with `backups`.
    pub backups: Option<Cluster>,
}

/// One `[[route]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique name.
    pub name: String,
    /// What it reads.
    pub origin: Origin,
    /// Column to cut views, foreign tables and queries by.
    pub split_by: Option<String>,
    /// SQL condition pushed down to the source.
    pub filter: Option<String>,
    /// Key template.
    pub key: KeyTemplate,
    /// How a row is laid out under its key.
    pub layout: Layout,
    /// Fields to carry; `None` means every column not in the key (and those in the key through a lossy filter).
    pub columns: Option<Vec<FieldSpec>>,
    /// Present where many rows make one key.
    pub many: Option<Many>,
    /// Columns cast to text by the source.
    pub as_text: Vec<String>,
    /// When a key expires.
    pub expiry: Option<Expiry>,
    /// What a null becomes; default `Omit`.
    pub null: NullPolicy,
    /// Two rows, one key. `None` means that uniqueness must be proven by the source.
    pub on_collision: Option<OnCollision>,
    /// The key exists already; default `Replace`.
    pub on_conflict: OnConflict,
    /// Column whose values tell the newer of two rows; with `Newest` only.
    pub version_by: Option<String>,
    /// How far behind the source the route may be when the run ends; with `Newest` only.
    pub catch_up: Option<Duration>,
    /// Lower first; default 100.
    pub priority: u32,
    /// Column that orders partitions newest first.
    pub newest_by: Option<String>,
    /// What a change of the table's shape does; default `Fail`.
    pub on_drift: OnDrift,
    /// Rows that may be rejected before the run counts as failed; default 0 rows.
    pub rejects_max: RejectsMax,
    /// How long files of rejected rows are kept; for good where it is absent.
    pub rejects_keep: Option<Duration>,
    /// What the route is for; default backup for blocks and streams, rebuild for the rest.
    pub uses: Uses,
    /// What a backup needs to know.
    pub backup: Backup,
}

/// The `[bigquery]` section. Credentials are Application Default Credentials, or none where an endpoint is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigQuery {
    /// Project of every table, and the one that pays.
    pub project: String,
    /// Location of jobs; where absent, that of the dataset.
    pub location: Option<String>,
    /// Dataset for query results and for tables being restored.
    pub staging_dataset: Option<String>,
    /// Bytes a query may bill.
    pub max_bytes_billed: Option<u64>,
    /// REST endpoint: `https://` of Google, or that of a stand-in, for example `http://127.0.0.1:9050`.
    pub endpoint: Option<String>,
    /// gRPC endpoint, of the same kind.
    pub grpc_endpoint: Option<String>,
}

/// A system that rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// AlloyDB or PostgreSQL.
    AlloyDb,
    /// BigQuery.
    BigQuery,
}

impl System {
    /// Returns the word of the plan file.
    pub fn word(self) -> &'static str {
        match self {
            Self::AlloyDb => "alloydb",
            Self::BigQuery => "bigquery",
        }
    }
}

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// Redis is rebuilt through it.
    pub rebuild: bool,
    /// BigQuery is duplicated and restored through it.
    pub backup: bool,
}

/// What only backup routes have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Column that tells what is newer than the last backup; unpartitioned tables only.
    pub watermark: Option<String>,
    /// Generations of a table partition kept, the newest one included; at least 1.
    pub keep_versions: u32,
    /// Column whose values tell rows apart, so that a restore can fill a table that has rows.
    pub row_key: Option<String>,
}

impl Default for Backup {
    fn default() -> Self {
        Self { watermark: None, keep_versions: 2, row_key: None }
    }
}

/// What a route reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `alloydb:schema.table`, where the schema defaults to `public`, or `bigquery:dataset.table`.
    Table {
        /// Where it is.
        system: System,
        /// Schema or dataset.
        schema: String,
        /// Table.
        table: String,
    },
    /// `query = "SELECT …"` with `from`.
    Query {
        /// Whom it is asked of.
        system: System,
        /// One SELECT statement.
        sql: String,
    },
}

impl Origin {
    /// Returns the system that is read.
    pub fn system(&self) -> System {
        match self {
            Self::Table { system, .. } | Self::Query { system, .. } => *system,
        }
    }
}

/// How rows are laid out in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hash per row; with `member` one hash of many rows.
    Hash,
    /// One string per row holding one column.
    String,
    /// One string per row holding a JSON object.
    Json,
    /// One document of Redis' JSON module per row.
    RedisJson,
    /// Many rows in one value, columnar and compressed; the key is a prefix.
    Blocks,
    /// One entry of a stream per row: of a rebuild one stream per partition, whose key is a prefix; of a backup the
    /// application names them, and the key may be shared by all rows.
    Stream,
    /// One set of many rows.
    Set,
    /// One sorted set of many rows.
    Zset,
    /// One list of many rows.
    List,
}

/// One entry of `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldSpec {
    /// `"status"` or `{ field = "who", column = "author" }`.
    Column {
        /// Field name in Redis.
        field: String,
        /// Source column.
        column: String,
    },
    /// `{ field = "ref", column = "meta", path = "$.git.ref" }`.
    Path {
        /// Field name in Redis.
        field: String,
        /// Source column, of JSON.
        column: String,
        /// Which part of it.
        path: JsonPath,
    },
    /// `{ field = "v", value = "1" }`.
    Constant {
        /// Field name in Redis.
        field: String,
        /// The value.
        value: String,
    },
}

/// When a key expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// `expire_at = "column"`: an absolute time (timestamptz, timestamp taken as UTC, or date taken as its midnight UTC).
    At {
        /// The column.
        column: String,
    },
    /// `ttl = "30d"` with `ttl_from = "column"`: that long after the column's time.
    After {
        /// The column.
        column: String,
        /// The time to live.
        ttl: Duration,
    },
}

impl Expiry {
    /// Returns the column that the expiry is computed from.
    pub fn column(&self) -> &str {
        match self {
            Self::At { column } | Self::After { column, .. } => column,
        }
    }
}

/// What a null column becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullPolicy {
    /// The field is left out.
    Omit,
    /// Hash and string: an empty string; JSON: `null`.
    Empty,
    /// The row is rejected.
    Error,
}

/// Two rows render to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnCollision {
    /// Checked before the first write; any collision stops the run.
    Error,
    /// The row that is last by `order_by` wins.
    Last {
        /// The ordering column.
        order_by: String,
    },
}

/// The key exists in Redis already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Exactly this row is left under the key.
    Replace,
    /// The existing key is left alone.
    Keep,
    /// The existing key is left alone where it holds a newer version by `version_by`.
    Newest,
}

/// `rejects_max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RejectsMax {
    /// At most this many rows.
    Rows(u64),
    /// At most this share of the rows read, 0 to 100.
    Percent(f64),
}
