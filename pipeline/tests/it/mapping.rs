//! How rows become entries: conflicts, expiry, nulls, filters, key filters, addresses.

use crate::carried::{TYPE_COLUMNS, TYPES, hash, of_route, pairs, route};
use crate::world::{Ran, World};
use fixtures::servers::{PostgresOptions, RedisOptions};
use serde_json::json;
use std::process::Command;

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

#[test]
fn a_field_may_be_a_part_of_a_json_column() {
    let world = World::new();
    world.sql(
        "create table docs (id int primary key, meta jsonb, raw json, plain text); insert into docs values \
         (1, '{\"git\": {\"ref\": \"ma\\u00efn \\\"x\\\"\", \"n\": 1.50}, \"tags\": [\"a\", {\"k\": [1, 2]}]}', \
         '{ \"n\" : 1.0e+2, \"n\": -0.0, \"s p\": \"a\\u0062\\n\" }', 'x'), \
         (2, '{\"git\": {\"ref\": null}}', '[{\"n\": true}]', 'x'), (3, null, null, 'x'), \
         (4, '{\"git\": \"ref\", \"tags\": {}}', '\"\\ud800\"', 'x')",
    );
    let columns = "columns = [{ field = \"ref\", column = \"meta\", path = \"$.git.ref\" }, \
        { field = \"num\", column = \"meta\", path = '$[\"git\"].n' }, { field = \"tag\", column = \"meta\", path = \"$.tags[1]\" }, \
        { field = \"n\", column = \"raw\", path = \"$.n\" }, { field = \"sp\", column = \"raw\", path = '$[\"s p\"]' }, \
        { field = \"all\", column = \"meta\", path = \"$\" }, { field = \"v\", value = \"1\" }]\n";
    let git =
        "columns = [{ field = \"ref\", column = \"meta\", path = \"$.git\" }]\nrejects_max = 1\n";
    let plan = [
        route("docs", "hash", columns),
        route("docs", "json", columns),
        route("docs", "string", git),
    ];
    world.plan(&plan.concat());
    world.rebuild(&[]).expect(0);
    // Of members with one name the last counts; numbers stay as they are written.
    let first = [
        ("all", r#"{"git":{"n":1.50,"ref":"maïn \"x\""},"tags":["a",{"k":[1,2]}]}"#),
        ("n", "-0.0"),
        ("num", "1.50"),
        ("ref", "maïn \"x\""),
        ("sp", "ab\n"),
        ("tag", r#"{"k":[1,2]}"#),
        ("v", "1"),
    ];
    assert_eq!(hash(&world, "docs-hash:1"), pairs(&first));
    let json = r#"{"ref":"maïn \"x\"","num":1.50,"tag":{"k":[1,2]},"n":-0.0,"sp":"a\u0062\n","all":{"git":{"n":1.50,"ref":"maïn \"x\""},"tags":["a",{"k":[1,2]}]},"v":"1"}"#;
    assert_eq!(world.redis(&["GET", "docs-json:1"]), json);
    let second = [("all", r#"{"git":{"ref":null}}"#), ("v", "1")];
    assert_eq!(hash(&world, "docs-hash:2"), pairs(&second));
    assert_eq!(hash(&world, "docs-hash:3"), pairs(&[("v", "1")]));
    let fourth = [("all", r#"{"git":"ref","tags":{}}"#), ("v", "1")];
    assert_eq!(hash(&world, "docs-hash:4"), pairs(&fourth));
    assert_eq!(world.redis(&["GET", "docs-string:2"]), r#"{"ref":null}"#);
    assert_eq!(world.redis(&["GET", "docs-string:4"]), "ref");
    assert_eq!(world.redis(&["EXISTS", "docs-string:3"]), "0");
}

#[test]
fn a_path_needs_json_and_a_string_in_it_must_be_unicode() {
    let world = World::new();
    world.sql(
        "create table docs (id int primary key, raw json, plain text); insert into docs values \
         (1, '{\"a\": \"\\ud800\"}', 'x'), (2, '{\"a\": \"b\"}', 'x')",
    );
    let with = |column: &str| {
        let path = format!("{{ field = \"a\", column = \"{column}\", path = \"$.a\" }}");
        format!("columns = [{path}]\n")
    };
    world.plan(&route("docs", "hash", &with("plain")));
    world.rebuild(&[]).expect(2).says(&[
        "route docs-hash: column plain has type text; a path goes with columns of JSON only",
    ]);
    world.plan(&route("docs", "hash", &with("raw")));
    let ran = world.rebuild(&["--fresh"]).expect(7);
    assert_eq!(ran.summary()["rejects"], 1);
    assert_eq!(hash(&world, "docs-hash:2"), pairs(&[("a", "b")]));
    assert_eq!(world.redis(&["DBSIZE"]), "1");
}
