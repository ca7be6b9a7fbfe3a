//! BigQuery's types, as the REST schema of a table names them.
//!
//! Invariant: a type or an attribute that would change what a value means is refused by name, at any depth.

use super::ColumnType;
use serde_json::Value;

impl ColumnType {
    /// Returns the column type of a field of a table's REST schema; the error names the type that is not carried.
    pub fn of_bigquery(field: &Value) -> Result<Self, String> {
        let text = |name: &str| field.get(name).and_then(Value::as_str).unwrap_or_default();
        let scalar = match text("type").to_ascii_uppercase().as_str() {
            "RECORD" | "STRUCT" => Self::Struct(members(field)?),
            "RANGE" => {
                let element = field.pointer("/rangeElementType/type").and_then(Value::as_str);
                match of_name(element.unwrap_or_default()) {
                    Some(element @ (Self::Date | Self::Timestamp | Self::TimestampTz)) => {
                        Self::Range(Box::new(element))
                    }
                    _ => return Err(format!("RANGE<{}>", element.unwrap_or_default())),
                }
            }
            name => of_name(name).ok_or_else(|| name.to_owned())?,
        };
        // TIMESTAMP(12) holds picoseconds, which microseconds would cut off.
        if let Some(precision) = precision(field).filter(|precision| *precision != 6) {
            return Err(format!("TIMESTAMP({precision})"));
        }
        if text("mode").eq_ignore_ascii_case("REPEATED") {
            return Ok(Self::Array(Box::new(scalar)));
        }
        Ok(scalar)
    }
}

/// REST sends 64-bit numbers as strings.
fn precision(field: &Value) -> Option<i64> {
    let precision = field.get("timestampPrecision")?;
    precision.as_i64().or_else(|| precision.as_str()?.parse().ok())
}

fn members(field: &Value) -> Result<Vec<(String, ColumnType)>, String> {
    let fields = field.get("fields").and_then(Value::as_array).map(Vec::as_slice);
    fields
        .unwrap_or_default()
        .iter()
        .map(|member| {
            let name = member.get("name").and_then(Value::as_str).unwrap_or_default();
            let column_type = ColumnType::of_bigquery(member)
                .map_err(|refused| format!("STRUCT with {name} {refused}"))?;
            Ok((name.to_owned(), column_type))
        })
        .collect()
}

/// Names of the REST schema, legacy ones included.
fn of_name(name: &str) -> Option<ColumnType> {
    Some(match name {
        "STRING" | "GEOGRAPHY" => ColumnType::Text,
        "BYTES" => ColumnType::Bytes,
        "INTEGER" | "INT64" => ColumnType::Int8,
        "FLOAT" | "FLOAT64" => ColumnType::Float8,
        "NUMERIC" | "DECIMAL" => ColumnType::Decimal128,
        "BIGNUMERIC" | "BIGDECIMAL" => ColumnType::Decimal256,
        "BOOLEAN" | "BOOL" => ColumnType::Bool,
        "DATE" => ColumnType::Date,
        "TIME" => ColumnType::Time,
        "DATETIME" => ColumnType::Timestamp,
        "TIMESTAMP" => ColumnType::TimestampTz,
        "JSON" => ColumnType::Json,
        "INTERVAL" => ColumnType::Interval,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(field: &Value) -> Result<String, String> {
        ColumnType::of_bigquery(field).map(|column_type| column_type.name())
    }

    #[test]
    fn every_documented_type_has_a_column_type() {
        for (type_name, expected) in [
            ("STRING", "text"),
            ("GEOGRAPHY", "text"),
            ("BYTES", "bytes"),
            ("INTEGER", "int8"),
            ("FLOAT64", "float8"),
            ("NUMERIC", "numeric(38,9)"),
            ("BIGNUMERIC", "bignumeric"),
            ("BOOLEAN", "bool"),
            ("DATE", "date"),
            ("TIME", "time"),
            ("DATETIME", "timestamp"),
            ("TIMESTAMP", "timestamptz"),
            ("JSON", "json"),
            ("INTERVAL", "interval"),
        ] {
            assert_eq!(name(&json!({"type": type_name})).unwrap(), expected, "{type_name}");
            let repeated = json!({"type": type_name, "mode": "REPEATED"});
            assert_eq!(name(&repeated).unwrap(), format!("{expected}[]"), "{type_name}");
        }
    }

    #[test]
    fn nested_types_go_to_any_depth() {
        let inner = json!({"name": "r", "type": "RANGE", "rangeElementType": {"type": "DATE"}});
        let middle = json!({"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": [inner]});
        let outer = json!({"type": "STRUCT", "fields": [{"name": "a", "type": "INT64"}, middle]});
        assert_eq!(name(&outer).unwrap(), "struct<a int8, m struct<r range<date>>[]>");
    }

    #[test]
    fn unknown_types_are_refused_by_name() {
        assert_eq!(name(&json!({"type": "FUTURE"})).unwrap_err(), "FUTURE");
        let nested = json!({"type": "RECORD", "fields": [{"name": "x", "type": "FUTURE"}]});
        assert_eq!(name(&nested).unwrap_err(), "STRUCT with x FUTURE");
        let pico = json!({"type": "TIMESTAMP", "timestampPrecision": "12"});
        assert_eq!(name(&pico).unwrap_err(), "TIMESTAMP(12)");
        let range = json!({"type": "RANGE", "rangeElementType": {"type": "INT64"}});
        assert_eq!(name(&range).unwrap_err(), "RANGE<INT64>");
    }
}
