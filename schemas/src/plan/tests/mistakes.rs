//! Every mistake with its place, and every field that is not built refused by name.

use super::{MINIMAL, mistakes, parse};

/// The mistakes of the minimal plan with lines added to its route, without places.
fn route_mistakes(lines: &str) -> Vec<String> {
    let errors = parse(&format!("{MINIMAL}{lines}\n")).expect_err(lines);
    errors.0.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"[objectives]
redis = { rto = "24", rpx = "1h" }
[alloydb]
url = "mysql://h"
snapshot_max = 3
[redis]
url = "${env:NOPE}"
[[route]]
name = "builds"
table = "alloydb:a.b.c"
prioritty = 1
priority = 1_000_001
key = ""
type = "hsh"
columns = ["a", "a", { field = "b", column = "c", value = "d", colum = "e" }, 3]
where = "a; b"
[[route]]
name = "builds"
table = "alloydb:x"
query = "SELECT 1"
ttl = "1w"
type = "string"
columns = []
on_collision = "last"
rejects_max = "101%"
[[route]]
nam = "x"
[rout]
"#;
    assert_eq!(
        mistakes(text),
        r#"line 2: objectives.redis.rto: must be a whole number and a unit (s, m, h or d), for example "24h"
line 2: objectives.redis: unknown field "rpx", did you mean "rpo"?
line 4: alloydb.url: must start with postgres:// or postgresql://
line 5: alloydb.snapshot_max: expected a string, found an integer
line 7: redis.url: environment variable "NOPE" is not set
line 10: route "builds": table: has too many parts; write "alloydb:schema.table" or "bigquery:dataset.table"
line 11: route "builds": unknown field "prioritty", did you mean "priority"?
line 12: route "builds": priority: must be an integer from 0 to 1000000
line 13: route "builds": key: must not be empty
line 14: route "builds": type: unknown value "hsh", did you mean "hash"?
line 15: route "builds": columns[1]: field "a" is named twice
line 15: route "builds": columns[2]: column and value exclude each other
line 15: route "builds": columns[2]: unknown field "colum", did you mean "column"?
line 15: route "builds": columns[3]: expected a column name or a table such as { field = "a", column = "b" }, found an integer
line 16: route "builds": where: must be one statement: it has an unquoted ";"
line 17: route "builds": field "key" is missing
line 18: route "builds": name: another route has this name
line 20: route "builds": query: table and query exclude each other
line 21: route "builds": ttl: needs "ttl_from", the column it counts from
line 21: route "builds": ttl: must be a whole number and a unit (s, m, h or d), for example "24h"
line 23: route "builds": columns: must name at least one column; leave it out to carry every column
line 24: route "builds": on_collision: "last" needs "order_by"
line 25: route "builds": rejects_max: must be a number of rows or a share from "0%" to "100%"
line 26: route[2]: field "name" is missing
line 26: route[2]: needs "table" or "query"
line 26: route[2]: field "type" is missing
line 26: route[2]: field "key" is missing
line 27: route[2]: unknown field "nam", did you mean "name"?
line 28: unknown section "rout", did you mean "route"?"#
    );
}

#[test]
fn what_is_missing_is_reported_at_the_end_of_the_file() {
    assert_eq!(
        mistakes("\n# empty\n\n"),
        "line 2: redis: section is missing\nline 2: no [[route]]: a plan needs at least one"
    );
    let without_alloydb = MINIMAL.replace("[alloydb]\nurl = \"postgres://h/d\"", "");
    assert!(
        mistakes(&without_alloydb)
            .ends_with("alloydb: section is missing, and a route reads from it")
    );
    let mistake = &parse("[redis]\n[[route]]").unwrap_err().0[0];
    assert_eq!((mistake.line, mistake.column), (1, 1));
    assert_eq!(mistake.message, "field \"url\" is missing");
}

#[test]
fn syntax_errors_and_wrong_types_name_the_line_and_what_was_expected() {
    assert!(mistakes("[redis]\nurl = \n[x").starts_with("line 2: "));
    assert!(
        mistakes("[redis]\nurl \"x\"\n").starts_with("line 2: key with no value, expected `=`")
    );
    let twice = mistakes("[redis]\nurl = \"redis://h\"\nurl = \"redis://h\"\n");
    assert!(twice.starts_with("line 3: duplicate key\n"), "{twice}");
    assert!(twice.contains("no [[route]]"), "{twice}");
    assert!(
        mistakes("route = 3")
            .contains("route: expected an array of tables, written [[route]], found an integer")
    );
    assert!(mistakes("[route]").contains("found a table"));
    assert!(mistakes("redis = \"x\"").contains("redis: expected a table, found a string"));
    assert!(mistakes("route = [1]").contains("route[0]: expected a table, found an integer"));
    let column = parse("objectives = {}\n\"é\" = 1\nx = 1").unwrap_err().0[1].clone();
    assert_eq!((column.line, column.column), (3, 1));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let duplicate = mistakes(&format!("{MINIMAL}[redis.duplicate]\nallow_evict = true\n"));
    assert!(duplicate.contains("did you mean \"allow_eviction\"?"), "{duplicate}");
    assert_eq!(
        route_mistakes("on_drift = \"warm\""),
        ["route \"builds\": on_drift: unknown value \"warm\", did you mean \"warn\"?"]
    );
    let cluster = MINIMAL.replace("redis://h", "redis+cluster://h");
    assert_eq!(mistakes(&cluster), "line 5: redis.url: redis+cluster:// is not built yet");
}

#[test]
fn what_bigquery_and_blocks_need_and_exclude_is_checked() {
    let bigquery = MINIMAL.replace("alloydb:builds", "bigquery:logs.builds");
    assert_eq!(
        mistakes(&bigquery),
        "line 10: bigquery: section is missing, and a route reads from it"
    );
    let at = |section: &str| mistakes(&format!("{MINIMAL}[bigquery]\n{section}\n"));
    assert_eq!(at(""), "line 11: bigquery: field \"project\" is missing");
    assert_eq!(
        at("project = \"p\"\nendpoint = \"http://h\""),
        "line 13: bigquery.endpoint: \"endpoint\" and \"grpc_endpoint\" go together"
    );
    assert!(
        at("project = \"p\"\nendpoint = \"h:1\"\ngrpc_endpoint = \"http://h\"")
            .contains("bigquery.endpoint: must start with http:// or https://")
    );
    let one = bigquery.replace("logs.builds", "builds");
    assert!(mistakes(&one).contains("names no dataset"), "{}", mistakes(&one));
    let blocks =
        format!("{bigquery}[bigquery]\nproject = \"p\"\n").replace("\"hash\"", "\"blocks\"");
    assert_eq!(
        mistakes(&blocks),
        "line 9: route \"builds\": key: key build:{id} is a prefix: it takes no column such as {id}"
    );
    let prefixed = blocks.replace("build:{id}", "log:builds");
    assert!(parse(&prefixed).is_ok(), "{}", mistakes(&prefixed));
    for (line, expected) in [
        ("where = \"a = 1\"", "where: goes with row-by-row types only; blocks carry whole rows"),
        ("keep_versions = 0", "keep_versions: must be at least 1, the newest version"),
        ("use = [\"rebuild\"]", "use[0]: blocks are a backup; they are not rebuilt"),
        ("use = []", "use: must not be empty; leave it out for the default"),
    ] {
        let text = prefixed.replace("\"blocks\"\n", &format!("\"blocks\"\n{line}\n"));
        assert_eq!(mistakes(&text), format!("line 11: route \"builds\": {expected}"));
    }
    assert_eq!(
        route_mistakes("watermark = \"a\""),
        ["route \"builds\": watermark: goes with type \"blocks\" only"]
    );
}

#[test]
fn what_a_backup_of_rows_needs_and_excludes_is_checked() {
    let bigquery = MINIMAL.replace("alloydb:builds", "bigquery:logs.builds");
    let plan = format!("{bigquery}[bigquery]\nproject = \"p\"\n");
    let with = |layout: &str, key: &str, lines: &str| {
        let route = format!("key = \"{key}\"\ntype = \"{layout}\"\n{lines}\n");
        plan.replace("key = \"build:{id}\"\ntype = \"hash\"\n", &route)
    };
    for (layout, key, lines, uses) in [
        ("hash", "b:{id}", "", (true, false)),
        ("hash", "b:{id}", "use = [\"backup\"]\nrow_key = \"id\"", (false, true)),
        ("json", "b:{id}", "use = [\"rebuild\", \"backup\"]", (true, true)),
        ("stream", "b", "", (false, true)),
        ("stream", "b:{id}", "use = [\"backup\"]\npriority = 1", (false, true)),
    ] {
        let plan = parse(&with(layout, key, lines)).expect(lines);
        let found = plan.routes[0].uses;
        assert_eq!((found.rebuild, found.backup), uses, "{layout} {lines}");
    }
    for (layout, key, lines, expected) in [
        (
            "string",
            "b:{id}",
            "use = [\"backup\"]",
            "use[0]: \"backup\" of type \"string\" is not built yet",
        ),
        (
            "redisjson",
            "b:{id}",
            "use = [\"rebuild\", \"backup\"]",
            "use[1]: \"backup\" does not go with type \"redisjson\": its server rewrites numbers, so a row read back may differ from the one written; type \"json\" keeps rows as they are",
        ),
        ("hash", "b:{id}", "row_key = \"id\"", "row_key: goes with use = [\"backup\"] only"),
        (
            "hash",
            "b:{id}",
            "use = [\"backup\"]\nkeep_versions = 3",
            "keep_versions: goes with type \"blocks\" only",
        ),
        (
            "stream",
            "b",
            "on_conflict = \"keep\"",
            "on_conflict: does not go with type \"stream\" for use = [\"backup\"], which is never written",
        ),
    ] {
        let found = mistakes(&with(layout, key, lines));
        assert!(found.ends_with(&format!("route \"builds\": {expected}")), "{found}");
    }
    assert_eq!(
        route_mistakes("use = [\"backup\"]"),
        ["route \"builds\": use: \"backup\" goes with a \"bigquery:\" table only"]
    );
    let stream = MINIMAL.replace("\"hash\"", "\"stream\"");
    assert!(mistakes(&stream).ends_with("type: \"stream\" goes with a \"bigquery:\" table only"));
}

#[test]
fn fields_that_need_or_exclude_each_other_are_checked() {
    for (lines, expected) in [
        ("expire_at = \"a\"\nttl = \"1d\"", "ttl: excludes \"expire_at\""),
        ("expire_at = \"a\"\nttl_from = \"b\"", "ttl_from: excludes \"expire_at\""),
        ("ttl_from = \"a\"", "ttl_from: needs \"ttl\""),
        ("order_by = \"a\"", "order_by: needs on_collision = \"last\""),
        ("on_collision = \"error\"\norder_by = \"a\"", "order_by: needs on_collision = \"last\""),
        ("from = \"alloydb\"", "from: goes with \"query\" only; a table names its system itself"),
        ("rejects_max = -1", "rejects_max: must be an integer from 0 to 9223372036854775807"),
        (
            "rejects_max = 1.5",
            "rejects_max: expected a number of rows or a share such as \"0.1%\", found a float",
        ),
        (
            "rejects_max = \"nan%\"",
            "rejects_max: must be a number of rows or a share from \"0%\" to \"100%\"",
        ),
        (
            "null = \"skip\"",
            "null: unknown value \"skip\", expected \"omit\", \"empty\" or \"error\"",
        ),
        ("use = []", "use: must not be empty; leave it out for the default"),
        ("as_text = [\"a\", \"a\"]", "as_text[1]: column \"a\" is named twice"),
        (
            "columns = [{ field = \"a\", value = \"b\", path = \"$.c\" }]",
            "columns[0].path: needs \"column\", the JSON that it leads into",
        ),
        (
            "columns = [{ field = \"a\", column = \"b\", path = \"$.c[*]\" }]",
            "columns[0].path: has brackets around neither a name such as [\"name\"] nor an index such as [0]",
        ),
        ("split_by = \"\"", "split_by: must not be empty"),
        ("newest_by = \"a\\u0000\"", "newest_by: must not contain a zero character"),
        ("columns = [{ field = \"a\" }]", "columns[0]: needs \"column\" or \"value\""),
    ] {
        assert_eq!(route_mistakes(lines), [format!("route \"builds\": {expected}")], "{lines}");
    }
    let string = MINIMAL.replace("\"hash\"", "\"string\"");
    assert!(
        mistakes(&format!("{string}columns = [\"a\", \"b\"]"))
            .ends_with("a string holds one column, not 2")
    );
    let constant = format!("{string}columns = [{{ field = \"a\", value = \"1\" }}]");
    assert!(mistakes(&constant).ends_with("a string must hold a column, not a constant"));
    for name in ["a b", "a/b", "..", "é"] {
        assert!(parse(&MINIMAL.replace("\"builds\"", &format!("{name:?}"))).is_err(), "{name}");
    }
    assert!(
        mistakes(&MINIMAL.replace("build:{id}", "build:{id"))
            .contains("line 9: route \"builds\": key: ")
    );
}

#[test]
fn newest_needs_a_version_that_the_value_carries() {
    const NEWEST: &str = "on_conflict = \"newest\"\nversion_by = \"at\"\n";
    let told = |lines: &str| route_mistakes(lines).join("\n");
    assert!(parse(&format!("{MINIMAL}{NEWEST}catch_up = \"30s\"\n")).is_ok());
    for (lines, expected) in [
        ("on_conflict = \"newest\"".to_owned(), "on_conflict: \"newest\" needs \"version_by\""),
        ("version_by = \"at\"".to_owned(), "version_by: goes with on_conflict = \"newest\" only"),
        ("catch_up = \"30s\"".to_owned(), "catch_up: goes with on_conflict = \"newest\" only"),
        (
            "on_conflict = \"keep\"\nversion_by = \"at\"".to_owned(),
            "version_by: goes with on_conflict = \"newest\" only",
        ),
        (format!("{NEWEST}catch_up = \"0s\""), "catch_up: "),
        (
            format!("{NEWEST}on_collision = \"last\"\norder_by = \"at\""),
            "on_collision: \"last\" does not go with \"newest\"",
        ),
    ] {
        assert!(told(&lines).contains(expected), "{lines}: {}", told(&lines));
    }
    let string = MINIMAL.replace("\"hash\"", "\"string\"\ncolumns = [\"at\"]");
    let string = mistakes(&format!("{string}{NEWEST}"));
    assert!(string.contains("not with \"string\""), "{string}");
    let cloud = MINIMAL.replace("alloydb:builds", "bigquery:d.builds");
    let cloud =
        mistakes(&format!("{cloud}{NEWEST}catch_up = \"30s\"\n[bigquery]\nproject = \"p\"\n"));
    assert!(cloud.contains("catch_up: does not go with bigquery"), "{cloud}");
}
