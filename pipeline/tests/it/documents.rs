//! Documents of Redis' JSON module: what arrives, what is refused, and servers that cannot take them.
//!
//! Invariant: what is read is what the module's own JSON.GET says, and PostgreSQL compares it.

use crate::carried::{of_route, route};
use crate::items::{Wire, assert_complete, fill, killed, resumed};
use crate::type_matrix::{CASES, column, matrix};
use crate::world::World;
use fixtures::servers::{PostgresOptions, Redis, RedisOptions};
use std::fmt::Write as _;

/// A world whose Redis has the module.
pub(crate) fn world() -> World {
    World::with(PostgresOptions::default(), with_module())
}

fn with_module() -> RedisOptions {
    RedisOptions { json_module: true, ..RedisOptions::default() }
}

/// Cells that no document holds: type, and place among its values.
const NOT_HELD: [(&str, usize); 10] = [
    ("float4", 1),
    ("float4", 2),
    ("float4", 3),
    ("float8", 1),
    ("float8", 2),
    ("float8", 3),
    ("numeric", 6),
    ("numeric", 7),
    ("numeric", 8),
    ("numeric", 9),
];

#[test]
fn every_type_arrives_in_documents_or_is_rejected_by_name() {
    let world = world();
    let expected = matrix(&world);
    let mut plan = String::new();
    for index in 0..CASES.len() {
        let name = column(index);
        let more =
            format!("columns = [\"{name}\"]\nwhere = \"{name} is not null\"\nrejects_max = 9");
        plan += &route("matrix", "redisjson", &more).replace("matrix-redisjson", &name);
    }
    world.plan(&plan);
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["rejects"], NOT_HELD.len(), "{summary}");

    // Field by field, by PostgreSQL's own comparison of numeric and jsonb.
    let mut wire = Wire::open(&world);
    let mut sql = "create table cells (cell text, wanted jsonb, found jsonb);".to_owned();
    let mut missing = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        let name = column(index);
        for place in 0..case.values.len() {
            let id = place as u64 + 1;
            let key = format!("{name}:{id}");
            let Some(found) = wire.ask(&["JSON.GET", &key]).text() else {
                missing.push((case.sql_type, place));
                continue;
            };
            let wanted = &expected[&(name.clone(), id)].1;
            write!(
                sql,
                "insert into cells values ($q${} {id}$q$, $q${{\"{name}\":{wanted}}}$q$, $q${found}$q$);",
                case.sql_type
            )
            .unwrap();
        }
    }
    assert_eq!(missing, NOT_HELD);
    world.sql(&sql);
    assert_eq!(world.sql("select * from cells where wanted <> found"), "");
    let held = expected.len() - NOT_HELD.len();
    assert_eq!(world.sql("select count(*) from cells where wanted = found"), held.to_string());
    world.run(&["verify", "redis", "--tier", "full", "--progress", "none"]).expect(0);
}

/// Numbers of up to 15 digits from 10^-22 to 10^22, and whole numbers of 64 bits.
const NUMBERS: &str = "create table numbers (id int primary key, n numeric); \
    insert into numbers select i, (floor(random() * 10 ^ (1 + i % 15))::numeric::text || 'e' || (i * 7 % 30 - 22))::numeric \
        * (1 - 2 * (i % 2)) from generate_series(1, 6000) i; \
    insert into numbers select i, 18446744073709551615 - i from generate_series(6001, 7000) i; \
    insert into numbers select i, i - 9223372036854775808 - 7001 from generate_series(7001, 8000) i;";

#[test]
fn numbers_come_back_as_they_were_after_the_server_loaded_them_too() {
    let world = world();
    world.sql(NUMBERS);
    world.plan(&route("numbers", "redisjson", ""));
    let summary = world.rebuild(&[]).expect(0).summary();
    assert_eq!(summary["written"], 8_000, "{summary}");
    // What DUMP and RESTORE carry is what the module saves and loads.
    let reload = "for _, k in ipairs(redis.call('KEYS', 'numbers*')) do \
        redis.call('RESTORE', k, 0, redis.call('DUMP', k), 'REPLACE') end";
    world.redis(&["EVAL", reload, "0"]);
    let read = "local r = {} for id = 1, 8000 do \
        r[id] = '(' .. id .. ',' .. redis.call('JSON.GET', 'numbers-redisjson:' .. id, '.n') .. ')' end \
        return table.concat(r, ',')";
    let found = world.redis(&["EVAL", read, "0"]);
    let differing = format!(
        "with f (id, n) as (values {found}) select * from numbers join f using (id) where numbers.n <> f.n"
    );
    assert_eq!(world.sql(&differing), "");
    world.run(&["verify", "redis", "--tier", "full", "--progress", "none"]).expect(0);
}

/// Rows that expire and do not, one that has, and one with nulls.
const DOCS: &str = r#"create table docs (id int primary key, n numeric(10,2), big bigint, meta json, until timestamptz);
    insert into docs values
    (1, 1.50, 9223372036854775807, '{"z": 1, "a": [1.0, {"b": null}], "u": "\u00e9"}', null),
    (2, 2, -1, '[]', '2090-01-01Z'), (3, 3, 3, '{}', '2001-01-01Z'), (4, null, null, null, null),
    (5, -0.05, 5, '{"a": {"b": "x"}}', '2090-01-02Z');"#;
const EXPIRES: &str = "columns = [\"n\", \"big\", \"meta\"]\nexpire_at = \"until\"\n";

#[test]
fn a_document_is_replaced_exactly_or_kept_whole() {
    let world = world();
    world.sql(DOCS);
    let key = |id: u32| format!("docs-redisjson:{id}");
    let get = |id: u32| world.redis(&["JSON.GET", &key(id)]);
    let ttl = |id: u32| world.redis(&["PEXPIRETIME", &key(id)]);
    // GIVEN a document with a stale member and an expiry, a key of another type, and no other
    let occupy = || {
        world.redis(&["JSON.SET", &key(1), "$", r#"{"stale":1,"n":7}"#]);
        world.redis(&["EXPIRE", &key(1), "1000"]);
        world.redis(&["HSET", &key(2), "f", "x"]);
    };
    occupy();
    let plan = route("docs", "redisjson", EXPIRES);
    world.plan(&plan);
    // WHEN it is rebuilt THEN exactly the rows are left, and a second run says the same
    for _ in 0..2 {
        let summary = world.rebuild(&["--fresh"]).expect(0).summary();
        let counts = of_route(&summary, "docs-redisjson");
        assert_eq!((&counts["written"], &counts["expired"]), (&4.into(), &1.into()));
        assert_eq!(
            get(1),
            r#"{"n":1.5,"big":9223372036854775807,"meta":{"z":1,"a":[1,{"b":null}],"u":"é"}}"#
        );
        assert_eq!((get(2), get(4)), (r#"{"n":2,"big":-1,"meta":[]}"#.into(), "{}".into()));
        assert_eq!(get(5), r#"{"n":-0.05,"big":5,"meta":{"a":{"b":"x"}}}"#);
        assert_eq!((ttl(1), ttl(2)), ("-1".into(), "3786912000000".into()));
        assert_eq!((ttl(3), ttl(5)), ("-2".into(), "3786998400000".into()));
    }
    // WHEN keys are kept THEN those that exist stay, whatever they are
    world.redis(&["FLUSHALL"]);
    occupy();
    world.plan(&plan.replace("expire_at", "on_conflict = \"keep\"\nexpire_at"));
    let summary = world.rebuild(&["--fresh"]).expect(0).summary();
    let counts = of_route(&summary, "docs-redisjson");
    assert_eq!((&counts["written"], &counts["kept"]), (&2.into(), &2.into()));
    assert_eq!(
        (get(1), world.redis(&["HGET", &key(2), "f"])),
        (r#"{"stale":1,"n":7}"#.into(), "x".into())
    );
    assert_eq!((get(4), ttl(5)), ("{}".into(), "3786998400000".into()));
    // WHEN an empty Redis is filled with nulls, a constant and a part THEN they are members like any other
    world.redis(&["FLUSHALL"]);
    let columns = r#"columns = ["n", { field = "ref", column = "meta", path = "$.a.b" }, { field = "v", value = "1" }]"#;
    world.plan(&route("docs", "redisjson", &format!("{columns}\nnull = \"empty\"\n")));
    world.rebuild(&["--fresh"]).expect(0);
    assert_eq!(get(4), r#"{"n":null,"ref":null,"v":"1"}"#);
    assert_eq!(get(5), r#"{"n":-0.05,"ref":"x","v":"1"}"#);
}

#[test]
fn what_a_document_does_not_hold_is_named_and_the_commands_are_shown() {
    let world = world();
    world.sql(&format!(
        "create table odd (id int primary key, n numeric, j json, f float8); insert into odd values \
         (1, 1.50, '{{\"a\":1}}', 0.25), (2, 1234567890123456.5, null, null), (3, null, '{{\"a\":1,\"a\":2}}', null), \
         (4, null, '\"\\ud800\"', null), (5, null, '{}{}', null), (6, null, null, 0.1::float8 + 0.2::float8)",
        "[".repeat(127),
        "]".repeat(127)
    ));
    world.plan(&route("odd", "redisjson", ""));
    // GIVEN a key, so that a run would delete what is there first
    world.redis(&["SET", "odd-redisjson:1", "x"]);
    let shown = world.run(&["plan", "--sample", "6"]).expect(0).stdout;
    for text in [
        "JSON.SET odd-redisjson:1 $ ",
        "DEL odd-redisjson:1",
        "rejected: column n holds a number that a document of redis would change",
        "rejected: column j holds an object with two members of one name",
        "rejected: column j holds no JSON, or a string that is not unicode",
        "rejected: column j holds more than 126 levels",
        "rejected: column f holds a number that a document of redis would change",
    ] {
        assert!(shown.contains(text), "{text:?} is not in: {shown}");
    }
    let summary = world.rebuild(&[]).expect(7).summary();
    assert_eq!((&summary["rejects"], &summary["written"]), (&5.into(), &1.into()), "{summary}");
    assert_eq!(world.redis(&["JSON.GET", "odd-redisjson:1"]), r#"{"n":1.5,"j":{"a":1},"f":0.25}"#);
    // WHEN the numbers are carried as text THEN nothing is lost
    world.plan(&route("odd", "redisjson", "as_text = [\"n\", \"f\"]\ncolumns = [\"n\", \"f\"]"));
    world.rebuild(&["--fresh"]).expect(0);
    assert_eq!(world.redis(&["JSON.GET", "odd-redisjson:2"]), r#"{"n":"1234567890123456.5"}"#);
    assert_eq!(world.redis(&["JSON.GET", "odd-redisjson:6"]), r#"{"f":"0.30000000000000004"}"#);
}

#[test]
fn a_killed_rebuild_of_documents_is_completed() {
    let world = world();
    fill(&world);
    world.plan(&crate::items::HASH.replace("\"hash\"", "\"redisjson\""));
    killed(&world, 30);
    resumed(&world);
    assert_complete(&world);
}

#[test]
fn a_server_without_the_module_is_refused_by_name() {
    let world = World::new();
    world.sql(DOCS);
    world.plan(&[route("docs", "redisjson", EXPIRES), route("docs", "json", EXPIRES)].concat());
    let why = "route docs-redisjson: type redisjson needs a JSON module, and redis at";
    let fix = "or say type = \"json\"";
    // WHEN it is asked for THEN nothing is written, and every command says why
    world.rebuild(&[]).expect(2).says(&[why, "hint: load Redis' JSON module", fix]);
    world.run(&["verify", "redis", "--progress", "none"]).expect(2).says(&[why, fix]);
    let planned = world.run(&["plan"]).expect(0).stdout;
    assert!(planned.contains(why), "{planned}");
    let checked = world.run(&["check", "--json"]).expect(2).stdout;
    assert!(checked.contains("no JSON module, which docs-redisjson needs"), "{checked}");
    assert_eq!(world.redis(&["DBSIZE"]), "0");
    // The other route needs none.
    world.rebuild(&["--fresh", "--route", "docs-json"]).expect(0);
}

#[test]
fn the_check_tells_the_module_its_rights_and_its_keys() {
    let mut world = world();
    world.sql(DOCS);
    world.plan(&route("docs", "redisjson", EXPIRES));
    world.rebuild(&[]).expect(0);
    world.redis(&["JSON.SET", "other:1", "$", "{}"]);
    world.redis(&["SET", "docs-redisjson:9", "x"]);
    let checked = world.run(&["check", "--coverage", "--json", "--progress", "none"]).expect(2);
    let summary = checked.summary();
    let control = |name: &str| {
        let controls = summary["controls"].as_array().unwrap();
        controls.iter().find(|control| control["control"] == name).unwrap().clone()
    };
    assert_eq!(control("redis documents")["detail"], "module ReJSON 2.8.3", "{summary:#}");
    assert_eq!(control("redis access")["verdict"], "OK");
    let coverage = &summary["coverage"];
    assert_eq!((&coverage["routes"]["keys"], &coverage["unknown"]["keys"]), (&4.into(), &2.into()));
    let why = "it is a string, and route docs-redisjson writes a ReJSON-RL there";
    assert!(checked.stdout.contains(why), "{summary:#}");
    // GIVEN a user without the command
    world.redis(&["ACL", "SETUSER", "default", "-json.set"]);
    let checked = world.run(&["check", "--json"]).expect(2).stdout;
    assert!(checked.contains("may not run JSON.SET on docs-redisjson:0"), "{checked}");
    world.rebuild(&["--fresh"]).expect(2).says(&["NOPERM"]);
    // GIVEN another server
    world.redis = Redis::start(with_module()).unwrap();
    world.rebuild(&["--fresh"]).expect(0);
}
