//! One way to write a JSON value, so that equal values have equal bytes.
//!
//! Invariant: members stand in the order of their names' bytes, without white space; numbers and strings are written as
//! `serde_json` does. For names in ASCII this is the order of RFC 8785.

use serde_json::{Map, Value};

/// Writes a value canonically.
pub fn canonical(value: &Value) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            // The map keeps the order of insertion.
            let members = names.into_iter().map(|name| (name.clone(), sorted(&members[name])));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(sorted).collect()),
        plain => plain.clone(),
    }
}
