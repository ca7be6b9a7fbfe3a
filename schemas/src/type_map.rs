//! The one type table: type of PostgreSQL or BigQuery -> arrow type, and what is refused.
//!
//! Invariant: a type that is not in the table is never guessed; it is refused by name or carried `as_text`.
//! The table with its text and JSON forms is documented in `schemas/TYPES.md`.

mod bigquery;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use std::sync::Arc;

/// The type of a table column as rekindle carries it.
///
/// Each variant names how the value arrives in PostgreSQL's binary format
/// (`src/backend/utils/adt/*_send` functions) and which arrow array holds it. BigQuery sends the arrow arrays
/// themselves; `ColumnType::of_bigquery` tells which of its types is which variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `bool`: one byte; arrow `Boolean`.
    Bool,
    /// `int2`: big-endian; arrow `Int16`.
    Int2,
    /// `int4`: big-endian; arrow `Int32`.
    Int4,
    /// `int8`: big-endian; arrow `Int64`.
    Int8,
    /// `float4`: IEEE 754 big-endian; arrow `Float32`.
    Float4,
    /// `float8`: IEEE 754 big-endian; arrow `Float64`.
    Float8,
    /// `numeric`: base-10000 digits with a display scale; arrow `Utf8` holding PostgreSQL's own text
    /// (`1.10` keeps its scale; `NaN`, `Infinity`, `-Infinity`), because no arrow decimal covers the range.
    Numeric,
    /// `text`, `varchar`, `bpchar`, `name`, `citext`, enums, and any type carried by `as_text`; arrow `Utf8`.
    Text,
    /// `bytea`; arrow `Binary`.
    Bytea,
    /// `uuid`: 16 bytes; arrow `FixedSizeBinary(16)`.
    Uuid,
    /// `date`: days since 2000-01-01, big-endian i32; arrow `Date32` (days since 1970-01-01).
    Date,
    /// `time`: microseconds since midnight, big-endian i64; arrow `Time64(us)`.
    Time,
    /// `timestamp`: microseconds since 2000-01-01; arrow `Timestamp(us)` since 1970-01-01.
    Timestamp,
    /// `timestamptz`: as `Timestamp`, in UTC; arrow `Timestamp(us, "UTC")`.
    TimestampTz,
    /// `json`: the text as stored; arrow `Utf8`.
    Json,
    /// `jsonb`: a version byte (1) and the text; arrow `Utf8`.
    Jsonb,
    /// A one-dimensional array of one of the above (never of an array); arrow `List`.
    Array(Box<ColumnType>),
    /// `inet` and `cidr`: family, bits, flag, length and address bytes; arrow `Utf8` holding PostgreSQL's own text.
    Inet,
    /// A type that travels as the text PostgreSQL prints of it under the settings of the session, and whose
    /// text gives the value back; holds the type's name. Arrow `Utf8`.
    Printed(String),
    /// BigQuery's `BYTES`: as `Bytea`, with another text; arrow `Binary`.
    Bytes,
    /// BigQuery's `NUMERIC`; arrow `Decimal128(38, 9)`.
    Decimal128,
    /// BigQuery's `BIGNUMERIC`; arrow `Decimal256(76, 38)`.
    Decimal256,
    /// BigQuery's `INTERVAL`; arrow `Interval(MonthDayNano)`.
    Interval,
    /// BigQuery's `RANGE` of dates or times; arrow `Struct` of `start` and `end`, null where unbounded.
    Range(Box<ColumnType>),
    /// BigQuery's `STRUCT`: names and types in declared order; arrow `Struct`.
    Struct(Vec<(String, ColumnType)>),
}

/// What `ColumnType::of_postgres` needs to know of a PostgreSQL type, read from `pg_type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    /// Type name without its schema, for example `int8` or `_int8`.
    pub name: String,
    /// Schema of the type, for example `pg_catalog`.
    pub schema: String,
    /// `pg_type.typtype`: `b` base, `e` enum, `c` composite, `d` domain, `r` range, `m` multirange, `p` pseudo.
    pub kind: char,
    /// The extension that made the type, if one did.
    pub extension: Option<String>,
    /// What the type is made of: the elements of a true array (`typelem` with `typcategory = 'A'`), the base of a
    /// domain, the subtype of a range, the range of a multirange.
    pub inner: Option<Box<PgType>>,
}

/// Types of `pg_catalog` that are carried as [`ColumnType::Printed`]. Left out are those whose text depends on
/// more than the value: `money` (locale), `regclass` and its like (names and search path).
const PRINTED: &[&str] = &[
    "interval",
    "timetz",
    "bit",
    "varbit",
    "macaddr",
    "macaddr8",
    "xml",
    "char",
    "oid",
    "xid",
    "xid8",
    "cid",
    "tid",
    "pg_lsn",
    "pg_snapshot",
    "txid_snapshot",
    "int2vector",
    "oidvector",
    "tsvector",
    "tsquery",
    "jsonpath",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
];

impl ColumnType {
    /// Returns the column type for a PostgreSQL type, or `None` when it is not carried.
    pub fn of_postgres(pg_type: &PgType) -> Option<Self> {
        let is_builtin = pg_type.schema == "pg_catalog";
        let name = pg_type.name.as_str();
        match (pg_type.kind, &pg_type.inner) {
            ('e', _) => return Some(Self::Text),
            ('d', Some(base)) => return Self::of_postgres(base),
            // A range prints its ends, so it is carried where they are.
            ('r' | 'm', Some(inner)) => {
                return Self::of_postgres(inner).map(|_| Self::Printed(name.to_owned()));
            }
            // These have elements as an array does, but begin at index 0.
            ('b', Some(_)) if is_builtin && matches!(name, "int2vector" | "oidvector") => {}
            ('b', Some(element)) => {
                return match Self::of_postgres(element)? {
                    Self::Array(_) => None,
                    scalar => Some(Self::Array(Box::new(scalar))),
                };
            }
            ('b', None) if name == "citext" && pg_type.extension.as_deref() == Some("citext") => {
                return Some(Self::Text);
            }
            ('b', None) if is_builtin => {}
            _ => return None,
        }
        Some(match name {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "numeric" => Self::Numeric,
            "text" | "varchar" | "bpchar" | "name" => Self::Text,
            "bytea" => Self::Bytea,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::TimestampTz,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "inet" | "cidr" => Self::Inet,
            _ if PRINTED.contains(&name) => Self::Printed(name.to_owned()),
            _ => return None,
        })
    }

    /// Returns the type that PostgreSQL has to cast a column to before it sends it, or `None` where it sends the
    /// column's own.
    pub fn cast(&self) -> Option<&'static str> {
        match self {
            Self::Printed(_) => Some("text"),
            Self::Array(element) if matches!(**element, Self::Printed(_)) => Some("text[]"),
            _ => None,
        }
    }

    /// Returns the arrow type that holds this column.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric
            | Self::Text
            | Self::Json
            | Self::Jsonb
            | Self::Inet
            | Self::Printed(_) => DataType::Utf8,
            Self::Bytea | Self::Bytes => DataType::Binary,
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Array(element) => {
                DataType::List(Arc::new(Field::new("item", element.arrow(), true)))
            }
            Self::Decimal128 => DataType::Decimal128(38, 9),
            Self::Decimal256 => DataType::Decimal256(76, 38),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Range(element) => {
                let end = |name: &str| Field::new(name, element.arrow(), true);
                DataType::Struct(vec![end("start"), end("end")].into())
            }
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect(),
            ),
        }
    }

    /// Returns the name used in fingerprints, messages and the documentation, for example `timestamptz` or `int8[]`.
    pub fn name(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int2 => "int2".into(),
            Self::Int4 => "int4".into(),
            Self::Int8 => "int8".into(),
            Self::Float4 => "float4".into(),
            Self::Float8 => "float8".into(),
            Self::Numeric => "numeric".into(),
            Self::Text => "text".into(),
            Self::Bytea => "bytea".into(),
            Self::Uuid => "uuid".into(),
            Self::Date => "date".into(),
            Self::Time => "time".into(),
            Self::Timestamp => "timestamp".into(),
            Self::TimestampTz => "timestamptz".into(),
            Self::Json => "json".into(),
            Self::Jsonb => "jsonb".into(),
            Self::Array(element) => format!("{}[]", element.name()),
            Self::Inet => "inet".into(),
            Self::Printed(name) => name.clone(),
            Self::Bytes => "bytes".into(),
            Self::Decimal128 => "numeric(38,9)".into(),
            Self::Decimal256 => "bignumeric".into(),
            Self::Interval => "interval".into(),
            Self::Range(element) => format!("range<{}>", element.name()),
            Self::Struct(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, kind)| format!("{name} {}", kind.name())).collect();
                format!("struct<{}>", fields.join(", "))
            }
        }
    }
}
