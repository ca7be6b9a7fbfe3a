//! What arrives: every type, every kind of table, every option of a route, compared with texts written by hand.

use crate::world::{Ran, World};
use fixtures::servers::{PostgresOptions, RedisOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// A route that reads table `public.<name>` into `<name>:{id}`.
fn route(name: &str, layout: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}-{layout}\"\ntable = \"alloydb:public.{name}\"\n\
         key = \"{name}-{layout}:{{id}}\"\ntype = \"{layout}\"\n{more}\n"
    )
}

fn hash(world: &World, key: &str) -> BTreeMap<String, String> {
    serde_json::from_str(&world.redis(&["--json", "HGETALL", key])).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a route of the summary says.
fn of_route<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let routes = summary["routes"].as_array().unwrap();
    routes.iter().find(|route| route["name"] == name).unwrap()
}

/// Every key of the form `prefix<id>`, as (id, value), in order of the ids.
fn strings(world: &World, prefix: &str) -> Vec<String> {
    let script = "local r = {} for _, k in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do \
                  r[#r + 1] = string.sub(k, #ARGV[1] + 1) .. '=' .. redis.call('GET', k) end \
                  table.sort(r) return r";
    serde_json::from_str(&world.redis(&["--json", "EVAL", script, "0", prefix])).unwrap()
}

/// The same, as SQL gives it.
fn rows(world: &World, sql: &str) -> Vec<String> {
    let mut rows: Vec<String> = world.sql(sql).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

const TYPES: &str = r#"
create type mood as enum ('ok', 'bad');
create domain short as text check (length(value) < 10);
create table types (
    id bigint primary key, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, tx text,
    vc varchar(20), ch char(4), nm name, e mood, dm short, by bytea, u uuid, d date, ti time, ts timestamp,
    tz timestamptz, j json, jb jsonb, ai int4[], at text[], atz timestamptz[], ab bool[], an numeric[]
);
insert into types (id) values (1);
insert into types values (
    2, true, 1, -2, 3, 1.5, 0.1, 1.10, E'h\u00e9llo "q" \\ \n \u0001', 'vc', 'ch', 'nm', 'ok', 'dm', '\x00ff', 
    'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '2024-02-29', '12:34:56', '2024-02-29 12:34:56.5',
    '2024-02-29 12:34:56+02', '{"z" : 1, "a":[]}', '{"b": 2, "a": [1, null]}', '{1,NULL,-3}',
    '{"a,b",NULL,"q\"",""}', '{2024-01-01 00:00:00+00}', '{t,f}', '{1.10,NaN}'
);
insert into types values (
    3, false, 32767, 2147483647, 9223372036854775807, 'Infinity', 'NaN', 'NaN', '', '', '', '', 'bad', '', '\x',
    'ffffffff-ffff-ffff-ffff-ffffffffffff', 'infinity', '24:00:00', 'infinity', 'infinity', 'null', 'null', '{}',
    '{}', '{infinity}', '{}', '{}'
);
insert into types values (
    4, null, -32768, -2147483648, -9223372036854775808, '-0', '1e-7', '-12345678901234567890.000001', E'\U0001f680',
    E'\t', 'abcd', 'x', 'ok', 'x', '\xdeadbeef', '00000000-0000-0000-0000-000000000000', '0044-03-15 BC',
    '00:00:00.000001', '0044-03-15 12:00:00 BC', '1969-12-31 23:59:59.999999+00', '"x"', '[]', '{-2147483648}',
    '{null}', '{NULL}', '{NULL}', '{0}'
);
insert into types (id, f4, f8, n, d, ts, tz) values (
    5, '3.4028235e+38', '1.7976931348623157e+308', 'Infinity', '10000-01-01', '-infinity', '-infinity'
), (6, '1e-45', '5e-324', '-Infinity', '-infinity', '0001-01-01', '9999-12-31 23:59:59.999999+00'),
   (7, '1e6', '1e15', '1e30', '1970-01-01', '1970-01-01', '1970-01-01 00:00:00+00');
"#;

/// Every column of `TYPES` but the key, and one constant that keeps a row of nulls from being nothing.
const TYPE_COLUMNS: &str = r#"columns = ["b", "i2", "i4", "i8", "f4", "f8", "n", "tx", "vc", "ch", "nm", "e", "dm",
    "by", "u", "d", "ti", "ts", "tz", "j", "jb", "ai", "at", "atz", "ab", "an", { field = "v", value = "1" }]"#;

/// A world whose table of types was carried as hashes and as JSON.
fn world_of_types() -> World {
    let world = World::new();
    world.sql(TYPES);
    let routes = [route("types", "hash", TYPE_COLUMNS), route("types", "json", TYPE_COLUMNS)];
    world.plan(&routes.concat());
    world.rebuild(&[]).expect(0);
    world
}

#[test]
fn every_type_arrives_in_json_with_nulls_and_edge_values() {
    let world = world_of_types();
    let expected = [
        (1, r#"{"v":"1"}"#),
        (
            2,
            r#"{"b":true,"i2":1,"i4":-2,"i8":3,"f4":1.5,"f8":0.1,"n":1.10,"tx":"héllo \"q\" \\ \n \u0001","vc":"vc","ch":"ch  ","nm":"nm","e":"ok","dm":"dm","by":"\\x00ff","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","d":"2024-02-29","ti":"12:34:56","ts":"2024-02-29T12:34:56.500000","tz":"2024-02-29T10:34:56Z","j":{"z" : 1, "a":[]},"jb":{"a": [1, null], "b": 2},"ai":[1,null,-3],"at":["a,b",null,"q\"",""],"atz":["2024-01-01T00:00:00Z"],"ab":[true,false],"an":[1.10,"NaN"],"v":"1"}"#,
        ),
        (
            3,
            r#"{"b":false,"i2":32767,"i4":2147483647,"i8":9223372036854775807,"f4":"Infinity","f8":"NaN","n":"NaN","tx":"","vc":"","ch":"    ","nm":"","e":"bad","dm":"","by":"\\x","u":"ffffffff-ffff-ffff-ffff-ffffffffffff","d":"infinity","ti":"24:00:00","ts":"infinity","tz":"infinity","j":null,"jb":null,"ai":[],"at":[],"atz":["infinity"],"ab":[],"an":[],"v":"1"}"#,
        ),
        (
            4,
            r#"{"i2":-32768,"i4":-2147483648,"i8":-9223372036854775808,"f4":-0,"f8":1e-07,"n":-12345678901234567890.000001,"tx":"🚀","vc":"\t","ch":"abcd","nm":"x","e":"ok","dm":"x","by":"\\xdeadbeef","u":"00000000-0000-0000-0000-000000000000","d":"0044-03-15 BC","ti":"00:00:00.000001","ts":"0044-03-15T12:00:00 BC","tz":"1969-12-31T23:59:59.999999Z","j":"x","jb":[],"ai":[-2147483648],"at":[null],"atz":[null],"ab":[null],"an":[0],"v":"1"}"#,
        ),
        (
            5,
            r#"{"f4":3.4028235e+38,"f8":1.7976931348623157e+308,"n":"Infinity","d":"10000-01-01","ts":"-infinity","tz":"-infinity","v":"1"}"#,
        ),
        (
            6,
            r#"{"f4":1e-45,"f8":5e-324,"n":"-Infinity","d":"-infinity","ts":"0001-01-01T00:00:00","tz":"9999-12-31T23:59:59.999999Z","v":"1"}"#,
        ),
        (
            7,
            r#"{"f4":1e+06,"f8":1e+15,"n":1000000000000000000000000000000,"d":"1970-01-01","ts":"1970-01-01T00:00:00","tz":"1970-01-01T00:00:00Z","v":"1"}"#,
        ),
    ];
    for (id, text) in expected {
        assert_eq!(world.redis(&["GET", &format!("types-json:{id}")]), text);
    }
}

#[test]
fn every_type_arrives_in_hashes_with_nulls_and_edge_values() {
    let world = world_of_types();
    assert_eq!(hash(&world, "types-hash:1"), pairs(&[("v", "1")]));
    let expected = [
        ("b", "true", "false"),
        ("i2", "1", "32767"),
        ("i4", "-2", "2147483647"),
        ("i8", "3", "9223372036854775807"),
        ("f4", "1.5", "Infinity"),
        ("f8", "0.1", "NaN"),
        ("n", "1.10", "NaN"),
        ("tx", "héllo \"q\" \\ \n \u{1}", ""),
        ("vc", "vc", ""),
        ("ch", "ch  ", "    "),
        ("nm", "nm", ""),
        ("e", "ok", "bad"),
        ("dm", "dm", ""),
        ("by", "\\x00ff", "\\x"),
        ("u", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("d", "2024-02-29", "infinity"),
        ("ti", "12:34:56", "24:00:00"),
        ("ts", "2024-02-29T12:34:56.500000", "infinity"),
        ("tz", "2024-02-29T10:34:56Z", "infinity"),
        ("j", "{\"z\" : 1, \"a\":[]}", "null"),
        ("jb", "{\"a\": [1, null], \"b\": 2}", "null"),
        ("ai", "[1,null,-3]", "[]"),
        ("at", "[\"a,b\",null,\"q\\\"\",\"\"]", "[]"),
        ("atz", "[\"2024-01-01T00:00:00Z\"]", "[\"infinity\"]"),
        ("ab", "[true,false]", "[]"),
        ("an", "[1.10,\"NaN\"]", "[]"),
        ("v", "1", "1"),
    ];
    let ordinary = expected.map(|(name, ordinary, _)| (name, ordinary));
    let largest = expected.map(|(name, _, largest)| (name, largest));
    assert_eq!(hash(&world, "types-hash:2"), pairs(&ordinary));
    assert_eq!(hash(&world, "types-hash:3"), pairs(&largest));
    let edges = hash(&world, "types-hash:4");
    for (field, text) in [
        ("f4", "-0"),
        ("f8", "1e-07"),
        ("n", "-12345678901234567890.000001"),
        ("tx", "🚀"),
        ("d", "0044-03-15 BC"),
        ("ti", "00:00:00.000001"),
        ("ts", "0044-03-15T12:00:00 BC"),
        ("tz", "1969-12-31T23:59:59.999999Z"),
        ("j", "\"x\""),
        ("jb", "[]"),
    ] {
        assert_eq!(edges[field], text, "{field}");
    }
    assert!(!edges.contains_key("b"));
}

#[test]
fn every_leaf_of_a_partitioned_table_is_read() {
    let world = World::new();
    world.sql(
        "create table parts (id bigint, day date, v text, primary key (id, day)) partition by range (day); \
         create table parts_1 partition of parts for values from ('2024-01-01') to ('2024-02-01'); \
         create table parts_2 partition of parts for values from ('2024-02-01') to ('2024-03-01') partition by hash (id); \
         create table parts_2a partition of parts_2 for values with (modulus 2, remainder 0); \
         create table parts_2b partition of parts_2 for values with (modulus 2, remainder 1); \
         create table parts_empty partition of parts for values from ('2030-01-01') to ('2031-01-01'); \
         create table parts_rest partition of parts default; \
         insert into parts select i, '2024-01-01'::date + i % 100, 'v' || i from generate_series(1, 1000) i",
    );
    world.plan(&route("parts", "string", "columns = [\"v\"]").replace("{id}", "{id}:{day}"));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["rows"], 1000);
    assert_eq!(of_route(&summary, "parts-string")["partitions"], 5);
    let wanted = rows(&world, "select id || ':' || day || '=' || v from parts");
    assert_eq!(strings(&world, "parts-string:"), wanted);
}

#[test]
fn the_parent_of_plain_inheritance_is_read_with_its_children() {
    let world = World::new();
    world.sql(
        "create table base (id bigint primary key, v text); \
         create table child (id bigint primary key, more int) inherits (base); \
         insert into base select i, 'b' || i from generate_series(1, 10) i; \
         insert into child (id, v, more) select i, 'c' || i, i from generate_series(11, 30) i",
    );
    let plan = route("base", "string", "columns = [\"v\"]");
    world.plan(&plan);
    // The parent's index says nothing of its children.
    world.rebuild(&[]).expect(2).says(&["nothing proves that key"]);
    world.plan(&format!("{plan}on_collision = \"error\"\n"));
    assert_eq!(world.rebuild(&[]).expect(0).summary()["rows"], 30);
    assert_eq!(strings(&world, "base-string:"), rows(&world, "select id || '=' || v from base"));
}

const GROUPED: &str = "create table grouped (id bigint primary key, grp int, v text); \
    insert into grouped select i, case when i % 11 = 0 then null else i % 7 end, 'v' || i \
    from generate_series(1, 2000) i; create view shown as select id, grp, v from grouped where id % 3 <> 0";

#[test]
fn a_view_is_read_in_one_partition() {
    let world = World::new();
    world.sql(GROUPED);
    world.plan(&route("shown", "string", "columns = [\"v\"]\non_collision = \"error\""));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(of_route(&summary, "shown-string")["partitions"], 1);
    assert_eq!(strings(&world, "shown-string:"), rows(&world, "select id || '=' || v from shown"));
}

#[test]
fn a_view_is_cut_by_split_by_with_nulls_and_ties_and_every_row_is_read_once() {
    let world = World::new();
    world.sql(GROUPED);
    let more = "columns = [\"v\"]\non_collision = \"error\"\nsplit_by = \"grp\"";
    world.plan(&route("shown", "string", more));
    let summary = world.rebuild(&["--lanes", "4"]).expect(0).summary();
    let wanted = rows(&world, "select id || '=' || v from shown");
    assert_eq!(summary["rows"], wanted.len());
    // Seven values and the nulls: ties are never cut.
    let partitions = of_route(&summary, "shown-string")["partitions"].as_u64().unwrap();
    assert!((2..=9).contains(&partitions), "{partitions}");
    assert_eq!(strings(&world, "shown-string:"), wanted);
}

#[test]
fn a_view_is_cut_by_a_text_and_by_a_time() {
    let world = World::new();
    world.sql(
        "create view texts as select i as id, chr(39) || chr(92) || md5(i::text) as s, \
         '2024-01-01Z'::timestamptz + i * interval '1.000001 s' as at, 'v' || i as v from generate_series(1, 1000) i",
    );
    for column in ["s", "at"] {
        let more = format!("columns = [\"v\"]\non_collision = \"error\"\nsplit_by = \"{column}\"");
        world.plan(&route("texts", "string", &more));
        world.redis(&["FLUSHALL"]);
        let summary = world.rebuild(&["--lanes", "2"]).expect(0).summary();
        assert_eq!(summary["rows"], 1000, "{column}");
        assert_eq!(of_route(&summary, "texts-string")["partitions"], 17, "{column}");
        assert_eq!(
            strings(&world, "texts-string:"),
            rows(&world, "select id || '=' || v from texts")
        );
    }
}

#[test]
fn a_query_is_carried() {
    let world = World::new();
    world.sql(GROUPED);
    world.plan(
        "[[route]]\nname = \"sums\"\nfrom = \"alloydb\"\nkey = \"sum:{grp}\"\ntype = \"string\"\n\
         query = \"select grp, sum(id)::text as total from grouped where grp is not null group by grp -- all\\n\"\n\
         columns = [\"total\"]\non_collision = \"error\"\n",
    );
    world.rebuild(&[]).expect(0);
    let wanted = "select grp || '=' || sum(id) from grouped where grp is not null group by grp";
    assert_eq!(strings(&world, "sum:"), rows(&world, wanted));
}

#[test]
fn an_empty_table_is_done_with_nothing() {
    let world = World::new();
    world.sql("create table nothing (id bigint primary key, v text)");
    world.plan(&route("nothing", "hash", ""));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], &summary["status"]), (&0.into(), &"done".into()));
    assert_eq!(world.redis(&["DBSIZE"]), "0");
}

#[test]
fn a_materialized_view_is_carried() {
    let world = World::new();
    world.sql(GROUPED);
    world.sql(
        "create materialized view stored as select id, v from grouped where grp = 3; \
         create unique index on stored (id)",
    );
    world.plan(&route("stored", "string", "columns = [\"v\"]"));
    world.rebuild(&[]).expect(0);
    assert_eq!(
        strings(&world, "stored-string:"),
        rows(&world, "select id || '=' || v from stored")
    );
}

/// Ten rows `(id, a, b)` with `a` null in row 10.
const TEN: &str = "create table ten (id bigint primary key, a text, b text); \
    insert into ten select i, 'a' || i, 'b' || i from generate_series(1, 10) i; \
    update ten set a = null where id = 10";

#[test]
fn keep_leaves_existing_keys_alone_and_writes_the_others() {
    let world = World::new();
    world.sql(TEN);
    world.redis(&["HSET", "ten-hash:2", "mine", "1"]);
    world.redis(&["SET", "ten-hash:3", "of another type"]);
    world.redis(&["SET", "ten-string:4", "mine", "EX", "1000"]);
    world.redis(&["RPUSH", "ten-json:5", "of another type"]);
    let keep = "on_conflict = \"keep\"";
    let plan = [
        route("ten", "hash", keep),
        route("ten", "json", keep),
        route("ten", "string", &format!("{keep}\ncolumns = [\"b\"]")),
    ];
    world.plan(&plan.concat());
    let summary = world.rebuild(&[]).expect(0).summary();
    for (name, kept) in [("ten-hash", 2), ("ten-json", 1), ("ten-string", 1)] {
        let counts = of_route(&summary, name);
        assert_eq!(counts["kept"], kept, "{name}");
        assert_eq!(counts["written"], 10 - kept, "{name}");
    }
    assert_eq!(hash(&world, "ten-hash:2"), pairs(&[("mine", "1")]));
    assert_eq!(world.redis(&["GET", "ten-hash:3"]), "of another type");
    assert_eq!(hash(&world, "ten-hash:4"), pairs(&[("a", "a4"), ("b", "b4")]));
    assert_eq!(world.redis(&["GET", "ten-string:4"]), "mine");
    assert_ne!(world.redis(&["TTL", "ten-string:4"]), "-1");
    assert_eq!(world.redis(&["GET", "ten-string:5"]), "b5");
    assert_eq!(world.redis(&["LRANGE", "ten-json:5", "0", "-1"]), "of another type");
    assert_eq!(world.redis(&["DBSIZE"]), "30");
}

#[test]
fn replace_leaves_nothing_of_what_was_under_a_key() {
    let world = World::new();
    world.sql(TEN);
    world.redis(&["HSET", "ten-hash:2", "stale", "1", "a", "old"]);
    world.redis(&["EXPIRE", "ten-hash:2", "1000"]);
    world.redis(&["RPUSH", "ten-hash:3", "x"]);
    world.redis(&["SET", "ten-string:4", "old", "EX", "1000"]);
    world.redis(&["ZADD", "ten-string:5", "1", "x"]);
    world.redis(&["SET", "nobody's", "1"]);
    let plan = [route("ten", "hash", ""), route("ten", "string", "columns = [\"b\"]")];
    world.plan(&plan.concat());
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["written"], &summary["kept"]), (&20.into(), &0.into()));
    assert_eq!(hash(&world, "ten-hash:2"), pairs(&[("a", "a2"), ("b", "b2")]));
    assert_eq!(world.redis(&["TTL", "ten-hash:2"]), "-1");
    assert_eq!(hash(&world, "ten-hash:3"), pairs(&[("a", "a3"), ("b", "b3")]));
    assert_eq!(world.redis(&["GET", "ten-string:4"]), "b4");
    assert_eq!(world.redis(&["TTL", "ten-string:4"]), "-1");
    assert_eq!(world.redis(&["GET", "ten-string:5"]), "b5");
    assert_eq!(world.redis(&["GET", "nobody's"]), "1");
    assert_eq!(world.redis(&["DBSIZE"]), "21");
}

#[test]
fn keys_expire_when_their_rows_do_and_expired_rows_are_counted() {
    let world = World::new();
    world.sql(
        "create table mortal (id bigint primary key, v text, at timestamptz, day date); \
         insert into mortal values (1, 'x', '2090-01-01 00:00:00.0019+00', '2090-01-01'), (2, 'x', null, null), \
         (3, 'x', '2020-01-01Z', '2020-01-01'), (4, 'x', 'infinity', 'infinity'), (5, 'x', '-infinity', '-infinity')",
    );
    let fields = "columns = [\"v\"]";
    let mut plan = String::new();
    for layout in ["hash", "json", "string"] {
        plan += &route("mortal", layout, &format!("{fields}\nexpire_at = \"at\""));
        let ttl = route("mortal", layout, &format!("{fields}\nttl = \"10d\"\nttl_from = \"day\""));
        plan += &ttl
            .replace("name = \"mortal-", "name = \"ttl-")
            .replace("key = \"mortal-", "key = \"ttl-");
    }
    world.plan(&plan);
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&summary["rows"], &summary["expired"]), (&30.into(), &12.into()));
    assert_eq!((&summary["written"], &summary["rejects"]), (&18.into(), &0.into()));
    for layout in ["hash", "json", "string"] {
        // 2090-01-01 in milliseconds since 1970, rounded down; and ten days more.
        for (prefix, at) in [("mortal", "3786912000001"), ("ttl", "3787776000000")] {
            let expiry =
                |id: u32| world.redis(&["PEXPIRETIME", &format!("{prefix}-{layout}:{id}")]);
            assert_eq!(
                [1, 2, 3, 4, 5].map(expiry),
                [at, "-1", "-2", "-1", "-2"],
                "{prefix} {layout}"
            );
        }
    }
}

#[test]
fn nulls_follow_the_policy_of_their_route() {
    let world = World::new();
    world.sql(TEN);
    let named = |null: &str, layout: &str, more: &str| {
        let more = format!("null = \"{null}\"\nrejects_max = 1\n{more}");
        route("ten", layout, &more).replace("\"ten-", &format!("\"{null}-"))
    };
    let mut plan = String::new();
    for null in ["omit", "empty", "error"] {
        plan += &named(null, "hash", "");
        plan += &named(null, "json", "");
        plan += &named(null, "string", "columns = [\"a\"]");
    }
    world.plan(&plan);
    let summary = world.rebuild(&[]).expect(0).summary();
    let rejects = |name: &str| of_route(&summary, name)["rejects"].as_u64().unwrap();
    assert_eq!(["omit-hash", "omit-json", "omit-string"].map(rejects), [0, 0, 1]);
    assert_eq!(["empty-hash", "empty-json", "empty-string"].map(rejects), [0, 0, 0]);
    assert_eq!(["error-hash", "error-json", "error-string"].map(rejects), [1, 1, 1]);
    assert_eq!(hash(&world, "omit-hash:10"), pairs(&[("b", "b10")]));
    assert_eq!(world.redis(&["GET", "omit-json:10"]), r#"{"b":"b10"}"#);
    assert_eq!(hash(&world, "empty-hash:10"), pairs(&[("a", ""), ("b", "b10")]));
    assert_eq!(world.redis(&["GET", "empty-json:10"]), r#"{"a":null,"b":"b10"}"#);
    assert_eq!(world.redis(&["EXISTS", "empty-string:10"]), "1");
    assert_eq!(world.redis(&["STRLEN", "empty-string:10"]), "0");
    for key in ["omit-string:10", "error-hash:10", "error-json:10", "error-string:10"] {
        assert_eq!(world.redis(&["EXISTS", key]), "0", "{key}");
    }
    assert_eq!(hash(&world, "error-hash:9"), pairs(&[("a", "a9"), ("b", "b9")]));
}

#[test]
fn a_filter_constants_and_renamed_fields_shape_what_is_written() {
    let world = World::new();
    world.sql(TEN);
    let more = "where = \"id <= 4 or id = 7 -- some\\n\"\n\
        columns = [{ field = \"A\", column = \"a\" }, { field = \"v\", value = \"\" }, \
        { field = \"kind\", value = \"x \\\"y\\\"\" }, { field = \"again\", column = \"a\" }, \"id\"]";
    world.plan(&[route("ten", "hash", more), route("ten", "json", more)].concat());
    assert_eq!(world.rebuild(&[]).expect(0).summary()["rows"], 10);
    assert_eq!(world.redis(&["DBSIZE"]), "10");
    let wanted = [("A", "a7"), ("again", "a7"), ("id", "7"), ("kind", "x \"y\""), ("v", "")];
    assert_eq!(hash(&world, "ten-hash:7"), pairs(&wanted));
    let json = r#"{"A":"a7","v":"","kind":"x \"y\"","again":"a7","id":7}"#;
    assert_eq!(world.redis(&["GET", "ten-json:7"]), json);
}

#[test]
fn filters_of_the_key_shape_it() {
    let world = World::new();
    world.sql(
        "create table pages (id int primary key, host text, path text, at timestamptz); \
         insert into pages values (1, 'WWW.Code.Town', '/a b/ü:{}', '2024-03-05 23:30:00-02')",
    );
    let key = "p:{{{host|lower}}}:{path|urlencode}:{at|date:%Y%m%d.%H}:{id}";
    let plan = route("pages", "hash", "").replace("pages-hash:{id}", key);
    world.plan(&plan);
    world.rebuild(&[]).expect(0);
    let key = "p:{www.code.town}:%2Fa%20b%2F%C3%BC%3A%7B%7D:20240306.01:1";
    assert_eq!(world.redis(&["KEYS", "*"]), key);
    // What the key has lost is in the value; what it has not, is not.
    let wanted = pairs(&[("host", "WWW.Code.Town"), ("at", "2024-03-06T01:30:00Z")]);
    assert_eq!(hash(&world, key), wanted);
}

#[test]
fn the_url_of_redis_names_user_password_and_database() {
    let world = World::new();
    world.sql(TEN);
    world.redis(&["ACL", "SETUSER", "app", "on", ">p@ss/w", "~*", "+@all"]);
    world.redis(&["SET", "ten-hash:1", "of database 0"]);
    world.plan(&route("ten", "hash", ""));
    let url = format!("redis://app:p%40ss%2Fw@127.0.0.1:{}/3", world.redis.port());
    let words = ["rebuild", "redis", "--json", "--progress", "none"];
    let ran = Ran::of(&world.command(&words).env("REDIS_URL", url).output().unwrap()).expect(0);
    assert!(!ran.stderr.contains("p@ss") && !ran.stderr.contains("p%40ss"), "{}", ran.stderr);
    assert_eq!(world.redis(&["DBSIZE"]), "1");
    assert_eq!(world.redis(&["-n", "3", "DBSIZE"]), "10");
    assert_eq!(world.redis(&["-n", "3", "HGET", "ten-hash:1", "a"]), "a1");
}

#[test]
fn the_same_plan_twice_gives_the_same_keys_and_digest() {
    let world = World::new();
    world.sql(TYPES);
    world.plan(&[route("types", "hash", TYPE_COLUMNS), route("types", "json", "")].concat());
    let dump = || {
        let script = "local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do \
            if redis.call('TYPE', k).ok == 'string' then r[#r + 1] = k .. '=' .. redis.call('GET', k) else \
            local h = redis.call('HGETALL', k) local f = {} \
            for i = 1, #h, 2 do f[#f + 1] = h[i] .. '=' .. h[i + 1] end \
            table.sort(f) r[#r + 1] = k .. '=' .. table.concat(f, ';') end end table.sort(r) return r";
        world.redis(&["--json", "EVAL", script, "0"])
    };
    let first = world.rebuild(&[]).expect(0).summary();
    let keys = dump();
    let second = world.rebuild(&["--lanes", "1"]).expect(0).summary();
    assert_eq!(dump(), keys);
    assert_ne!(first["run_id"], second["run_id"]);
    for name in ["types-hash", "types-json"] {
        let digest = &of_route(&first, name)["digest"];
        assert_eq!(digest.as_str().map(str::len), Some(32), "{first:#}");
        assert_eq!(digest, &of_route(&second, name)["digest"]);
    }
    assert_eq!(second["verified"]["differences"], json!(0));
}

#[test]
fn a_redis_behind_tls_is_filled_when_its_certificate_is_known_and_refused_when_not() {
    let certificates = tempfile::tempdir().unwrap();
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = fixtures::servers::free_port().unwrap();
    let args = [
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &certificate,
    ]
    .into_iter()
    .chain(["--tls-key-file", &key])
    .map(str::to_owned)
    .collect();
    let world =
        World::with(PostgresOptions::default(), RedisOptions { args, ..RedisOptions::default() });
    world.sql(TEN);
    world.plan(&route("ten", "hash", ""));
    let run = |variables: &[(&str, &str)]| {
        let words = ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "1s"];
        let url = format!("rediss://127.0.0.1:{port}");
        let mut command = world.command(&words);
        command.env("REDIS_URL", url).envs(variables.iter().copied());
        Ran::of(&command.output().unwrap())
    };
    let ran = run(&[]);
    assert!(matches!(ran.code, Some(2 | 3)), "{:?} {}", ran.code, ran.stderr);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    run(&[("SSL_CERT_FILE", &certificate)]).expect(0);
    assert_eq!(world.redis(&["DBSIZE"]), "10");
}

#[test]
fn two_routes_to_one_redis_leave_each_others_keys_alone() {
    let world = World::new();
    world.sql(TEN);
    world.plan(&[route("ten", "hash", ""), route("ten", "json", "")].concat());
    assert_eq!(world.rebuild(&["--route", "ten-json"]).expect(0).summary()["rows"], 10);
    assert_eq!(world.redis(&["DBSIZE"]), "10");
    assert_eq!(world.rebuild(&["--route", "ten-hash"]).expect(0).summary()["rows"], 10);
    assert_eq!(world.redis(&["DBSIZE"]), "20");
}
