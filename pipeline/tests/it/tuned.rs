//! What a run makes of the systems it meets: how much it has on its way, and what it says it waited for.
//!
//! Invariant: nothing here is about how fast a machine is; a proxy makes one part slower than everything else by far.

use crate::items::{self, assert_complete};
use crate::world::{Ran, World};
use fixtures::servers::{Direction, Proxy, Toxic};
use serde_json::Value;

/// Rebuilds through proxies, one in front of each end, of which one is slow.
fn rebuilt(world: &World, is_source: bool, words: &[&str]) -> Value {
    let (postgres, redis) = (world.postgres.port(), world.redis.port());
    let proxies = [Proxy::start(postgres).unwrap(), Proxy::start(redis).unwrap()];
    let slow = &proxies[usize::from(!is_source)];
    slow.set(Toxic::Latency { ms: 15, jitter_ms: 0 }, Direction::Both);
    let led = |url: &str, port: u16, proxy: &Proxy| {
        url.replace(&format!(":{port}"), &format!(":{}", proxy.port()))
    };
    let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
    command
        .args(words)
        .env("ALLOYDB_URL", led(&world.postgres.url(), postgres, &proxies[0]))
        .env("REDIS_URL", led(&world.redis.url(), redis, &proxies[1]));
    let summary = Ran::of(&command.output().unwrap()).expect(0).summary();
    assert!(slow.hits()["latency"] > 0);
    assert_complete(world);
    summary
}

#[test]
fn the_summary_names_what_was_waited_for_and_a_target_far_away_is_not_held_back() {
    let world = items::filled();
    // GIVEN a target that is far away and has nothing to do THEN the network is named, and nothing is halved
    let summary = rebuilt(&world, false, &["--lanes", "2"]);
    let route = &summary["routes"][0];
    assert_eq!(route["bottleneck"], "network", "{route}");
    assert!(route["bottleneck_share"].as_f64().unwrap() > 0.5, "{route}");
    let tuned = &summary["tuned"];
    assert_eq!((&tuned["lanes"], &tuned["halved"]), (&2.into(), &0.into()), "{tuned}");

    // GIVEN a source that is far away THEN it is named
    let summary = rebuilt(&world, true, &["--fresh"]);
    let route = &summary["routes"][0];
    assert_eq!(route["bottleneck"], "source", "{route}");
    assert!(summary["tuned"]["lanes"].as_u64().unwrap() >= 4, "{}", summary["tuned"]);
}

#[test]
fn what_was_asked_for_is_named_as_the_limit() {
    let world = items::filled();
    let words = ["--max-rows-per-second", "60000", "--lanes", "3"];
    let summary = world.rebuild(&words).expect(0).summary();
    let route = &summary["routes"][0];
    assert_eq!((&route["bottleneck"], &summary["tuned"]["lanes"]), (&"limits".into(), &3.into()));
    for bad in ["0", "65", "none", ""] {
        world.rebuild(&["--lanes", bad]).expect(2).says(&["--lanes", "from 1 to 64, or auto"]);
    }
}
