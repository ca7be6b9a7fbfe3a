//! Rows that Redis does not take: found among the others of their batch, and rejected with what it says of them.
//!
//! Invariant: every other row of the table arrives, and the run is read back.

use crate::carried::route;
use crate::world::World;
use fixtures::servers::{PostgresOptions, RedisOptions};
use stages::failpoint::{Point, VARIABLE};
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// Redis takes no value above a mebibyte; rows 100, 101 and 1500 of 2000 have one.
fn world() -> World {
    let args = ["--proto-max-bulk-len", "1mb"].map(str::to_owned).to_vec();
    let world =
        World::with(PostgresOptions::default(), RedisOptions { args, ..RedisOptions::default() });
    world.sql(
        "create table docs (id bigint primary key, body text); \
         insert into docs select i, repeat(md5(i::text), 3) from generate_series(1, 2000) i; \
         update docs set body = repeat(md5(body), 40000) where id in (100, 101, 1500)",
    );
    world
}

fn words(way: &str) -> [&str; 9] {
    ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "60s", "--way", way]
}

#[test]
fn a_value_that_redis_does_not_take_is_rejected_and_the_rest_of_its_batch_is_written() {
    let world = world();
    for (layout, way) in [("hash", "command"), ("hash", "restore"), ("string", "auto")] {
        world.plan(&route("docs", layout, "columns = [\"body\"]\nrejects_max = 3"));
        world.redis(&["FLUSHALL"]);
        // Redis closes the connection behind its refusal, and the end may arrive first: it is asked again then.
        let summary = world.run(&words(way)).expect(0).says(&["the target refuses"]).summary();
        assert_eq!(
            (&summary["written"], &summary["rejects"]),
            (&1997.into(), &3.into()),
            "{layout}"
        );
        assert_eq!(summary["status"], "done");
        assert_eq!(world.redis(&["DBSIZE"]), "1997");
        let listed = world.run(&["rejects", "list"]).expect(0).stdout;
        assert!(listed.contains("3 x the target refused it: ERR Protocol error"), "{listed}");
        // A shorter value is taken by a replay; one that is still too long stays.
        world.sql("update docs set body = 'short' where id = 101");
        let ran = world.run(&["rejects", "replay", "--json", "--settle", "10ms"]).expect(7);
        let report = ran.summary();
        assert_eq!((&report["written"], &report["rejected"]), (&1.into(), &2.into()), "{report:#}");
        assert_eq!(world.redis(&["DBSIZE"]), "1998");
        world.sql("update docs set body = repeat(md5(body), 40000) where id = 101");
        std::fs::remove_dir_all(world.state()).unwrap();
    }
}

/// A rebuild that dies when the attempt after a refusal has begun, and has sent nothing yet.
fn killed_after_a_refusal(world: &World) {
    let at = format!("{}:2", Point::PartitionBegun.name());
    let words = ["rebuild", "redis", "--progress", "none", "--lanes", "1"];
    for _ in 0..20 {
        let killed = world.command(&words).env(VARIABLE, &at).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
        if String::from_utf8_lossy(&killed.stderr).contains("the target refuses") {
            return;
        }
        // Redis closes the connection behind its refusal, which may arrive first; then the attempt met no refusal.
        fs::remove_dir_all(world.state()).unwrap();
        world.redis(&["FLUSHALL"]);
    }
    panic!("no refusal was met");
}

#[test]
fn refused_keys_are_noted_when_their_attempt_ends_and_never_expected() {
    let world = world();
    world.plan(&route("docs", "hash", "columns = [\"body\"]\nrejects_max = 3"));
    killed_after_a_refusal(&world);
    // THEN whoever reads the ledger knows already that they never arrived
    let runs = fs::read_dir(world.state().join("runs")).unwrap().flatten();
    let lists = runs.map(|run| run.path().join("ledger/docs-hash@0.ledger.refused"));
    let noted: Vec<u8> = lists.flat_map(|list| fs::read(list).unwrap_or_default()).collect();
    let refused = ["docs-hash:100", "docs-hash:101", "docs-hash:1500"];
    let hashes = refused.map(|key| schemas::key::key_hash(key.as_bytes()).to_le_bytes());
    assert!(!noted.is_empty(), "nothing is noted");
    assert!(noted.chunks(16).all(|found| hashes.iter().any(|hash| hash == found)), "{noted:?}");
    // AND the run ends as one that was not killed
    let summary = world.run(&words("auto")).expect(0).summary();
    assert_eq!((&summary["status"], &summary["rejects"]), (&"done".into(), &3.into()));
    assert_eq!(world.redis(&["DBSIZE"]), "1997");
}
