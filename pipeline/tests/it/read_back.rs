//! A key that vanishes between its write and the read-back.
//!
//! Invariant: the run is not called done while a key of its ledger is missing, and not every key is asked for where the
//! size of the database proves that all are there.

use crate::carried::route;
use crate::items::{calls, signal, wait_for_stop};
use crate::net::spawn;
use crate::world::{Ran, World, wait_until};
use nix::sys::signal::Signal;
use stages::failpoint::{Point, VARIABLE};

/// A table of 2,000 rows as hashes, with these settings of the route.
fn world(more: &str) -> World {
    let world = World::new();
    world.sql(
        "create table docs (id bigint primary key, body text, made timestamptz); \
         insert into docs select i, 'x', now() from generate_series(1, 2000) i",
    );
    world.plan(&route("docs", "hash", more));
    world
}

/// Rebuilds, and does something to Redis when the rows are written and not yet read back.
fn rebuilt(world: &World, meanwhile: impl FnOnce()) -> Ran {
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    command.env(VARIABLE, format!("{}:1:hold", Point::PartitionFinished.name()));
    let child = spawn(command);
    wait_for_stop(&child);
    meanwhile();
    signal(&child, Signal::SIGCONT);
    Ran::of(&child.wait_with_output().unwrap())
}

#[test]
fn a_key_that_is_gone_before_the_read_back_is_named() {
    for expiry in ["", "ttl = \"1h\"\nttl_from = \"made\""] {
        let world = world(expiry);
        let lost = || assert_eq!(world.redis(&["DEL", "docs-hash:7"]), "1");
        let ran = rebuilt(&world, lost).expect(4);
        assert_eq!(ran.summary()["verified"]["differences"], 1, "{}", ran.stdout);
        ran.says(&["docs-hash:7 (missing)"]);
    }
}

#[test]
fn keys_that_expire_later_are_proven_by_their_number_and_those_that_have_expired_are_no_difference()
{
    let world = world("ttl = \"1h\"\nttl_from = \"made\"");
    let before = calls(&world, "exists");
    let summary = rebuilt(&world, || {}).expect(0).summary();
    let verified = &summary["verified"];
    assert_eq!((&verified["keys_counted"], &verified["differences"]), (&2000.into(), &0.into()));
    assert_eq!(calls(&world, "exists"), before, "no key is asked for by name");
    // A key that is gone because its time has come makes the database smaller: every key is asked for.
    world.redis(&["FLUSHALL"]);
    world.sql("update docs set made = now() - interval '59 minutes 50 seconds' where id = 7");
    let expired =
        || wait_until("its time has come", || world.redis(&["EXISTS", "docs-hash:7"]) == "0");
    let summary = rebuilt(&world, expired).expect(0).summary();
    assert_eq!(summary["verified"]["differences"], 0, "{summary}");
}
