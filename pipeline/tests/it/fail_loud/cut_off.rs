//! A system that is lost for good after a part of what it has to say to a command.
//!
//! Invariant: the part is measured on the same command without a fault, so every cut lies between its first and its last
//! question, and the proxy tells that it happened.

use super::alloydb::{self, CHECK, PLAN};
use super::bigquery::{RESTORE, cloud, run};
use crate::net::{lead, led};
use crate::world::{Ran, World};
use fixtures::servers::{Direction, Proxy, Toxic};

/// How much of the replies is passed on, in percent.
const PARTS: [u64; 3] = [25, 50, 70];

/// How many bytes a system says to a command that ends well.
fn said(proxy: &Proxy, ran: impl FnOnce(&Proxy) -> Ran) -> u64 {
    proxy.clear();
    let before = proxy.replied();
    ran(proxy).expect(0);
    proxy.replied() - before
}

/// The same command with a system that is lost after a part of so many bytes.
fn cut(proxy: &Proxy, said: u64, part: u64, ran: impl FnOnce(&Proxy) -> Ran) -> Ran {
    proxy.set(Toxic::Lost { bytes: said * part / 100 }, Direction::Both);
    let before = proxy.hits().get("lost").copied();
    let ran = ran(proxy);
    assert!(proxy.hits().get("lost").copied() > before, "{part} % of {said} bytes: not cut");
    println!("{part} % of {said} bytes: {:?}\n{}{}", ran.code, ran.stdout, ran.stderr);
    ran
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Target,
}

/// A command on a world whose source or target is lost, at each part. They mostly wait, so they do it beside each other.
fn losing(world: &World, end: End, words: &[&str]) -> Vec<Ran> {
    let port = match end {
        End::Source => world.postgres.port(),
        End::Target => world.redis.port(),
    };
    let run = |proxy: &Proxy| {
        let mut command = world.command(words);
        match end {
            End::Source => command.env("ALLOYDB_URL", led(&world.postgres.url(), port, proxy)),
            End::Target => command.env("REDIS_URL", led(&world.redis.url(), port, proxy)),
        };
        Ran::of(&command.output().unwrap())
    };
    let all = said(&Proxy::start(port).unwrap(), run);
    std::thread::scope(|scope| {
        let at_work = PARTS
            .map(|part| scope.spawn(move || cut(&Proxy::start(port).unwrap(), all, part, run)));
        at_work.into_iter().map(|ran| ran.join().unwrap()).collect()
    })
}

#[test]
fn a_check_that_loses_an_end() {
    let world = alloydb::world();
    for ran in losing(&world, End::Source, CHECK) {
        ran.expect(3).shows(&["FAILED   ", "alloydb went away from 127.0.0.1:"]);
    }
    for ran in losing(&world, End::Target, CHECK) {
        ran.expect(3).shows(&["FAILED   redis"]);
    }
}

#[test]
fn a_plan_that_loses_an_end() {
    let world = alloydb::world();
    for ran in losing(&world, End::Source, PLAN) {
        ran.expect(3).says(&["alloydb", "hint: "]);
    }
    for ran in losing(&world, End::Target, PLAN) {
        ran.expect(3).says(&["redis at 127.0.0.1:", "hint: "]);
    }
}

#[test]
fn a_restore_that_loses_its_duplicate() {
    let cloud = cloud();
    let proxy = Proxy::start(cloud.redis.port()).unwrap();
    lead(cloud.folder.path(), cloud.redis.port(), &proxy);
    let rows = cloud.source("id, name, ts");
    cloud.delete_table();
    let all = said(&proxy, |_| run(&cloud, RESTORE));
    for part in PARTS {
        cloud.delete_table();
        let ran = cut(&proxy, all, part, |_| run(&cloud, RESTORE));
        ran.expect(3).says(&["redis at 127.0.0.1:", "hint: "]);
        // AND the same command ends what it began once Redis is there again
        proxy.clear();
        run(&cloud, RESTORE).expect(0).shows(&["done"]);
        assert!(cloud.source("id, name, ts") == rows, "the rows differ");
    }
}
