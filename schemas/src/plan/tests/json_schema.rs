//! The JSON Schema against an independent validator, the fixture plans, broken plans, and `PLAN.md`.

use super::{FULL, MINIMAL, parse};
use crate::plan::json_schema;
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    /// Compiling checks the schema against that of draft 2020-12.
    pub(super) fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("plan.json", json_schema()).unwrap();
        let index = compiler.compile("plan.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let plan: Value = toml::from_str(text).map_err(|error| error.to_string())?;
        self.schemas.validate(&plan, self.index).map_err(|error| format!("{error:#}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

const BLOCKS: &str = r#"
[objectives]
bigquery = { rto = "1h" }
[bigquery]
project = "p"
location = "US"
staging_dataset = "s"
max_bytes_billed = 5
endpoint = "http://h"
grpc_endpoint = "${env:GRPC}"
[redis]
url = "rediss://h"
duplicate = { url = "redis://d", allow_eviction = true }
[archive]
url = "gs://town-copies/bq"
endpoint = "http://h"
encrypt_key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
[[route]]
name = "logs"
table = "bigquery:logs.build_logs"
key = "log"
type = "blocks"
watermark = "ts"
keep_versions = 5
row_key = "id"
[[unrouted]]
prefix = "session:"
owner = "web"
comes_back = "by logging in"
"#;

#[test]
fn plans_that_parse_are_valid() {
    let validator = Validator::new();
    let mut plans: Vec<(String, String)> = fs::read_dir(root().join("fixtures/plans"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(plans.len() >= 5, "{}", plans.len());
    plans.extend(
        [("minimal", MINIMAL), ("full", FULL), ("blocks", BLOCKS)]
            .map(|(name, text)| (name.to_owned(), text.to_owned())),
    );
    for (name, text) in plans {
        assert_eq!(validator.check(&text), Ok(()), "{name}");
    }
    for (from, to) in [
        ("\"hash\"", "\"${env:TYPE}\""),
        ("\"builds\"", "\"${env:NAME}\""),
        ("\"hash\"\n", "\"hash\"\nrejects_max = \"${env:MAX}\"\n"),
        ("\"hash\"\n", "\"hash\"\nrejects_max = \"5.%\"\n"),
        ("\"hash\"", "\"hash\"\nmember = \"{id}\"\ncolumns = [\"a\"]"),
        ("\"hash\"", "\"set\"\nmember = \"{id}\""),
        ("\"hash\"", "\"zset\"\nmember = \"{id}\"\nscore = \"at|ms\""),
        ("\"hash\"", "\"list\"\nmember = \"{id}\"\norder_by = \"at|desc\""),
    ] {
        assert_eq!(validator.check(&MINIMAL.replace(from, to)), Ok(()), "{from} -> {to}");
    }
}

#[test]
fn plans_with_mistakes_are_invalid_and_refused_by_the_parser_too() {
    let validator = Validator::new();
    let swaps = [
        ("[redis]\nurl = \"redis://h\"", ""),
        ("[alloydb]\nurl = \"postgres://h/d\"", ""),
        ("redis://h", "http://h"),
        ("postgres://h/d", "mysql://h/d"),
        ("url = \"redis://h\"", "url = 5"),
        ("url = \"redis://h\"", "url = \"\""),
        ("[[route]]", "[route]"),
        ("\"hash\"", "\"hsh\""),
        ("\"hash\"", "\"zset\""),
        ("\"builds\"", "\"a b\""),
        ("key = \"build:{id}\"\n", ""),
        ("alloydb:builds", "bigquery:logs.builds"),
        ("[redis]", "[rout]\n[redis]"),
        ("[redis]", "[archive]\nurl = \"s3://x\"\n[redis]"),
    ];
    let lines = [
        "prioritty = 1",
        "priority = 1_000_001",
        "priority = -1",
        "priority = \"1\"",
        "columns = []",
        "columns = [3]",
        "columns = [{ field = \"a\" }]",
        "columns = [{ field = \"a\", column = \"b\", value = \"c\" }]",
        "columns = [{ field = \"a\", value = \"b\", path = \"$.c\" }]",
        "as_text = [\"a\", \"a\"]",
        "query = \"SELECT 1\"",
        "from = \"alloydb\"",
        "ttl = \"1d\"",
        "ttl = \"1w\"\nttl_from = \"a\"",
        "ttl_from = \"a\"",
        "expire_at = \"a\"\nttl = \"1d\"\nttl_from = \"b\"",
        "null = \"skip\"",
        "on_collision = \"last\"",
        "order_by = \"a\"",
        "on_collision = \"error\"\norder_by = \"a\"",
        "on_conflict = \"newest\"",
        "on_drift = \"stop\"",
        "use = []",
        "rejects_max = -1",
        "rejects_max = 1.5",
        "rejects_max = \"nan%\"",
        "split_by = \"\"",
        "keep_versions = 0",
        "version_by = \"a\"",
        "[[unrouted]]\nprefix = \"s:\"\nowner = \"web\"",
        "[objectives]\nredis = { rto = \"24\" }",
        "[bigquery]\nproject = \"p\"\nendpoint = \"http://h\"",
        "[redis.duplicate]\nurl = \"redis://d\"\nallow_evict = true",
    ];
    let swapped = swaps.map(|(from, to)| MINIMAL.replace(from, to));
    let added = lines.map(|line| format!("{MINIMAL}{line}\n"));
    let blocks = BLOCKS.replace("\"blocks\"\n", "\"blocks\"\nwhere = \"a = 1\"\n");
    let strings = MINIMAL.replace("\"hash\"", "\"string\"\ncolumns = [\"a\", \"b\"]");
    let many = [
        "\"zset\"\nmember = \"{id}\"",
        "\"list\"\nmember = \"{id}\"",
        "\"set\"\nmember = \"{id}\"\ncolumns = [\"a\"]",
        "\"set\"\nmember = \"{id}\"\nscore = \"a\"",
        "\"set\"\nmember = \"{id}\"\non_collision = \"error\"",
        "\"json\"\nmember = \"{id}\"",
    ];
    let many = many.map(|lines| MINIMAL.replace("\"hash\"", lines));
    let rest = [blocks, strings].into_iter().chain(many);
    for text in swapped.into_iter().chain(added).chain(rest) {
        assert!(parse(&text).is_err(), "{text}");
        assert!(validator.check(&text).is_err(), "{text}");
    }
}

#[test]
fn a_cluster_that_is_none_is_invalid_and_refused_by_the_parser_too() {
    let validator = Validator::new();
    let name = "projects/p/locations/l/clusters/c";
    let with = |lines: &str| MINIMAL.replace("[redis]", &format!("{lines}\n[redis]"));
    let good = format!("backups = \"{name}\"\nbackups_endpoint = \"http://h\"");
    for lines in [good.as_str(), "backups = \"${env:NAME}\""] {
        assert_eq!(validator.check(&with(lines)), Ok(()), "{lines}");
    }
    assert!(parse(&with(&good)).is_ok());
    for lines in [
        "backups = \"main\"",
        "backups = 5",
        "backups_endpoint = \"http://h\"",
        &format!("backups = \"{name}/backups/b\""),
        &format!("backups = \"{name}\"\nbackups_endpoint = \"ftp://h\""),
        "[objectives]\nalloydb = { rpo = \"1w\" }",
    ] {
        let text = with(lines);
        assert!(parse(&text).is_err(), "{text}");
        assert!(validator.check(&text).is_err(), "{text}");
    }
}

/// The schemas of the fields under a heading of `PLAN.md`.
fn fields_of<'a>(schema: &'a Value, heading: &str) -> Option<&'a Value> {
    let pointer = match heading {
        "`[objectives]`" => "/properties/objectives/properties",
        "`[alloydb]`" => "/properties/alloydb/properties",
        "`[redis]`" => "/properties/redis/properties",
        "Other sections" => "/properties",
        "`[[route]]`" => "/properties/route/items/properties",
        "`[[unrouted]]`" => "/properties/unrouted/items/properties",
        _ => return None,
    };
    schema.pointer(pointer)
}

/// The names in backquotes of a cell, up to words that begin a list of something else.
fn names(cell: &str) -> Vec<String> {
    let end = [" of ", " with "].iter().filter_map(|word| cell.find(word)).min();
    let cell = &cell[..end.unwrap_or(cell.len())];
    let quoted = cell.split('`').skip(1).step_by(2);
    let name = |text: &str| text.split(" =").next().unwrap_or_default().trim().to_owned();
    quoted.map(name).collect()
}

#[test]
fn every_field_of_the_documentation_is_in_the_schema() {
    let schema = json_schema();
    let document = fs::read_to_string(root().join("schemas/PLAN.md")).unwrap();
    let (mut fields, mut checked) = (None, 0);
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            fields = fields_of(&schema, heading);
        } else if line.starts_with("### ") {
            fields = None;
        }
        let Some(fields) = fields else { continue };
        let Some(cell) = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()) else {
            continue;
        };
        let mut at = fields;
        for name in names(cell) {
            if let Some(section) = name.strip_prefix('[') {
                let section = section.trim_matches(|c| c == '[' || c == ']');
                let path = section.trim_start_matches("redis.");
                assert!(fields.get(path).is_some(), "section {section} is not in the schema");
                at = fields[path].get("properties").unwrap_or(fields);
                checked += 1;
                continue;
            }
            let found = name
                .split('.')
                .try_fold(at, |at, part| at.get("properties").unwrap_or(at).get(part));
            assert!(found.is_some(), "{name} of {cell} is not in the schema");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} fields were found in PLAN.md");
}

/// Calls `visit` with the path and the schema of every field.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, field) in properties {
            let path = format!("{path}.{name}");
            visit(&path, field);
            walk(&path, field, visit);
        }
    }
    for more in [schema.pointer("/items"), schema.pointer("/anyOf/1")].into_iter().flatten() {
        walk(path, more, visit);
    }
}

#[test]
fn every_field_of_the_schema_has_a_form_and_is_documented() {
    let document = fs::read_to_string(root().join("schemas/PLAN.md")).unwrap();
    let mut count = 0;
    walk("plan", &json_schema(), &mut |path, field| {
        assert!(field.is_object(), "{path} has no form in json_schema.rs");
        let name = path.rsplit('.').next().unwrap_or_default();
        let is_named = document.contains(&format!("`{name}`"))
            || document.contains(&format!("[{name}]"))
            || document.contains(&format!(".{name}`"))
            || document.contains(&format!("`{name}."))
            || document.contains(&format!(".{name}]"))
            || document.contains(&format!("{name} ="));
        assert!(is_named, "{path} is not in PLAN.md");
        count += 1;
    });
    assert!(count > 50, "only {count} fields were found");
}
