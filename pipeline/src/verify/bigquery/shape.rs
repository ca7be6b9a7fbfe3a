//! Whether the columns of a table can still be compared with those that were copied. Pure.
//!
//! Invariant: columns that came later are left out of the comparison; a column that is gone or holds something else
//! makes it impossible, and is named.

use serde_json::Value;

/// Which columns of the table are compared with a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Columns {
    /// All of them.
    All,
    /// Those that were there when it was copied, by name.
    Only(Vec<String>),
}

/// Compares the columns of two table resources: as recorded, and as they are now. The error names a column.
pub(super) fn columns_of(recorded: &Value, now: &Value) -> Result<Columns, String> {
    let (recorded, now) = (fields(recorded), fields(now));
    for field in recorded {
        let name = field["name"].as_str().unwrap_or_default();
        let Some(found) = named(now, name) else {
            return Err(format!("column {name} is gone"));
        };
        if !is_same(field, found) {
            return Err(format!("column {name} has another type now"));
        }
    }
    if recorded.is_empty() || recorded.len() == now.len() {
        return Ok(Columns::All);
    }
    let names = recorded.iter().filter_map(|field| field["name"].as_str());
    Ok(Columns::Only(names.map(str::to_owned).collect()))
}

fn fields(resource: &Value) -> &[Value] {
    resource.pointer("/schema/fields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn named<'a>(fields: &'a [Value], name: &str) -> Option<&'a Value> {
    fields
        .iter()
        .find(|field| field["name"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)))
}

/// Whether two columns hold the same: a column may have become nullable meanwhile, its rows have not.
fn is_same(before: &Value, now: &Value) -> bool {
    let members = |field: &Value| field["fields"].as_array().cloned().unwrap_or_default();
    let (before_members, now_members) = (members(before), members(now));
    type_of(before) == type_of(now)
        && (before["mode"] == "REPEATED") == (now["mode"] == "REPEATED")
        && before["rangeElementType"] == now["rangeElementType"]
        && before_members.len() == now_members.len()
        && before_members
            .iter()
            .zip(&now_members)
            .all(|(before, now)| before["name"] == now["name"] && is_same(before, now))
}

/// The type under one of its names.
fn type_of(field: &Value) -> &str {
    match field["type"].as_str().unwrap_or_default() {
        "INTEGER" => "INT64",
        "FLOAT" => "FLOAT64",
        "BOOLEAN" => "BOOL",
        "STRUCT" => "RECORD",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(fields: &Value) -> Value {
        json!({"schema": {"fields": fields}})
    }

    #[test]
    fn what_came_later_is_left_out_and_what_is_gone_is_named() {
        let before = table(&json!([{"name": "id", "type": "INTEGER", "mode": "REQUIRED"}]));
        let same = table(&json!([{"name": "ID", "type": "INT64"}]));
        assert_eq!(columns_of(&before, &same), Ok(Columns::All));
        let more =
            table(&json!([{"name": "x", "type": "STRING"}, {"name": "id", "type": "INT64"}]));
        assert_eq!(columns_of(&before, &more), Ok(Columns::Only(vec!["id".to_owned()])));
        let other = table(&json!([{"name": "id", "type": "STRING"}]));
        assert!(columns_of(&before, &other).unwrap_err().contains("column id has another type"));
        assert!(columns_of(&more, &before).unwrap_err().contains("column x is gone"));
    }

    #[test]
    fn a_member_that_came_later_makes_its_column_another_one() {
        let nested =
            |fields: Value| table(&json!([{"name": "r", "type": "RECORD", "fields": fields}]));
        let before = nested(json!([{"name": "a", "type": "STRING"}]));
        let now = nested(json!([{"name": "a", "type": "STRING"}, {"name": "b", "type": "STRING"}]));
        assert!(columns_of(&before, &now).unwrap_err().contains("column r"));
        assert_eq!(columns_of(&before, &before), Ok(Columns::All));
    }
}
