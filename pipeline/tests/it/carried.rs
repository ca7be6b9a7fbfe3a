//! What arrives: every type, every kind of table, every option of a route, compared with texts written by hand.

use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

/// A route that reads table `public.<name>` into `<name>:{id}`.
pub(crate) fn route(name: &str, layout: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}-{layout}\"\ntable = \"alloydb:public.{name}\"\n\
         key = \"{name}-{layout}:{{id}}\"\ntype = \"{layout}\"\n{more}\n"
    )
}

pub(crate) fn hash(world: &World, key: &str) -> BTreeMap<String, String> {
    serde_json::from_str(&world.redis(&["--json", "HGETALL", key])).unwrap()
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a route of the summary says.
pub(crate) fn of_route<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let routes = summary["routes"].as_array().unwrap();
    routes.iter().find(|route| route["name"] == name).unwrap()
}

/// Every key of the form `prefix<id>`, as (id, value), in order of the ids.
pub(crate) fn strings(world: &World, prefix: &str) -> Vec<String> {
    let script = "local r = {} for _, k in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do \
                  r[#r + 1] = string.sub(k, #ARGV[1] + 1) .. '=' .. redis.call('GET', k) end \
                  table.sort(r) return r";
    serde_json::from_str(&world.redis(&["--json", "EVAL", script, "0", prefix])).unwrap()
}

/// The same, as SQL gives it.
pub(crate) fn rows(world: &World, sql: &str) -> Vec<String> {
    let mut rows: Vec<String> = world.sql(sql).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

pub(crate) const TYPES: &str = r#"
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
pub(crate) const TYPE_COLUMNS: &str = r#"columns = ["b", "i2", "i4", "i8", "f4", "f8", "n", "tx", "vc", "ch", "nm", "e", "dm",
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
fn a_view_is_cut_by_a_text_a_time_and_its_own_key() {
    let world = World::new();
    world.sql(
        "create view texts as select i as id, chr(39) || chr(92) || md5(i::text) as s, \
         '2024-01-01Z'::timestamptz + i * interval '1.000001 s' as at, 'v' || i as v from generate_series(1, 1000) i",
    );
    for column in ["s", "at", "id"] {
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
