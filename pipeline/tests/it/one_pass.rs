//! Several routes over one table: PostgreSQL sees one pass, and Redis gets what each route alone would have written.

use crate::carried::of_route;
use crate::items::{HASH, ROWS, Wire, fill, killed, started};
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, Redis, RedisOptions, StopMode};
use serde_json::Value;
use std::fmt::Write;
use std::fs;

/// Three routes over one table: other columns, other layouts, conditions of their own and an order of their own.
fn three() -> String {
    let second = "[[route]]\nname = \"second\"\ntable = \"alloydb:public.items\"\nkey = \"second:{id}\"\n\
        type = \"json\"\ncolumns = [\"c\", \"id\", { field = \"bb\", column = \"b\" }]\nwhere = \"b % 5 <> 0 -- or null\\n\"\n\
        priority = 1\n";
    let third = "[[route]]\nname = \"third\"\ntable = \"alloydb:public.items\"\nkey = \"third:{id}\"\n\
        type = \"string\"\ncolumns = [\"c\"]\nas_text = [\"c\"]\nwhere = \"c is not null\"\n";
    [HASH, second, third].concat()
}

/// A world whose PostgreSQL writes down every statement, with the filled table.
fn logged() -> World {
    let world = logged_and_empty();
    fill(&world);
    world
}

fn logged_and_empty() -> World {
    let settings = [
        ("log_statement", "all"),
        ("logging_collector", "on"),
        ("log_directory", "log"),
        ("log_filename", "statements.log"),
        ("log_rotation_age", "0"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    World::with(PostgresOptions { settings, ..PostgresOptions::default() }, RedisOptions::default())
}

/// The statements that read a range of the table, whole or in part, for the first time, which a catch-up does not.
fn statements(world: &World) -> Vec<String> {
    let log = world.postgres.data_dir().join("log/statements.log");
    let text = fs::read_to_string(log).unwrap();
    let copies = text.split("statement: ").filter(|text| text.starts_with("copy (select ctid"));
    copies.filter(|text| !text.contains("xmin")).map(str::to_owned).collect()
}

/// Whether a statement reads some rows only, to find out what they will take.
fn is_sample(statement: &str) -> bool {
    statement.contains(" limit 2000)")
}

/// Those statements that read all there is to be read.
fn reads(world: &World) -> Vec<String> {
    statements(world).into_iter().filter(|statement| !is_sample(statement)).collect()
}

/// Rows that the samples have read at most: of one condition in the tests, a fifth of the rows does not hold.
fn sampled(world: &World) -> u64 {
    statements(world).iter().filter(|statement| is_sample(statement)).count() as u64 * 2_500
}

/// Rows that PostgreSQL has read of the table by scanning it, once nobody is connected who has not said so.
fn scanned(world: &World) -> u64 {
    wait_until("the end of the sessions", || {
        let sql = "select count(*) from pg_stat_activity where application_name = 'rekindle'";
        world.sql(sql) == "0"
    });
    let sql = "select seq_tup_read from pg_stat_user_tables where relname = 'items'";
    world.sql(sql).parse().unwrap()
}

#[test]
fn routes_over_one_table_read_it_once_and_write_what_each_alone_would() {
    // GIVEN three routes over one table
    let mut world = logged();
    world.plan(&three());
    let planned = world.run(&["plan", "--json"]).expect(0).summary();
    assert_eq!(planned["routes"][1]["read_with"], serde_json::json!(["second", "third"]));
    let shown = world.run(&["plan"]).expect(0).stdout;
    assert!(shown.contains("read       in one pass with second, third"), "{shown}");
    let before = scanned(&world);

    // WHEN they are rebuilt together THEN every row was read once, one statement for every partition
    let together = world.rebuild(&[]).expect(0).summary();
    let (read, samples) = (scanned(&world) - before, sampled(&world));
    assert!(
        samples > 0 && (ROWS..=ROWS + samples).contains(&read),
        "{read} rows, {samples} sampled"
    );
    let partitions = of_route(&together, "items")["partitions"].as_u64().unwrap();
    assert!(partitions > 2, "{together:#}");
    assert_eq!(reads(&world).len() as u64, partitions, "{:#?}", reads(&world));
    let found = Wire::open(&world).everything();

    // AND rows, digests and keys are those of runs of one route each, in another Redis
    world.redis = Redis::start(RedisOptions::default()).unwrap();
    let mut bytes = 0;
    for name in ["items", "second", "third"] {
        let alone = world.rebuild(&["--route", name]).expect(0).summary();
        let (alone, together) = (of_route(&alone, name), of_route(&together, name));
        for figure in ["rows", "written", "digest", "partitions", "rejects"] {
            assert_eq!(alone[figure], together[figure], "{name} {figure}");
        }
        let share = together["bytes"].as_u64().unwrap();
        assert!(share > 0 && share < alone["bytes"].as_u64().unwrap(), "{name}");
        bytes += alone["bytes"].as_u64().unwrap();
    }
    assert!(together["bytes"].as_u64().unwrap() < bytes);
    let (read, samples) = (scanned(&world) - before, sampled(&world));
    assert!((4 * ROWS..=4 * ROWS + samples).contains(&read), "{read} rows, {samples} sampled");
    let wanted = Wire::open(&world).everything();
    assert_eq!(found.len(), wanted.len());
    assert!(found == wanted, "a pass of three routes wrote something else");
    let count = |sql: &str| world.sql(&format!("select count(*) from items {sql}"));
    let keys =
        |prefix: &str| found.keys().filter(|key| key.starts_with(prefix)).count().to_string();
    assert_eq!(keys("item:"), count(""));
    assert_eq!(keys("second:"), count("where b % 5 <> 0"));
    assert_eq!(keys("third:"), count("where c is not null"));
}

#[test]
fn a_killed_pass_goes_on_from_where_each_route_was() {
    let world = logged();
    world.plan(&three());
    let standing = killed(&world, 60);
    let first = reads(&world);
    let done = |standing: &Value| -> u64 {
        let routes = standing["routes"].as_array().unwrap();
        routes.iter().map(|route| route["partitions_done"].as_u64().unwrap()).min().unwrap()
    };
    let summary = world.rebuild(&["--lanes", "2"]).expect(0).summary();
    assert_eq!((&summary["status"], &summary["resumed"]), (&"done".into(), &1.into()));
    let partitions = of_route(&summary, "items")["partitions"].as_u64().unwrap();
    let all = reads(&world);
    // What was done is not read again; what was not is read in one pass, from where the slowest route stood.
    let again = (all.len() - first.len()) as u64;
    assert!(again <= partitions - done(&standing), "{again} {standing:#}");
    let (wanted, found) = (of_world(&world), Wire::open(&world).everything().len().to_string());
    assert_eq!(found, wanted);
    // No route is given a row twice.
    assert_eq!(summary["rows"].to_string(), wanted);
    assert_eq!(summary["verified"]["differences"], 0, "{summary:#}");
}

#[test]
fn a_pass_whose_postgres_restarts_goes_on() {
    let mut world = logged();
    world.plan(&three());
    let child = started(&world, 30);
    world.postgres.stop(StopMode::Fast).unwrap();
    world.postgres.start_again().unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    if ran.code != Some(0) {
        println!("the run ended first: {:?} {}", ran.code, ran.stderr);
        ran.expect(3);
        world.rebuild(&[]).expect(0);
    }
    let found = Wire::open(&world).everything().len().to_string();
    assert_eq!(found, of_world(&world));
}

/// How many keys the three routes make.
fn of_world(world: &World) -> String {
    world.sql("select count(*) + count(*) filter (where b % 5 <> 0) + count(c) from items")
}

#[test]
fn a_condition_that_fails_stops_its_own_route_only() {
    let world = logged();
    let failing = "[[route]]\nname = \"failing\"\ntable = \"alloydb:public.items\"\nkey = \"failing:{id}\"\n\
        type = \"string\"\ncolumns = [\"a\"]\nwhere = \"10 / (id - 77) is not null\"\n";
    world.plan(&format!("{HASH}{failing}"));
    let ran = world.rebuild(&[]).expect(2).says(&["partition failing/", "division by zero"]);
    assert!(!ran.stderr.contains("error: cannot read partition items/"), "{}", ran.stderr);
    let summary = ran.summary();
    assert_eq!(of_route(&summary, "items")["rows"], ROWS);
    let keys = world.redis(&["EVAL", "return #redis.call('KEYS', 'item:*')", "0"]);
    assert_eq!(keys, ROWS.to_string());
}

#[test]
fn more_routes_than_a_pass_serves_take_several_passes() {
    let world = logged_and_empty();
    world.sql("create table items (id int primary key, v text); insert into items values (1, 'a'), (2, 'b')");
    let mut plan = String::new();
    for n in 0..10 {
        write!(
            plan,
            "[[route]]\nname = \"r{n}\"\ntable = \"alloydb:public.items\"\nkey = \"r{n}:{{id}}\"\n\
             type = \"string\"\ncolumns = [\"v\"]\npriority = {}\n",
            20 - n
        )
        .unwrap();
    }
    world.plan(&plan);
    world.rebuild(&["--lanes", "1"]).expect(0);
    assert_eq!(reads(&world).len(), 2, "{:#?}", reads(&world));
    assert_eq!(world.redis(&["DBSIZE"]), "20");
    assert_eq!(world.redis(&["GET", "r9:2"]), "b");
}
