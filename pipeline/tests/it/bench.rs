//! `rekindle bench`: what it measures, that it leaves the plan's Redis alone, and what it refuses.
//!
//! Invariant: whatever becomes of the program, no server of its own outlives it.

use crate::items::{HASH, ROWS, fill_with, filled};
use crate::world::{Ran, World, wait_until};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

/// Debian's, where `./test` puts it.
const SERVER: &str = "/usr/bin/redis-server";

fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "--json", "--redis-server", SERVER][..], more].concat()
}

fn bench(world: &World, more: &[&str]) -> Ran {
    world.run(&words(more))
}

/// Whether a server runs in the folder of this world, or the shell that holds one. A server shows another command line than it
/// was started with.
fn has_server(world: &World) -> bool {
    let folder = world.folder.path().canonicalize().unwrap();
    let is_of_it = |process: PathBuf| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let is_here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        is_here && matches!(name.trim_end(), "redis-server" | "sh")
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).any(is_of_it)
}

#[test]
fn parts_of_the_tables_are_measured_and_the_whole_is_predicted() {
    // GIVEN a table, and a Redis in use
    let world = filled();
    world.sql("ANALYZE");
    world.redis(&["SET", "of an application", "1"]);
    let sizes = [ROWS / 10, ROWS / 4, ROWS / 2];
    let asked = sizes.map(|rows| rows.to_string()).join(",");
    // WHEN three parts of it are measured twice, and the largest with two lanes
    let ran = bench(&world, &["--rows", &asked, "--repeats", "2", "--try-lanes", "2"]).expect(0);
    // THEN each is about as large as was asked for, and was told when it was done
    let found = ran.summary();
    let samples = found["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 7, "{samples:?}");
    for (sample, asked) in samples.iter().zip(sizes.iter().cycle()).take(6) {
        let rows = sample["rows"].as_u64().unwrap();
        assert!((asked / 2..=asked * 2).contains(&rows), "{rows} of {asked}");
        assert_eq!(sample["kind"], "whole");
    }
    assert_eq!(
        (samples[6]["kind"].as_str(), samples[6]["lanes"].as_u64()),
        (Some("2 lanes"), Some(2))
    );
    assert!(ran.stderr.contains(" 7 of 7: ") && ran.stderr.contains("; 2 lanes"), "{}", ran.stderr);
    // AND the whole is predicted from the runs of everything, as larger than what was measured
    let predicted = &found["predicted"];
    assert_eq!(
        (predicted["runs"].as_u64(), predicted["is_within"].as_bool()),
        (Some(6), Some(false))
    );
    assert!(predicted["seconds"].as_f64().unwrap() > 0.0 && found["rows"].as_u64() == Some(ROWS));
    // AND the plan's Redis was not touched, and nothing is left but evidence
    assert_eq!(
        (world.redis(&["DBSIZE"]), world.redis(&["GET", "of an application"])),
        ("1".into(), "1".into())
    );
    assert!(!has_server(&world) && !world.state().join("bench").exists());
    // AND what it measured is what plan predicts from, and has a report
    let planned = world.run(&["plan", "--json"]).expect(0).summary();
    assert_eq!(planned["predicted"]["runs"].as_u64(), Some(6), "{}", planned["predicted"]);
    assert_eq!(planned["predicted"]["fitted_to"], "benches");
    // AND both tell what would meet the RTO: nothing more, and the lanes only that were measured
    for needed in [&found["needed"], &planned["needed"]] {
        assert_eq!(
            (&needed["is_met"], needed["redis_nodes"].as_u64(), needed["machines"].as_u64()),
            (&true.into(), Some(1), Some(1)),
            "{needed}"
        );
        assert_eq!(needed["lanes"], 2, "{needed}");
        assert!(needed["margin_seconds"].as_f64().unwrap() > 0.0, "{needed}");
    }
    world.run(&["plan"]).expect(0).shows(&[
        "needed             nothing more is needed",
        "lanes: of those measured (2), 2 are the fewest that meet it",
        "limit              memory of redis",
    ]);
    world.run(&["report"]).expect(0).shows(&[
        "# bench",
        "What that says of production",
        "production's own Redis and the network to it",
        "| whole | ",
    ]);
    world.run(&["report", "--format", "html"]).expect(0).shows(&["logarithmic scales", "<circle"]);
    // WHEN the RTO is shorter than a rebuild can be THEN it is missed by prediction, and what would meet it is said
    let late =
        bench(&world, &["--rows", &asked, "--repeats", "1", "--deadline", "1s", "--lanes", "1"]);
    let told = late.summary();
    let is_late = told["predicted"]["seconds"].as_f64().unwrap() > 1.0;
    let is_met = told["needed"]["is_met"] == true;
    assert_eq!(is_met, told["needed"]["margin_seconds"].as_f64().unwrap() >= 0.0, "{told}");
    assert!(!is_met || !is_late, "{told}");
    assert_eq!(late.code, Some(if is_late { 6 } else { 0 }), "{told}");
    // A second run finds what the first one has left, and names what it holds.
    let text = world
        .run(&["bench", "--redis-server", SERVER, "--rows", &asked, "--repeats", "1"])
        .expect(0);
    text.shows(&["measured    ", "model       ", "production  ", "rto         ", "advice      "]);
}

#[test]
fn plan_is_fitted_to_rebuilds_where_there_are_enough_else_to_benches_and_says_so() {
    // GIVEN a bench of three sizes
    let world = World::new();
    fill_with(&world, 2_000);
    world.plan(HASH);
    bench(&world, &["--rows", "500,1000,2000", "--repeats", "1"]).expect(0);
    world
        .run(&["plan"])
        .expect(0)
        .shows(&["fitted to 3 benches into a throwaway server, of 2,000 rows"]);
    // WHEN the same is rebuilt THEN that counts from the third time on, and nothing is mixed
    for round in 1..=3 {
        world.rebuild(&["--fresh"]).expect(0);
        let predicted = world.run(&["plan", "--json"]).expect(0).summary()["predicted"].clone();
        let expected = if round < 3 { "benches" } else { "rebuilds" };
        assert_eq!(
            (predicted["fitted_to"].as_str(), predicted["runs"].as_u64()),
            (Some(expected), Some(3)),
            "{predicted}"
        );
    }
    world.run(&["plan"]).expect(0).shows(&["fitted to 3 rebuilds, of 2,000 rows"]);
}

#[test]
fn half_of_the_fields_is_measured_too_where_widths_are_asked_for() {
    let world = World::new();
    fill_with(&world, 2_000);
    world.plan(HASH);
    let asked = ["--rows", "500,1000,2000", "--repeats", "1", "--widths"];
    let ran = bench(&world, &asked).expect(0);
    // Each size once whole and once without every second field: as many rows, and fewer bytes.
    let found = ran.summary();
    let samples = found["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 6, "{found}");
    for (whole, half) in samples[..3].iter().zip(&samples[3..]) {
        assert_eq!((&half["kind"], &half["rows"]), (&"half of its fields".into(), &whole["rows"]));
        assert!(half["bytes"].as_u64() < whole["bytes"].as_u64(), "{half} {whole}");
    }
    assert!(ran.stderr.contains("; items alone, half of its fields"), "{}", ran.stderr);
    // Everything is predicted from runs of everything, the route from both.
    assert_eq!(
        (found["predicted"]["runs"].as_u64(), found["models"][0]["predicted"]["runs"].as_u64()),
        (Some(3), Some(6)),
        "{found}"
    );
    // A route with one field has no half.
    world.plan(
        "[[route]]\nname = \"items\"\ntable = \"alloydb:public.items\"\nkey = \"item:{id}\"\n\
         type = \"string\"\ncolumns = [\"a\"]\n",
    );
    bench(&world, &asked).expect(2).says(&["--widths measures nothing"]);
}

#[test]
fn a_bench_that_fails_leaves_evidence_and_predicts_nothing() {
    // GIVEN rows that cannot be carried
    let world = World::new();
    world.sql(
        "create table users (id bigint primary key, name text); \
         insert into users select i, nullif(i % 10, 0)::text from generate_series(1, 50) i",
    );
    world.sql("analyze users");
    world.plan(
        "[[route]]\nname = \"users\"\ntable = \"alloydb:public.users\"\nkey = \"user:{id}\"\n\
         type = \"hash\"\nnull = \"error\"\n",
    );
    // WHEN they are measured THEN it ends as their rebuild does, and says that it measured nothing
    let failed = bench(&world, &["--rows", "50", "--repeats", "1"]).expect(7).summary();
    assert_eq!((failed["status"].as_str(), failed["wanted"].as_u64()), (Some("failed"), Some(1)));
    // AND that is kept, and has a report
    let evidence = world.run(&["report", "--json"]).expect(0).summary();
    assert_eq!(
        (evidence["command"].as_str(), evidence["ended"]["exit_code"].as_u64()),
        (Some("bench"), Some(7)),
        "{evidence}"
    );
    assert_eq!(evidence["summary"], failed);
    world
        .run(&["report"])
        .expect(0)
        .shows(&["What was measured", "the bench did not come to its end, so it predicts nothing"]);
    // AND nothing is predicted from it
    let planned = world.run(&["plan", "--json"]).expect(0).summary();
    assert!(planned["predicted"].is_null(), "{planned}");
    assert!(!has_server(&world));
}

#[test]
fn a_killed_bench_leaves_no_server() {
    let world = filled();
    world.sql("ANALYZE");
    let mut child = world
        .command(&words(&["--repeats", "20"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a server of its own", || has_server(&world));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the server", || !has_server(&world));
    // What it left in the state folder is in nobody's way.
    bench(&world, &["--repeats", "1"]).expect(0);
}

#[test]
fn what_cannot_be_measured_is_refused_and_says_why() {
    let world = filled();
    // Nobody counted the rows.
    world.sql("UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relname = 'items'");
    let uncounted = bench(&world, &[]);
    assert_eq!(uncounted.code, Some(2), "{}", uncounted.stderr);
    assert!(uncounted.stderr.contains("ANALYZE"), "{}", uncounted.stderr);
    // There are none.
    world.sql("TRUNCATE items");
    world.sql("ANALYZE");
    bench(&world, &[]).expect(2).says(&["no rows", "nothing to measure"]);
    // There is no server.
    world
        .run(&["bench"])
        .expect(2)
        .says(&["there is no redis-server or valkey-server on the PATH"]);
    world
        .run(&["bench", "--redis-server", "/nowhere/redis-server"])
        .expect(2)
        .says(&["there is no /nowhere/redis-server", "--redis-server PROGRAM"]);
    world
        .run(&["bench", "--redis-server", "/bin/false"])
        .expect(3)
        .says(&["does not start", "it ended at once"]);
    // Two at once would measure each other.
    let lock = fs::File::create(world.state().join("bench.lock")).unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    bench(&world, &[]).expect(8);
    drop(held);
    bench(&world, &["--rows", "0"]).expect(2);
    bench(&world, &["--try-lanes", "65"]).expect(2);
    // Nothing was lost yet, so there is no clock to start.
    bench(&world, &["--lost-at", "2020-01-01T00:00:00Z"])
        .expect(2)
        .says(&["--lost-at is not for it"]);
    // What was refused before it began left no evidence.
    world.run(&["report", "--list"]).expect(0).shows(&["no evidence yet", "verify and bench"]);
}
