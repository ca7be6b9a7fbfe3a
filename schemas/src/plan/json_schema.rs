//! The plan file as a JSON Schema (draft 2020-12), for editors and other programs.
//!
//! Invariant: which fields there are comes from the lists that the parser itself asks; a plan that parses is valid. What
//! spans fields or needs a system is checked by the parser alone: a plan that is valid may still have mistakes.

use super::newest::CONFLICTS;
use super::raw::Fields;
use super::route::{
    DRIFTS, KEEP_VERSIONS_MAX, LAYOUTS, NAME_LENGTH_MAX, NULLS, PRIORITY_MAX, ROW_FIELDS,
};
use super::stream::REBUILT_FIELDS;
use super::{archive, cluster, columns, drill, duplicate, origin, route, unrouted, validate};
use serde_json::{Map, Value, json};

/// Returns the schema.
pub fn json_schema() -> Value {
    let mut schema = table(&validate::SECTIONS, &["redis", "route"], section);
    let more = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rekindle plan",
        "description": "The plan file of rekindle. `rekindle plan` checks more than this schema can say.",
        "allOf": [needs_alloydb(), needs_bigquery()],
        "$defs": {
            "text": {"type": "string", "minLength": 1},
            "substituted": {
                "description": "A string that is, or has in it, ${env:NAME} or ${file:PATH}.",
                "type": "string",
                "pattern": "\\$\\{(env|file):[^}]+\\}",
            },
        },
    });
    extend(&mut schema, more);
    schema
}

/// A table of the file: its fields and no others; those that are not built are known and refused.
fn table(fields: &Fields, required: &[&str], form: fn(&str) -> Value) -> Value {
    let built = fields.built.iter().map(|name| ((*name).to_owned(), form(name)));
    let refused = fields.refused.iter().map(|name| {
        let refusal = json!({"description": "Not built yet: refused.", "not": {}});
        ((*name).to_owned(), refusal)
    });
    let properties: Map<String, Value> = built.chain(refused).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

fn with(mut schema: Value, more: Value) -> Value {
    extend(&mut schema, more);
    schema
}

fn text(description: &str) -> Value {
    json!({"description": description, "$ref": "#/$defs/text"})
}

fn substituted() -> Value {
    json!({"$ref": "#/$defs/substituted"})
}

/// A string of a form, or one whose value comes from outside the file.
fn formed(description: &str, pattern: &str) -> Value {
    let form = json!({"type": "string", "pattern": pattern});
    json!({"description": description, "anyOf": [form, substituted()]})
}

fn duration(description: &str) -> Value {
    formed(description, "^[0-9]+[smhd]$")
}

/// A key, 64 hexadecimal digits, as a file that is read for it may end with a line.
fn encrypt_key(description: &str) -> Value {
    formed(description, r"^\s*[0-9A-Fa-f]{64}\s*$")
}

fn words(description: &str, words: &[&str]) -> Value {
    json!({"description": description, "anyOf": [{"enum": words}, substituted()]})
}

fn names<T>(choices: &[(&'static str, T)]) -> Vec<&'static str> {
    choices.iter().map(|(name, _)| *name).collect()
}

fn count(description: &str, (least, most): (u64, u64)) -> Value {
    json!({"description": description, "type": "integer", "minimum": least, "maximum": most})
}

fn list(description: &str, item: &Value) -> Value {
    json!({"description": description, "type": "array", "items": item})
}

/// A field without a form, which the tests do not let pass.
fn formless() -> Value {
    Value::Bool(true)
}

fn section(name: &str) -> Value {
    match name {
        "objectives" => table(&validate::OBJECTIVES, &[], |_| {
            table(&validate::OBJECTIVE, &[], |name| match name {
                "rto" => duration("How long a recovery may take; 24h by default."),
                "rpo" => duration("How old the recovered data may be; 24h by default."),
                _ => formless(),
            })
        }),
        "alloydb" => with(
            table(&validate::ALLOYDB, &["url"], alloydb),
            json!({"dependentRequired": {"backups_endpoint": ["backups"]}}),
        ),
        "bigquery" => with(
            table(&validate::BIGQUERY, &["project"], bigquery),
            json!({"dependentRequired": {"endpoint": ["grpc_endpoint"], "grpc_endpoint": ["endpoint"]}}),
        ),
        "redis" => table(&validate::REDIS, &["url"], |name| match name {
            "url" => redis_url(),
            "duplicate" => with(
                table(&duplicate::FIELDS, &["url"], |name| match name {
                    "url" => redis_url(),
                    "allow_eviction" => json!({
                        "description": "Takes a server that may evict the duplicate; false by default.",
                        "type": "boolean",
                    }),
                    "encrypt_key" => encrypt_key("The key that the duplicate is sealed with."),
                    "old_keys" => list(
                        "Keys that open what was sealed before a rotation.",
                        &encrypt_key("A former encrypt_key."),
                    ),
                    _ => formless(),
                }),
                json!({"dependentRequired": {"old_keys": ["encrypt_key"]}}),
            ),
            _ => formless(),
        }),
        "archive" => table(&archive::FIELDS, &["url"], |name| match name {
            "url" => formed("file:///FOLDER or gs://BUCKET/PREFIX", archive::URL_PATTERN),
            "endpoint" => formed("A stand-in for Cloud Storage, gs:// only.", "^https?://"),
            "encrypt_key" => encrypt_key("The key that files of rows are encrypted with."),
            _ => formless(),
        }),
        "route" => {
            let routes = list("One table or query and the keys made from it.", &one_route());
            with(routes, json!({"minItems": 1}))
        }
        "drill" => with(
            table(&drill::FIELDS, &[], |name| match name {
                "redis" => redis_url(),
                "dataset" => formed("A dataset that a drill may empty.", drill::DATASET_PATTERN),
                _ => formless(),
            }),
            json!({"anyOf": [{"required": ["redis"]}, {"required": ["dataset"]}]}),
        ),
        "unrouted" => {
            let entry = table(&unrouted::FIELDS, unrouted::FIELDS.built, |name| match name {
                "prefix" => text("What the keys begin with."),
                "owner" => text("Whom to ask."),
                "comes_back" => text("How the keys come back after a loss."),
                _ => formless(),
            });
            list("Keys in Redis that no route writes.", &entry)
        }
        _ => formless(),
    }
}

fn alloydb(name: &str) -> Value {
    match name {
        "url" => formed("A URL of one host.", "^postgres(ql)?://"),
        "snapshot_max" => {
            duration("How long one snapshot may be held on the source; 1h by default.")
        }
        "backups" => formed("The cluster whose backups are looked at.", cluster::PATTERN),
        "backups_endpoint" => formed(
            "Admin API: https:// of Google (a private one), http:// of a stand-in.",
            "^https?://",
        ),
        _ => formless(),
    }
}

fn redis_url() -> Value {
    formed("redis://user:password@host:port/database", "^rediss?://")
}

fn bigquery(name: &str) -> Value {
    match name {
        "project" => text("Project of every table, and the one that pays."),
        "location" => text("Location of jobs; that of the dataset by default."),
        "staging_dataset" => text("Dataset for results of queries and for tables being restored."),
        "endpoint" => formed(
            "REST endpoint: https:// of Google (a private one), http:// of a stand-in.",
            "^https?://",
        ),
        "grpc_endpoint" => formed("gRPC endpoint, of the same kind.", "^https?://"),
        "max_bytes_billed" => count("Bytes a query may bill.", (0, i64::MAX.unsigned_abs())),
        _ => formless(),
    }
}

/// One `[[route]]` with the rules that a schema can say.
fn one_route() -> Value {
    let absent = |field: &str| json!({"not": {"required": [field]}});
    let is_type =
        |word: &str| json!({"properties": {"type": {"const": word}}, "required": ["type"]});
    let newest = json!({
        "required": ["on_conflict", "version_by"],
        "properties": {"on_conflict": {"not": {"enum": ["replace", "keep"]}}},
    });
    let is_one_of =
        |words: &[&str]| json!({"properties": {"type": {"enum": words}}, "required": ["type"]});
    let rules = json!({
        "oneOf": [
            {"required": ["table"], "allOf": [absent("query"), absent("from")]},
            {"required": ["query", "from"], "allOf": [absent("table")]},
        ],
        "dependentRequired": {"ttl": ["ttl_from"], "ttl_from": ["ttl"]},
        "dependentSchemas": {
            "expire_at": {"allOf": [absent("ttl"), absent("ttl_from")]},
            "version_by": newest,
            "catch_up": newest,
        },
        "allOf": [
            {
                "if": {"properties": {"on_collision": {"const": "last"}}, "required": ["on_collision"]},
                "then": {"required": ["order_by"]},
            },
            {
                "if": {"properties": {"on_collision": {"const": "error"}}, "required": ["on_collision"]},
                "then": absent("order_by"),
            },
            {
                "if": {"properties": {"on_conflict": {"const": "newest"}}, "required": ["on_conflict"]},
                "then": {"required": ["version_by"]},
            },
            {"if": is_type("string"), "then": {"properties": {"columns": {"maxItems": 1}}}},
            {"if": is_type("blocks"), "then": {"allOf": ROW_FIELDS.map(absent)}},
            {"if": is_type("stream"), "then": {
                "allOf": REBUILT_FIELDS.map(absent),
                "properties": {
                    "use": {"not": {"allOf": [{"contains": {"const": "rebuild"}}, {"contains": {"const": "backup"}}]}},
                    "on_conflict": {"not": {"enum": ["keep", "newest"]}},
                },
            }},
            {
                "if": is_type("list"),
                "then": {"required": ["order_by"]},
                "else": {"dependentRequired": {"order_by": ["on_collision"]}},
            },
            {
                "if": is_type("zset"),
                "then": {"required": ["member", "score"]},
                "else": absent("score"),
            },
            {
                "if": is_one_of(&["set", "list"]),
                "then": {"required": ["member"], "allOf": [absent("on_collision")]},
            },
            {"if": is_one_of(&["set", "zset", "list"]), "then": absent("columns")},
            {"if": is_one_of(&["string", "json", "redisjson", "blocks", "stream"]), "then": absent("member")},
        ],
    });
    with(table(&route::FIELDS, &["name", "key", "type"], route_field), rules)
}

fn route_field(name: &str) -> Value {
    match name {
        "name" => with(
            formed("A name of its own.", "^[A-Za-z0-9_.-]+$"),
            json!({"maxLength": NAME_LENGTH_MAX}),
        ),
        "table" => text("alloydb:schema.table or bigquery:dataset.table"),
        "query" => text("One SELECT statement; needs `from`."),
        "from" => words("The system that `query` is asked of.", &names(&origin::SYSTEMS)),
        "split_by" => text("Column to cut views, foreign tables and queries by."),
        "where" => text("SQL condition, evaluated by the source."),
        "key" => text(
            "Key template such as build:{id}; a prefix where the type is blocks, or a stream that is rebuilt.",
        ),
        "type" => words("How a row becomes a value.", &names(&LAYOUTS)),
        "columns" => with(
            list("Fields of the value; every column not in the key by default.", &column()),
            json!({"minItems": 1}),
        ),
        "as_text" => with(
            list("Columns carried as their text.", &text("A column.")),
            json!({"uniqueItems": true}),
        ),
        "expire_at" => text("Column with the time of expiry."),
        "ttl" => duration("Time to live, counted from `ttl_from`."),
        "ttl_from" => text("Column that `ttl` counts from."),
        "null" => words("What a null becomes; omit by default.", &names(&NULLS)),
        "on_collision" => words("Two rows, one key.", &["error", "last"]),
        "order_by" => text(
            "Column that decides which row is last, or the order of a list; column|desc for the largest first.",
        ),
        "on_conflict" => words("The key exists; replace by default.", &names(&CONFLICTS)),
        "version_by" => text("Column that tells the newer of two rows; with newest."),
        "catch_up" => duration("How far behind the source a run may end; with newest."),
        "use" => with(
            list("Which commands take the route.", &words("", &["rebuild", "backup"])),
            json!({"minItems": 1}),
        ),
        "priority" => count("Lower goes first; 100 by default.", (0, PRIORITY_MAX)),
        "newest_by" => text("Column that puts the newest partitions first."),
        "on_drift" => words(
            "The table is not what it was when the run began; fail by default.",
            &names(&DRIFTS),
        ),
        "rejects_max" => json!({
            "description": "Rows, or share of the rows read, that may be rejected; 0 by default.",
            "anyOf": [
                count("Rows.", (0, i64::MAX.unsigned_abs())),
                {"type": "string", "pattern": "^([0-9]+\\.?[0-9]*|\\.[0-9]+)%$"},
                substituted(),
            ],
        }),
        "rejects_keep" => {
            duration("How long files of rejected rows are kept; for good by default.")
        }
        "watermark" => {
            text("Column whose windows are copied, for a table without table partitions.")
        }
        "keep_versions" => {
            count("Versions kept, the newest one included; 2 by default.", (1, KEEP_VERSIONS_MAX))
        }
        "row_key" => text("Column that tells rows apart, for a restore that fills."),
        "member" => {
            text("Template of a member, a list element or a hash field name, such as {id}.")
        }
        "score" => {
            text("Column of the score; a time may name its unit: column|s, column|ms, column|us.")
        }
        _ => formless(),
    }
}

/// One entry of `columns`.
fn column() -> Value {
    let entry = table(&columns::FIELDS, &["field"], |name| match name {
        "field" => text("Name in Redis."),
        "column" => text("Source column."),
        "value" => json!({"description": "The same text in every row.", "type": "string"}),
        "path" => formed("A part of a JSON column such as $.git.ref.", "^\\$([.\\[].*)?$"),
        _ => formless(),
    });
    let one_of = json!({
        "oneOf": [{"required": ["column"]}, {"required": ["value"]}],
        "dependentRequired": {"path": ["column"]},
    });
    json!({"anyOf": [text("A column that keeps its name."), with(entry, one_of)]})
}

/// A route that does not plainly read from BigQuery reads from AlloyDB.
fn needs_alloydb() -> Value {
    let other = json!({"not": reads_bigquery()});
    json!({"if": has_route(&other), "then": {"required": ["alloydb"]}})
}

fn needs_bigquery() -> Value {
    json!({"if": has_route(&reads_bigquery()), "then": {"required": ["bigquery"]}})
}

fn has_route(route: &Value) -> Value {
    let routes = json!({"type": "array", "contains": route});
    json!({"properties": {"route": routes}, "required": ["route"]})
}

fn reads_bigquery() -> Value {
    let begins = |field: &str, with: &str| {
        let pattern = format!("^{with}");
        json!({"properties": {field: {"type": "string", "pattern": pattern}}, "required": [field]})
    };
    json!({"anyOf": [begins("table", "bigquery:"), begins("from", "bigquery")]})
}
