//! Every type of PostgreSQL with its edge values, as a hash, JSON and strings, compared field by field with what
//! PostgreSQL itself prints of them; and the types that are refused, and how they are carried all the same.

use crate::carried::{hash, pairs, route, rows, strings};
use crate::world::World;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Types that the matrix needs, and `six`, which writes fractions of a second with all six digits.
const MADE: &str = r"
create extension citext;
create type mood as enum ('ok', 'bäd, really', '');
create type spread as range (subtype = float8);
create type words as range (subtype = text);
create domain short as text check (length(value) < 10);
create domain shorter as short check (length(value) < 5);
create domain ids as int4[];
create domain ages as interval;
create function six(t text) returns text immutable strict language sql as $$
    select case when t ~ '\.' then regexp_replace(t, '\.\d+', '.' || rpad(substring(t from '\.(\d+)'), 6, '0')) else t end $$;
create function iso(t text) returns text immutable strict language sql as $$
    select regexp_replace(regexp_replace(six(t), '^(\d+-\d+-\d+) ', '\1T'), '\+00', 'Z') $$;
";

/// What the session of the expectations prints under, and what another session must not be moved by.
const SETTINGS: &str = "
alter database rekindle set intervalstyle = 'iso_8601';
alter database rekindle set timezone = 'UTC';
alter role rekindle set intervalstyle = 'sql_standard';
alter role rekindle set timezone = 'Asia/Kathmandu';
alter role rekindle set datestyle = 'German, DMY';
alter role rekindle set bytea_output = 'escape';
alter role rekindle set extra_float_digits = -3;
";

/// A column: its type, and its values as SQL. `{}` in an expression is the column.
pub(crate) struct Case {
    pub(crate) sql_type: &'static str,
    text: &'static str,
    json: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// What the output function of the type prints.
const PRINTED: &str = "format('%s', {})";
const TO_JSON: &str = "to_json({})";
const QUOTED: &str = "to_json(format('%s', {}))";

const fn case(
    sql_type: &'static str,
    text: &'static str,
    json: &'static str,
    values: &'static [&'static str],
) -> Case {
    Case { sql_type, text, json, values }
}

/// A type whose text is what its output function prints, and whose JSON is that text as a string.
const fn printed(sql_type: &'static str, values: &'static [&'static str]) -> Case {
    case(sql_type, PRINTED, QUOTED, values)
}

/// A type whose text and JSON are those of `to_json`.
const fn array(sql_type: &'static str, values: &'static [&'static str]) -> Case {
    case(sql_type, TO_JSON, TO_JSON, values)
}

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    case("bool", "({})::text", TO_JSON, &["true", "false"]),
    case("int2", PRINTED, TO_JSON, &["'-32768'", "32767", "0"]),
    case("int4", PRINTED, TO_JSON, &["'-2147483648'", "2147483647"]),
    case("int8", PRINTED, TO_JSON, &["'-9223372036854775808'", "9223372036854775807"]),
    case("float4", PRINTED, TO_JSON, &["'-0'", "'1e-45'", "'1.1754942e-38'", "'3.4028235e38'", "'NaN'", "'Infinity'", "'-Infinity'", "0.1", "999999", "1e6"]),
    case("float8", PRINTED, TO_JSON, &["'-0'", "'5e-324'", "'2.225073858507201e-308'", "'1.7976931348623157e308'", "'NaN'", "'Infinity'", "'-Infinity'", "0.1", "999999999999999", "1e15"]),
    case("numeric", PRINTED, TO_JSON, &["1.10", "0.000", "'-0.0'", "'NaN'", "'Infinity'", "'-Infinity'", "'1e131071'", "'1e-16383'", "-123456789.123456789000", "'1e1000'"]),
    case("numeric(1000,500)", PRINTED, TO_JSON, &["1.5", "0", "-0.00001"]),
    case("numeric(5,-2)", PRINTED, TO_JSON, &["12345", "-49"]),
    case("numeric(3,5)", PRINTED, TO_JSON, &["0.00123", "0"]),
    printed("text", &["''", r"E'\x01\x02\x03\x04\x05\x06\x07\b\t\n\x0b\f\r\x0e\x0f\x10\x1b\x1f\x7f'", "U&'\\+01F680\\+10FFFD'", r#"'"\/'"#, "' '", "E'\\u0080\\u2028\\ufffd'", "'e\u{301}'", "'null'"]),
    printed("varchar(5)", &["'abcde'", "''"]),
    printed("char(5)", &["'ab'", "''", "'äöü'"]),
    printed("name", &["'n'", "''"]),
    printed("citext", &["'MiXed'", "''"]),
    printed("\"char\"", &["'x'", "''"]),
    printed("bytea", &["'\\x'", "(select string_agg(set_byte('\\x00', 0, b), '' order by b) from generate_series(0, 255) b)", "'\\x00'"]),
    printed("uuid", &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'00000000-0000-0000-0000-000000000000'"]),
    printed("date", &["'4714-11-24 BC'", "'5874897-12-31'", "'infinity'", "'-infinity'", "'0001-12-31 BC'", "'2024-02-29'", "'10000-01-01'"]),
    case("time", "six(({})::text)", "to_json(six(({})::text))", &["'00:00'", "'24:00:00'", "'23:59:59.999999'", "'12:34:56.5'"]),
    printed("timetz", &["'12:34:56.789+05:30:15'", "'00:00-15:59'", "'24:00:00+00'"]),
    case("timestamp", "iso(({})::text)", "to_json(iso(({})::text))", &["'4714-11-24 00:00:00 BC'", "'294247-01-10 04:00:54.775806'", "'infinity'", "'-infinity'", "'1969-12-31 23:59:59.999999'", "'0001-01-01'", "'9999-12-31 23:59:59.999999'", "'2000-01-01 00:00:00.1'"]),
    case("timestamptz", "iso(({})::text)", "to_json(iso(({})::text))", &["'4714-11-24 00:00:00+00 BC'", "'294247-01-10 04:00:54.775806+00'", "'infinity'", "'-infinity'", "'1970-01-01 00:00+00'", "'2024-03-31 02:30+02'", "'0044-03-15 12:00:00.000001+00 BC'"]),
    printed("interval", &["'1 year 2 months 3 days 04:05:06.789'", "'-1 year'", "'0'", "'178000000 years'", "'-1 mon +1 day -00:00:00.000001'", "'1 day'", "'24:00:00'", "'-2562047788:00:54.775807'"]),
    case("json", "({})::text", "({})", &[r#"'{"z" : 1, "a":[]}'"#, "'null'", r#"'"\u00e9"'"#, "' 1.50 '"]),
    case("jsonb", "({})::text", "({})", &[r#"'{"z" : 1, "a":[]}'"#, "'null'", "'1.50'", "'{}'"]),
    printed("inet", &["'10.1.2.3'", "'10.1.2.3/8'", "'0.0.0.0/0'", "'::'", "'::1'", "'::2'", "'::1.2.3.4'", "'::ffff:1.2.3.4/97'", "'2001:db8:0:0:1:0:0:1/64'", "'fe80::'"]),
    printed("cidr", &["'10.1.2.3'", "'10.0.0.0/8'", "'0.0.0.0/0'", "'::/0'", "'2001:db8::/32'", "'1:2:3:4:5:6:7:8'", "'1:0:2::/48'", "'::ffff:0:0/96'", "'0:0:1::'", "'::5:0:0:0'"]),
    printed("macaddr", &["'08:00:2B:01:02:03'"]),
    printed("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    printed("bit(9)", &["'000000001'", "'111111111'"]),
    printed("varbit", &["''", "'10101'"]),
    case("xml", "({})::text", "to_json(({})::text)", &["'<a b=\"c\">ü&amp;</a>'", "''", "'<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>'"]),
    printed("oid", &["0", "4294967295"]),
    printed("xid", &["'4294967295'"]),
    printed("xid8", &["'18446744073709551615'"]),
    printed("cid", &["'7'"]),
    printed("tid", &["'(4294967295,65535)'"]),
    printed("pg_lsn", &["'FFFFFFFF/FFFFFFFF'", "'0/0'"]),
    printed("pg_snapshot", &["'10:20:10,14,15'"]),
    printed("txid_snapshot", &["'10:20:10,14,15'"]),
    printed("int2vector", &["'1 2 -3'", "''"]),
    printed("oidvector", &["'1 4294967295'", "''"]),
    printed("tsvector", &["'''a b'':1A,2 c'", "''"]),
    printed("tsquery", &["'a & !b | (c <-> d:*)'", "''"]),
    printed("jsonpath", &["'$.a[*] ? (@.b > 1)'"]),
    printed("point", &["'(1e-300,-0)'", "'(NaN,Infinity)'", "'(0.1,0.30000000000000004)'"]),
    printed("line", &["'{1,-1,0}'"]),
    printed("lseg", &["'[(0,0),(1,1)]'"]),
    printed("box", &["'(1,1),(0,0)'"]),
    printed("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    printed("polygon", &["'((0,0),(1,1),(1,0))'"]),
    printed("circle", &["'<(0,0),1e-7>'"]),
    printed("int4range", &["'[1,5]'", "'empty'", "'(,)'", "'[3,)'"]),
    printed("int8range", &["'[-9223372036854775808,9223372036854775807)'"]),
    printed("numrange", &["'(1.10,2.00]'", "'[NaN,NaN]'"]),
    printed("tsrange", &["'[2024-01-01 00:00:00.5,infinity)'"]),
    printed("tstzrange", &["'[\"2024-01-01 00:00:00.5+02\",infinity]'", "'[,2024-01-01 BC]'"]),
    printed("daterange", &["'[2024-01-01,2024-01-31]'", "'[-infinity,infinity]'"]),
    printed("spread", &["'[0.1,1e300)'"]),
    printed("words", &[r#"'["a,b","c\"d\\"]'"#, "'(\"\",)'"]),
    printed("int4multirange", &["'{}'", "'{[1,3),[5,)}'"]),
    printed("tstzmultirange", &["'{[2024-01-01 00:00+02,2024-01-02 00:00+02)}'"]),
    printed("mood", &["'ok'", "'bäd, really'", "''"]),
    printed("short", &["'dm'", "''"]),
    printed("shorter", &["'dm'"]),
    array("ids", &["'{1,NULL}'", "'{}'"]),
    printed("ages", &["'1 day'"]),
    array("bool[]", &["'{t,NULL,f}'", "'{}'"]),
    array("int8[]", &["'{9223372036854775807,NULL}'"]),
    array("float8[]", &["'{-0,NaN,Infinity,0.1}'"]),
    array("numeric[]", &["'{1.10,NaN,NULL}'"]),
    array("text[]", &[r#"'{"a,b",NULL,"q\"",""}'"#, "array[E'\\x01\\n']", "'{NULL}'"]),
    array("bytea[]", &["array['\\x00ff'::bytea, '', null]"]),
    array("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
    array("jsonb[]", &["array['{\"a\": 1}'::jsonb, 'null', null]"]),
    array("citext[]", &["'{A,NULL}'"]),
    array("mood[]", &["'{ok,NULL,\"bäd, really\"}'"]),
    array("shorter[]", &["'{a,NULL}'"]),
    array("interval[]", &["'{1 day,NULL,-00:00:01.5}'", "'{}'"]),
    array("ages[]", &["'{1 day}'"]),
    array("inet[]", &["'{10.1.2.3,NULL,10.1.2.3/8,::1}'", "'{}'"]),
    array("cidr[]", &["'{10.0.0.0/8,1.2.3.4}'"]),
    array("int4range[]", &["array['[1,5)'::int4range, 'empty', null]"]),
    array("varbit[]", &["array[B'101', B'']"]),
    array("box[]", &["array['(1,1),(0,0)'::box]"]),
    array("timetz[]", &["array['12:34+05:30'::timetz]"]),
];

pub(crate) fn column(index: usize) -> String {
    format!("c{index}")
}

/// The tables, and what PostgreSQL prints: (column, row) to (text, JSON).
pub(crate) fn matrix(world: &World) -> HashMap<(String, u64), (String, String)> {
    world.sql(MADE);
    let mut columns = Vec::new();
    let mut expected = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        let name = column(index);
        columns.push(format!("{name} {}", case.sql_type));
        let (text, json) = (case.text.replace("{}", &name), case.json.replace("{}", &name));
        expected.push(format!(
            "select json_build_array('{name}', id, ({text})::text, ({json})::text) from matrix where {name} is not null"
        ));
    }
    let mut sql = format!("create table matrix (id int primary key, {});", columns.join(", "));
    let rows = CASES.iter().map(|case| case.values.len()).max().unwrap();
    for row in 0..rows {
        let values: Vec<&str> =
            CASES.iter().map(|case| *case.values.get(row).unwrap_or(&"null")).collect();
        write!(sql, "insert into matrix values ({}, {});", row + 1, values.join(", ")).unwrap();
    }
    world.sql(&sql);
    world.sql(SETTINGS);
    let printed = world.sql(&expected.join(" union all "));
    let parsed = printed.lines().map(|line| {
        let cell: (String, u64, String, String) = serde_json::from_str(line).unwrap();
        ((cell.0, cell.1), (cell.2, cell.3))
    });
    parsed.collect()
}

#[test]
fn every_type_arrives_as_postgresql_prints_it() {
    let world = World::new();
    let expected = matrix(&world);
    let cells: usize = CASES.iter().map(|case| case.values.len()).sum();
    assert_eq!(expected.len(), cells);
    let mut plan = [route("matrix", "hash", ""), route("matrix", "json", "")].concat();
    for index in 0..CASES.len() {
        let name = column(index);
        let more = format!("columns = [\"{name}\"]\nwhere = \"{name} is not null\"");
        plan += &route("matrix", "string", &more).replace("matrix-string", &name);
    }
    world.plan(&plan);
    world.rebuild(&[]).expect(0);
    let rows = CASES.iter().map(|case| case.values.len()).max().unwrap();
    for id in 1..=rows as u64 {
        let mut fields = BTreeMap::new();
        let mut members = Vec::new();
        for index in 0..CASES.len() {
            let name = column(index);
            if let Some((text, json)) = expected.get(&(name.clone(), id)) {
                members.push(format!("\"{name}\":{json}"));
                fields.insert(name, text.clone());
            }
        }
        let found = hash(&world, &format!("matrix-hash:{id}"));
        for (name, text) in &fields {
            let case = &CASES[name[1..].parse::<usize>().unwrap()];
            assert_eq!(found.get(name), Some(text), "{} of row {id}", case.sql_type);
        }
        assert_eq!(found, fields);
        let object = world.redis(&["GET", &format!("matrix-json:{id}")]);
        // The largest numbers are JSON and no float.
        let is_json = serde_json::from_str::<IgnoredAny>(&object).is_ok();
        assert!(is_json, "row {id}");
        assert_eq!(object, format!("{{{}}}", members.join(",")), "row {id}");
    }
    for (index, case) in CASES.iter().enumerate() {
        let name = column(index);
        let mut wanted: Vec<String> = (1..=case.values.len())
            .map(|id| format!("{id}={}", expected[&(name.clone(), id as u64)].0))
            .collect();
        wanted.sort();
        assert_eq!(strings(&world, &format!("{name}:")), wanted, "{}", case.sql_type);
    }
}

/// Types that have no form of their own, each with a value.
const REFUSED: &[(&str, &str)] = &[
    ("hstore", "'a=>1,b=>NULL'"),
    ("cube", "'(1,2)'"),
    ("pair", "'(1,\"a b\")'"),
    ("pair[]", "'{\"(1,a)\"}'"),
    ("money", "'1234.5'"),
    ("regclass", "'pg_catalog.pg_class'"),
    ("aclitem", "'rekindle=r/rekindle'"),
    ("prices", "'[1,2)'"),
    ("vector", "'(1)'"),
];

/// `vector` stands for the type of that name, which is an extension's and may not be installed.
const REFUSED_TYPES: &str = "create extension hstore; create extension cube; \
    create type pair as (n int, t text); create type vector as (x float4); \
    create type prices as range (subtype = money);";

#[test]
fn a_type_without_a_form_is_refused_by_name_and_carried_as_its_text() {
    let world = World::new();
    world.sql(REFUSED_TYPES);
    let columns: Vec<String> =
        (0..REFUSED.len()).map(|i| format!("{} {}", column(i), REFUSED[i].0)).collect();
    let values: Vec<&str> = REFUSED.iter().map(|(_, value)| *value).collect();
    world.sql(&format!(
        "create table refused (id int primary key, {}); insert into refused values (1, {})",
        columns.join(", "),
        values.join(", ")
    ));
    world.plan(&route("refused", "hash", ""));
    let ran = world.rebuild(&[]).expect(2);
    for (index, (name, _)) in REFUSED.iter().enumerate() {
        let line = format!(
            "route refused-hash: column {} has type {name}, which cannot be carried; list it in as_text",
            column(index)
        );
        assert!(ran.stderr.contains(&line), "{line:?} is not in: {}", ran.stderr);
    }
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    let names: Vec<String> = (0..REFUSED.len()).map(|i| format!("\"{}\"", column(i))).collect();
    world.plan(&route("refused", "hash", &format!("as_text = [{}]", names.join(", "))));
    world.rebuild(&[]).expect(0);
    let found = hash(&world, "refused-hash:1");
    for (index, (name, _)) in REFUSED.iter().enumerate() {
        let text = world.sql(&format!("select {}::text from refused", column(index)));
        assert_eq!(found[&column(index)], text, "{name}");
    }
}

#[test]
fn what_an_array_or_a_time_cannot_hold_is_rejected_by_name_and_carried_as_text() {
    let world = World::new();
    world.sql(
        "create table odd (id int primary key, a int4[], t timestamptz); insert into odd values \
         (1, '{{1,2},{3,4}}', null), (2, '[0:1]={1,2}', null), (3, '{1}', '294276-12-31 23:59:59.999999+00'), \
         (4, '{1}', '2024-01-01Z')",
    );
    let plan = route("odd", "hash", "");
    world.plan(&plan);
    let ran = world.rebuild(&[]).expect(7);
    assert_eq!(ran.summary()["rejects"], 3);
    assert_eq!(world.redis(&["DBSIZE"]), "1");
    world.redis(&["FLUSHALL"]);
    world.plan(&format!("{plan}as_text = [\"a\", \"t\"]\n"));
    world.rebuild(&["--fresh"]).expect(0);
    assert_eq!(hash(&world, "odd-hash:1"), pairs(&[("a", "{{1,2},{3,4}}")]));
    assert_eq!(hash(&world, "odd-hash:2"), pairs(&[("a", "[0:1]={1,2}")]));
    let last = hash(&world, "odd-hash:3");
    assert_eq!(last["t"], "294276-12-31 23:59:59.999999+00");
}

#[test]
fn network_addresses_are_written_as_postgresql_writes_them() {
    let world = World::new();
    // Every place and length of a run of zeros, and every way to mark an IPv4 address, with and without a netmask.
    world.sql(
        "create table nets (id int primary key, a inet); insert into nets select row_number() over (), address from ( \
         select (array_to_string(array(select case when (bits >> i) & 1 = 1 then to_hex(i + 1 + (bits % 3) * 4660) else '0' end \
         from generate_series(0, 7) i), ':') || case when bits % 2 = 0 then '/' || bits % 129 else '' end)::inet as address \
         from generate_series(0, 255) bits union all select ('::ffff:0:0'::inet + n * 16777259::bigint) from generate_series(0, 50) n \
         union all select ('::'::inet + n * 1000003::bigint) from generate_series(0, 5000, 7) n) x",
    );
    world.plan(&route("nets", "string", "columns = [\"a\"]"));
    world.rebuild(&[]).expect(0);
    let wanted = rows(&world, "select format('%s=%s', id, a) from nets");
    assert_eq!(strings(&world, "nets-string:"), wanted);
}
