//! A key that vanishes between its write and the read-back.
//!
//! Invariant: the run is not called done while a key of its ledger is missing.

use crate::carried::route;
use crate::items::{signal, wait_for_stop};
use crate::net::spawn;
use crate::world::{Ran, World};
use nix::sys::signal::Signal;
use stages::failpoint::{Point, VARIABLE};

#[test]
fn a_key_that_is_gone_before_the_read_back_is_named() {
    let world = World::new();
    world.sql(
        "create table docs (id bigint primary key, body text); \
         insert into docs select i, 'x' from generate_series(1, 2000) i",
    );
    world.plan(&route("docs", "hash", ""));
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    command.env(VARIABLE, format!("{}:1:hold", Point::PartitionFinished.name()));
    let child = spawn(command);
    wait_for_stop(&child);
    assert_eq!(world.redis(&["DEL", "docs-hash:7"]), "1");
    signal(&child, Signal::SIGCONT);
    let ran = Ran::of(&child.wait_with_output().unwrap()).expect(4);
    assert_eq!(ran.summary()["verified"]["differences"], 1, "{}", ran.stdout);
    ran.says(&["docs-hash:7 (missing)"]);
}
