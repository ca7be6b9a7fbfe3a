//! `rekindle bench`: what it measures, that it leaves the plan's Redis alone, and what it refuses.
//!
//! Invariant: whatever becomes of the program, no server of its own outlives it.

use crate::items::{ROWS, filled};
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
    assert_eq!(late.code, Some(if is_late { 6 } else { 0 }), "{told}");
    // A second run finds what the first one has left, and names what it holds.
    let text = world
        .run(&["bench", "--redis-server", SERVER, "--rows", &asked, "--repeats", "1"])
        .expect(0);
    text.shows(&["measured    ", "model       ", "production  ", "rto         ", "advice      "]);
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
}
