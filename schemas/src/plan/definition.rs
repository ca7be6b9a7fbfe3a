//! The canonical text of a route and the fingerprint of a plan.
//!
//! Invariant: the text changes exactly when what is written to Redis may change, and holds no address or credential.
//! The fingerprint does not depend on the order of the routes. A change of this format voids unfinished runs.

use super::{
    Expiry, FieldSpec, Layout, Many, NullPolicy, OnCollision, OnConflict, Order, Origin, Plan,
    Route, Score, System,
};
use crate::duration;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

/// First line of what is hashed; counts changes of the format.
const FORMAT: &str = "rekindle plan 1";

impl Plan {
    /// Returns 32 hex digits over the definitions of all routes, for recognising a changed plan at resume.
    pub fn fingerprint(&self) -> String {
        let mut definitions: Vec<String> = self.routes.iter().map(Route::definition).collect();
        definitions.sort();
        let text = format!("{FORMAT}\n{}", definitions.join("\n"));
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }
}

impl Route {
    /// Returns everything that affects what this route writes, one `field = value` line each, in a fixed order.
    ///
    /// `priority`, `newest_by`, `catch_up`, `on_drift`, `rejects_max` and `rejects_keep` are left out: they may change between attempts.
    pub fn definition(&self) -> String {
        let lines = [
            ("name", quoted(&self.name)),
            ("origin", origin(&self.origin)),
            ("split_by", optional(self.split_by.as_deref())),
            ("where", optional(self.filter.as_deref())),
            ("key", quoted(self.key.text())),
            ("type", self.layout.word().to_owned()),
            ("columns", columns(self.columns.as_deref())),
            ("as_text", as_text(&self.as_text)),
            ("expiry", expiry(self.expiry.as_ref())),
            ("null", self.null.word().to_owned()),
            ("on_collision", on_collision(self.on_collision.as_ref())),
            ("on_conflict", on_conflict(self)),
        ];
        let many = self.many.as_ref().map(many).unwrap_or_default();
        lines.map(|(field, value)| format!("{field} = {value}\n")).concat() + &many
    }
}

impl Layout {
    /// Returns the word of the plan file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::String => "string",
            Self::Json => "json",
            Self::RedisJson => "redisjson",
            Self::Blocks => "blocks",
            Self::Stream => "stream",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::List => "list",
        }
    }
}

impl NullPolicy {
    /// Returns the word of the plan file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Omit => "omit",
            Self::Empty => "empty",
            Self::Error => "error",
        }
    }
}

impl OnConflict {
    /// Returns the word of the plan file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Newest => "newest",
        }
    }
}

/// The lines of a route of many rows per key; every other route has none of them.
fn many(many: &Many) -> String {
    let member = format!("member = {}\n", quoted(many.member.text()));
    let score = many.score.as_ref().map(|Score { column, unit }| {
        let unit = unit.map_or_else(String::new, |unit| format!(" in {}", unit.word()));
        format!("score = {}{unit}\n", quoted(column))
    });
    let order = many.order.as_ref().map(|Order { column, is_descending }| {
        let direction = if *is_descending { " descending" } else { "" };
        format!("order_by = {}{direction}\n", quoted(column))
    });
    [member, score.unwrap_or_default(), order.unwrap_or_default()].concat()
}

/// Quotes as JSON, whose escapes are fixed by a standard and leave no newline.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), quoted)
}

fn prefix(system: System) -> &'static str {
    match system {
        System::AlloyDb => "",
        System::BigQuery => "bigquery ",
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Table { system, schema, table } => {
            format!("{}table {}.{}", prefix(*system), quoted(schema), quoted(table))
        }
        Origin::Query { system, sql } => format!("{}query {}", prefix(*system), quoted(sql)),
    }
}

fn columns(columns: Option<&[FieldSpec]>) -> String {
    let Some(columns) = columns else { return "every column not in the key".to_owned() };
    let fields: Vec<String> = columns
        .iter()
        .map(|spec| match spec {
            FieldSpec::Column { field, column } => {
                format!("{} from column {}", quoted(field), quoted(column))
            }
            FieldSpec::Path { field, column, path } => {
                let path = path.to_string();
                format!("{} from {} of column {}", quoted(field), quoted(&path), quoted(column))
            }
            FieldSpec::Constant { field, value } => {
                format!("{} is {}", quoted(field), quoted(value))
            }
        })
        .collect();
    fields.join(", ")
}

/// Sorted, because the order of these columns changes nothing.
fn as_text(columns: &[String]) -> String {
    let mut names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn expiry(expiry: Option<&Expiry>) -> String {
    match expiry {
        None => "none".to_owned(),
        Some(Expiry::At { column }) => format!("at {}", quoted(column)),
        Some(Expiry::After { column, ttl }) => {
            format!("{} after {}", duration::format(*ttl), quoted(column))
        }
    }
}

fn on_collision(on_collision: Option<&OnCollision>) -> String {
    match on_collision {
        None => "none".to_owned(),
        Some(OnCollision::Error) => "error".to_owned(),
        Some(OnCollision::Last { order_by }) => format!("last by {}", quoted(order_by)),
    }
}

fn on_conflict(route: &Route) -> String {
    let word = route.on_conflict.word();
    match &route.version_by {
        Some(column) => format!("{word} by {}", quoted(column)),
        None => word.to_owned(),
    }
}
