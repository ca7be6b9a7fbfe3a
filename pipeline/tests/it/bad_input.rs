//! Input that cannot be used: each is refused with the right code, by name, with a way out, and costs nothing.

use crate::world::{Ran, World};
use fixtures::servers::{Encoding, PostgresOptions, RedisOptions};
use std::path::{Path, PathBuf};

pub(crate) const USERS: &str = r#"
[[route]]
name = "users"
table = "alloydb:public.users"
key = "user:{id}"
type = "hash"
"#;
/// What `--json` begins a rebuild with, for commands that are not made by `World`.
pub(crate) const REBUILD: [&str; 7] =
    ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "1s"];

/// A world with table `users` and two keys in Redis that a failure must not touch.
pub(crate) fn world() -> World {
    world_with(RedisOptions::default())
}

pub(crate) fn world_with(redis: RedisOptions) -> World {
    let world = World::with(PostgresOptions::default(), redis);
    world.sql(
        "create table users (id bigint primary key, name text, email text); \
         insert into users select i, 'n' || i, 'e' || i from generate_series(1, 50) i",
    );
    world.plan(USERS);
    seed(&world);
    world
}

pub(crate) fn seed(world: &World) {
    world.redis(&["HSET", "user:1", "old", "field"]);
    world.redis(&["SET", "session:1", "alive"]);
}

/// Asserts that Redis holds what `seed` left and nothing else.
#[track_caller]
pub(crate) fn assert_untouched(world: &World) {
    assert_eq!(world.redis(&["DBSIZE"]), "2", "{}", world.redis(&["KEYS", "*"]));
    assert_eq!(world.redis(&["HGETALL", "user:1"]), "old\nfield");
    assert_eq!(world.redis(&["GET", "session:1"]), "alive");
}

/// Asserts a refusal: the code, the texts, a hint, and no password.
#[track_caller]
pub(crate) fn assert_refused(ran: Ran, code: i32, texts: &[&str]) {
    let ran = ran.expect(code).says(&["error: ", "hint: "]).says(texts);
    assert!(!ran.stderr.contains("wr0ng"), "{}", ran.stderr);
}

pub(crate) fn rebuild_with(world: &World, variables: &[(&str, &str)]) -> Ran {
    let output = world.command(&REBUILD).envs(variables.iter().copied()).output().unwrap();
    Ran::of(&output)
}

/// The files below a folder, at any depth.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// The bytes of every reject file, as text where they are text.
pub(crate) fn reject_text(world: &World) -> String {
    let parquet = files(&world.state().join("rejects"));
    assert!(!parquet.is_empty(), "no reject file in {}", world.state().display());
    let file = std::fs::File::open(&parquet[0]).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let batches: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
    let reasons = batches[0].column_by_name("_reason").unwrap();
    let reasons: &arrow::array::StringArray = arrow::array::AsArray::as_string(reasons);
    reasons.iter().flatten().collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unreachable_postgres_exits_with_3_and_touches_nothing() {
    let world = world();
    let ran = rebuild_with(&world, &[("ALLOYDB_URL", "postgres://app:wr0ng@127.0.0.1:1/app")]);
    assert_refused(ran, 3, &["cannot connect to alloydb at 127.0.0.1:1/app"]);
    assert_untouched(&world);
}

#[test]
fn an_unreachable_redis_exits_with_3() {
    let world = world();
    let ran = rebuild_with(&world, &[("REDIS_URL", "redis://:wr0ng@127.0.0.1:1")]);
    assert_refused(ran, 3, &["cannot connect to redis at 127.0.0.1:1/0"]);
    assert_untouched(&world);
}

#[test]
fn a_wrong_password_of_postgres_exits_with_2() {
    let world = world();
    let url = format!("postgres://rekindle:wr0ng@127.0.0.1:{}/rekindle", world.postgres.port());
    let ran = rebuild_with(&world, &[("ALLOYDB_URL", &url)]);
    assert_refused(ran, 2, &["cannot connect to alloydb", "password authentication failed"]);
    assert_untouched(&world);
}

#[test]
fn a_wrong_password_of_redis_exits_with_2() {
    let world =
        world_with(RedisOptions { password: Some("right".into()), ..RedisOptions::default() });
    let port = world.redis.port();
    for url in [format!("redis://:wr0ng@127.0.0.1:{port}"), format!("redis://127.0.0.1:{port}")] {
        let ran = rebuild_with(&world, &[("REDIS_URL", &url)]);
        assert_refused(ran, 2, &["redis at 127.0.0.1"]);
    }
    assert_untouched(&world);
}

#[test]
fn a_missing_database_exits_with_2() {
    let world = world();
    let url = world.postgres.url().replace("/rekindle", "/nowhere");
    let ran = rebuild_with(&world, &[("ALLOYDB_URL", &url)]);
    assert_refused(ran, 2, &["nowhere"]);
    assert_untouched(&world);
}

#[test]
fn a_missing_table_is_refused_with_the_tables_there_are() {
    let world = world();
    world.plan(&USERS.replace("public.users", "public.user"));
    assert_refused(world.rebuild(&[]), 2, &["public.user does not exist", "public.users"]);
    assert_untouched(&world);
}

#[test]
fn a_table_that_may_not_be_read_is_refused_by_name() {
    let world = world();
    world.sql(
        "create role reader login password 'x'; \
         alter table users owner to postgres; revoke all on users from public",
    );
    let url = format!("postgres://reader:x@127.0.0.1:{}/rekindle", world.postgres.port());
    let ran = rebuild_with(&world, &[("ALLOYDB_URL", &url)]);
    assert_refused(ran, 2, &["public.users", "grant select"]);
    assert_untouched(&world);
}

#[test]
fn a_missing_column_is_refused_with_the_nearest_name() {
    let world = world();
    world.plan(&format!("{USERS}columns = [\"name\", \"emial\"]\n"));
    let texts = ["route users: unknown column emial; did you mean email?"];
    assert_refused(world.rebuild(&[]), 2, &texts);
    assert_untouched(&world);
}

#[test]
fn a_type_that_cannot_be_carried_is_refused_and_carried_as_text_when_asked() {
    let world = world();
    world.sql(
        "create type spot as (x float8, y float8); alter table users add place spot; \
         update users set place = (1.5, -2)",
    );
    let texts = ["column place has type spot", "as_text"];
    assert_refused(world.rebuild(&[]), 2, &texts);
    assert_untouched(&world);

    world.plan(&format!("{USERS}as_text = [\"place\"]\n"));
    world.rebuild(&[]).expect(0);
    assert_eq!(world.redis(&["HGET", "user:7", "place"]), "(1.5,-2)");
}

#[test]
fn a_key_that_nothing_proves_unique_needs_a_word_on_collisions() {
    let world = world();
    world.plan(&USERS.replace("{id}", "{name}"));
    let texts = ["route users: nothing proves that key user:{name} is unique", "on_collision"];
    assert_refused(world.rebuild(&[]), 2, &texts);
    assert_untouched(&world);
}

#[test]
fn colliding_keys_are_named_before_anything_is_written() {
    let world = world();
    world.sql("update users set name = 'same' where id in (3, 44)");
    let route = USERS.replace("{id}", "{name}");
    world.plan(&format!("{route}on_collision = \"error\"\n"));
    assert_refused(world.rebuild(&[]), 2, &["route users", "user:same"]);
    assert_untouched(&world);
}

#[test]
fn the_last_row_by_order_by_wins_a_collision() {
    let world = world();
    world.sql(
        "create table visits (id bigint primary key, who text, at timestamptz, page text); \
         insert into visits select i, 'w' || i % 5, '2024-01-01Z'::timestamptz + (i * 7919 % 100) * interval '1 hour', \
         'p' || i from generate_series(1, 100) i; update visits set at = null where id % 9 = 0",
    );
    world.plan(
        "[[route]]\nname = \"visits\"\ntable = \"alloydb:public.visits\"\nkey = \"visit:{who}\"\n\
         type = \"hash\"\ncolumns = [\"page\"]\non_collision = \"last\"\norder_by = \"at\"\n",
    );
    world.rebuild(&[]).expect(0);
    for who in ["w0", "w1", "w2", "w3", "w4"] {
        let page = world.sql(&format!(
            "select page from visits where who = '{who}' order by at desc nulls last limit 1"
        ));
        assert_eq!(world.redis(&["HGET", &format!("visit:{who}"), "page"]), page);
    }
    assert_eq!(world.redis(&["DBSIZE"]), "7");
}

#[test]
fn a_null_in_a_key_is_a_reject_and_everything_else_is_written() {
    let world = world();
    world.sql(
        "alter table users add code text unique; update users set code = 'c' || id where id <> 9",
    );
    let route = USERS.replace("user:{id}", "code:{code}");
    world.plan(&route);
    let ran = world.rebuild(&[]).expect(7).says(&["1 of 50 rows were rejected", "hint: "]);
    let summary = ran.summary();
    assert_eq!((&summary["written"], &summary["rejects"]), (&49.into(), &1.into()), "{summary:#}");
    let reasons = reject_text(&world);
    assert!(reasons.contains("code") && reasons.contains("null"), "{reasons}");
    assert_eq!(world.redis(&["HGET", "code:c8", "id"]), "8");
    assert_eq!(world.redis(&["DBSIZE"]), "51");

    world.plan(&format!("{route}rejects_max = 1\n"));
    world.rebuild(&[]).expect(0);
    world.plan(&format!("{route}rejects_max = \"1%\"\n"));
    world.rebuild(&[]).expect(7);
    world.plan(&format!("{route}rejects_max = \"2%\"\n"));
    world.rebuild(&[]).expect(0);
}

#[test]
fn bytes_that_are_no_utf8_are_a_reject() {
    let postgres = PostgresOptions { encoding: Encoding::SqlAscii, ..PostgresOptions::default() };
    let world = World::with(postgres, RedisOptions::default());
    world.sql(
        "create table users (id bigint primary key, name text); \
         insert into users values (1, 'fine'), (2, E'Andr\\351'), (3, E'Andr\\303\\251')",
    );
    world.plan(USERS);
    let summary = world.rebuild(&[]).expect(7).says(&["1 of 3 rows were rejected"]).summary();
    assert_eq!(summary["written"], 2);
    let reasons = reject_text(&world);
    assert!(reasons.contains("name") && reasons.contains("UTF-8"), "{reasons}");
    assert_eq!(world.redis(&["HGET", "user:3", "name"]), "André");
    assert_eq!(world.redis(&["EXISTS", "user:2"]), "0");
}

#[test]
fn mistakes_of_a_plan_are_told_all_at_once_with_their_lines() {
    let world = world();
    world.plan(
        "[[route]]\nname = \"a\"\ntable = \"alloydb:public.users\"\nkey = \"a:{id\"\ntype = \"hsh\"\n\
         [[route]]\nname = \"a\"\ntabel = \"alloydb:public.users\"\nkey = \"b:{id}\"\ntype = \"zzset\"\nttl = \"5x\"\n",
    );
    let places = ["line 8", "line 9", "line 11", "line 12", "line 14", "line 15"];
    world.rebuild(&[]).expect(2).says(&places).says(&["did you mean \"hash\"?"]);
    assert_untouched(&world);
}

#[test]
fn mistakes_of_several_routes_against_their_tables_are_told_at_once() {
    let world = world();
    let first = format!("{USERS}columns = [\"nmae\"]\n");
    let second = USERS.replace("\"users\"", "\"others\"").replace("public.users", "public.usersss");
    world.plan(&format!("{first}{second}"));
    assert_refused(world.rebuild(&[]), 2, &["did you mean name?", "public.usersss does not exist"]);
    assert_untouched(&world);
}

#[test]
fn sql_of_a_route_that_cannot_run_is_refused_with_what_postgres_says_of_it() {
    let world = world();
    world.sql("create view broken as select id, 1 / (id - 25) as v from users");
    let query = USERS
        .replace("table = \"alloydb:public.users\"", "from = \"alloydb\"\nquery = \"QUERY\"")
        + "on_collision = \"error\"\n";
    let cases = [
        (format!("{USERS}where = \"nmae = 'x'\"\n"), "nmae"),
        (format!("{USERS}where = \"name = \"\n"), "syntax error"),
        (query.replace("QUERY", "selec 1 as id"), "syntax error"),
        (query.replace("QUERY", "select 1 as id, v from nowhere"), "nowhere"),
        (query.replace("QUERY", "select id, no_such(id) as v from users"), "no_such"),
    ];
    for (plan, text) in cases {
        world.plan(&plan);
        assert_refused(world.rebuild(&["--fresh"]), 2, &["users", text]);
        world.redis(&["DEL", "rekindle:run"]);
        assert_untouched(&world);
    }
    // Only reading it shows that this one fails.
    let broken = USERS.replace("public.users", "public.broken");
    world.plan(&format!("{broken}on_collision = \"error\"\n"));
    assert_refused(world.rebuild(&["--fresh"]), 2, &["users/0", "division by zero"]);
    assert_eq!(world.redis(&["GET", "session:1"]), "alive");
}

#[test]
fn columns_of_a_type_that_does_not_suit_their_use_are_refused_by_name() {
    let world = world();
    world.sql("alter table users add ratio float8");
    let cases = [
        (USERS.replace("{id}", "{id}:{ratio}"), "key column ratio has type float8"),
        (USERS.replace("{id}", "{id}:{name|date:%Y}"), "filter date needs a date"),
        (format!("{USERS}expire_at = \"name\"\n"), "expiry column name has type text"),
        (format!("{USERS}newest_by = \"name\"\n"), "newest_by column name has type text"),
        (format!("{USERS}newest_by = \"nmae\"\n"), "did you mean name?"),
        (format!("{USERS}split_by = \"idd\"\n"), "did you mean id?"),
        (USERS.replace("type = \"hash\"", "type = \"string\""), "exactly one column"),
    ];
    for (plan, text) in cases {
        world.plan(&plan);
        assert_refused(world.rebuild(&[]), 2, &["route users: ", text]);
        assert_untouched(&world);
    }
}
