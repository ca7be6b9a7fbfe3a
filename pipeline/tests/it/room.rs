//! A Redis that is smaller than what it is to hold: refused before the first write, stopped before anything is evicted, or
//! filled up to the share that was asked for.

use crate::world::{Ran, World, wait_until};
use fixtures::servers::{PostgresOptions, RedisOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Child;

pub(crate) const ITEMS: &str = r#"
[[route]]
name = "items"
table = "alloydb:public.items"
key = "item:{id}"
type = "hash"
newest_by = "id"
"#;
/// More than 64 MB in Redis.
const MANY: u64 = 90_000;

/// A table of so many rows of about 1 kB each in Redis, without statistics.
pub(crate) fn world_of(rows: u64, maxmemory: &str, policy: &str) -> World {
    let redis = RedisOptions {
        maxmemory: Some(maxmemory.into()),
        maxmemory_policy: Some(policy.into()),
        ..RedisOptions::default()
    };
    let world = World::with(PostgresOptions::default(), redis);
    world.sql(&format!(
        "create table items (id bigint primary key, body text) with (autovacuum_enabled = false); \
         insert into items select i, repeat(md5(i::text), 25) from generate_series(1, {rows}) i"
    ));
    world.plan(ITEMS);
    world
}

fn info(world: &World, field: &str) -> u64 {
    let info = world.redis(&["INFO"]);
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{field} in {info}"))
}

fn keys(world: &World) -> BTreeSet<u64> {
    let keys = world.redis(&["KEYS", "item:*"]);
    keys.lines().map(|key| key.trim_start_matches("item:").parse().unwrap()).collect()
}

/// The rows that a summary says were left out.
fn omitted(world: &World, summary: &Value) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for range in summary["omitted"].as_array().expect("ranges left out") {
        let (relation, condition) =
            (range["relation"].as_str().unwrap(), range["range"].as_str().unwrap());
        let found = world.sql(&format!("select id from {relation} where {condition}"));
        for id in found.lines() {
            assert!(ids.insert(id.parse().unwrap()), "{id} is in two ranges");
        }
    }
    ids
}

/// Reads what a run says until it says this, and goes on reading in the background.
pub(crate) fn wait_for_line(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    loop {
        let Some(Ok(line)) = lines.next() else { panic!("{text:?} was never said:\n{said}") };
        said.push_str(&line);
        said.push('\n');
        if line.contains(text) {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_write_and_a_share_of_it_can_be_loaded() {
    let world = world_of(MANY, "64mb", "allkeys-lru");
    world.sql("analyze items");
    for policy in ["noeviction", "allkeys-lru"] {
        world.redis(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let refused = world.rebuild(&[]).expect(5);
        let rows = format!("items: ~{MANY} rows x ");
        let ran =
            refused.says(&["has no room for this run", policy, &rows, "(measured)", "--fit 80%"]);
        assert_eq!(ran.summary()["needs"][0]["rows"], MANY);
        assert_eq!((info(&world, "evicted_keys"), world.redis(&["DBSIZE"])), (0, "0".to_owned()));
    }
    let planned = world.run(&["plan", "--json"]).expect(0).summary();
    assert_eq!(planned["memory"]["is_over"], true);

    let partial = world.rebuild(&["--fit", "80%"]).expect(0).summary();
    assert_eq!(partial["status"], "partial");
    assert_eq!(info(&world, "evicted_keys"), 0);
    let used = info(&world, "used_memory");
    assert!((45 << 20..=(64 << 20) / 5 * 4 + (1 << 20)).contains(&used), "{used}");
    let (there, left_out) = (keys(&world), omitted(&world, &partial));
    assert!(there.is_disjoint(&left_out));
    assert_eq!(there.union(&left_out).count() as u64, MANY);
    assert!(there.contains(&MANY) && left_out.contains(&1), "not newest first");
    assert_eq!(partial["verified"]["differences"], 0);
    assert!(partial["verified"]["keys_counted"].as_u64().unwrap() >= there.len() as u64);

    // It is missing, and nothing else is wrong.
    let verified = world.run(&["verify", "redis", "--json", "--tier", "count"]).expect(4).summary();
    assert_eq!(verified["routes"][0]["missing"], left_out.len());
    assert!(world.run(&["status"]).expect(0).stdout.contains("partial"));

    // Asked again for the same share, there is nothing to do; with room for everything, the rest is loaded.
    assert_eq!(world.rebuild(&["--fit", "80%"]).expect(0).summary()["status"], "partial");
    world.redis(&["CONFIG", "SET", "maxmemory", "200mb"]);
    let done = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&done["status"], &done["resumed"]), (&"done".into(), &2.into()));
    assert_eq!(world.redis(&["DBSIZE"]), MANY.to_string());
    assert_eq!(done["omitted"], Value::Null);
}

#[test]
fn a_share_is_filled_by_priority_before_it_is_filled_by_what_is_newest() {
    let world = world_of(20_000, "16mb", "noeviction");
    world.sql(
        "create table early (id bigint primary key, body text); \
         insert into early select i, 'x' from generate_series(1, 2000) i; analyze",
    );
    // Last in the plan, and of no age that would bring it forward.
    let early = "[[route]]\nname = \"early\"\ntable = \"alloydb:public.early\"\nkey = \"early:{id}\"\ntype = \"hash\"\npriority = 1\n";
    world.plan(&format!("{ITEMS}{early}"));
    let partial = world.rebuild(&["--fit", "60%", "--lanes", "1"]).expect(0).summary();
    assert_eq!(partial["status"], "partial");
    assert!(keys(&world).len() < 20_000);
    assert_eq!(world.redis(&["KEYS", "early:*"]).lines().count(), 2_000);
}

#[test]
fn without_statistics_the_run_says_so_and_stops_before_anything_is_evicted() {
    let world = world_of(MANY, "64mb", "allkeys-lru");
    let ran = world.rebuild(&["--wait-for-room", "1s"]).expect(5);
    let ran = ran.says(&["UNKNOWN", "no room came in 1 s", "allkeys-lru", "--fit 80%"]);
    assert_eq!(ran.summary()["pauses"]["redis_memory"]["count"], 1);
    assert_eq!(info(&world, "evicted_keys"), 0);
    let loaded = world.redis(&["DBSIZE"]).parse::<u64>().unwrap();
    assert!(loaded > MANY / 3, "{loaded}");

    world.redis(&["CONFIG", "SET", "maxmemory", "200mb"]);
    let done = world.rebuild(&[]).expect(0).summary();
    assert_eq!((&done["status"], &done["resumed"]), (&"done".into(), &1.into()));
    assert_eq!(world.redis(&["DBSIZE"]), MANY.to_string());
}

#[test]
fn a_run_waits_for_room_that_others_take_and_goes_on_when_it_is_given_back() {
    // GIVEN a table that fits, beside which somebody takes 30 MB.
    let world = world_of(40_000, "64mb", "allkeys-lru");
    world.sql("analyze items");
    let mut run = world.start_rebuild(&["--max-bytes-per-second", "20mb"]);
    wait_until("the first keys", || world.redis(&["DBSIZE"]).parse::<u64>().unwrap() > 1);
    world.redis(&["SETRANGE", "ballast", "30000000", "x"]);
    wait_for_line(&mut run, "redis_memory");
    assert!(keys(&world).len() < 40_000);
    world.redis(&["DEL", "ballast"]);
    let done = Ran::of(&run.wait_with_output().unwrap()).expect(0).summary();
    assert_eq!((&done["status"], info(&world, "evicted_keys")), (&"done".into(), 0));
    let pauses = &done["pauses"];
    assert!(pauses["redis_memory"]["seconds"].as_f64().unwrap() > 0.0, "{pauses}");
    assert!(pauses["max_bytes_per_second"]["count"].as_u64().unwrap() > 0, "{pauses}");
    assert_eq!(world.redis(&["DBSIZE"]), "40000");
}

#[test]
fn a_redis_that_others_make_evict_or_refuse_exits_with_5_and_the_same_command_mends_it() {
    let world = world_of(20_000, "200mb", "allkeys-lru");
    world.sql("analyze items");
    for policy in ["allkeys-lru", "noeviction"] {
        world.redis(&["FLUSHALL"]);
        world.redis(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let run = world.start_rebuild(&["--max-rows-per-second", "10000", "--wait-for-room", "1s"]);
        wait_until("the first keys", || world.redis(&["DBSIZE"]).parse::<u64>().unwrap() > 1_000);
        let less = info(&world, "used_memory") - 200_000;
        world.redis(&["CONFIG", "SET", "maxmemory", &less.to_string()]);
        let ran = Ran::of(&run.wait_with_output().unwrap()).expect(5).says(&["maxmemory"]);
        // Whichever comes first: the run sees that keys were evicted or that there is no room, or a write is refused.
        let reasons = ["evicted", "no room came", "answered OOM"];
        assert!(reasons.iter().any(|reason| ran.stderr.contains(reason)), "{}", ran.stderr);

        world.redis(&["CONFIG", "SET", "maxmemory", "200mb"]);
        world.rebuild(&[]).expect(0);
        assert_eq!(keys(&world).len(), 20_000, "{policy}");
    }
}

#[test]
fn keys_that_were_evicted_in_one_moment_end_the_run_however_much_room_there_is_after_it() {
    let world = world_of(20_000, "200mb", "allkeys-lru");
    world.sql("analyze items");
    let run = world.start_rebuild(&["--max-rows-per-second", "10000"]);
    // Not those of the trial that comes before.
    wait_until("the first keys", || keys(&world).len() > 1_000);
    // The server evicts before it answers.
    let less = info(&world, "used_memory") - 200_000;
    world.redis(&["CONFIG", "SET", "maxmemory", &less.to_string()]);
    world.redis(&["CONFIG", "SET", "maxmemory", "200mb"]);
    let evicted = info(&world, "evicted_keys");
    assert!(evicted > 0, "nothing was evicted");
    let told = format!("the target evicted {evicted} keys");
    Ran::of(&run.wait_with_output().unwrap()).expect(5).says(&[&told]);
    world.rebuild(&[]).expect(0);
    assert_eq!(keys(&world).len(), 20_000);
}

#[test]
fn a_share_is_refused_where_there_is_no_limit_to_take_it_of() {
    let world = world_of(10, "0", "noeviction");
    world.rebuild(&["--fit", "80%"]).expect(2).says(&["--fit is a share of maxmemory", "hint: "]);
    world.rebuild(&["--fit", "80%", "--cut-over", "3"]).expect(2);
    world.rebuild(&["--fit", "99%"]).expect(2);
    assert_eq!(world.redis(&["DBSIZE"]), "0");
}
