//! Rebuilding twice leaves what rebuilding once does, for random tables, rows and routes of one row per key.
//!
//! Invariant: every rebuild is the real binary on real servers; what Redis must hold comes from `model` alone.

mod model;

use crate::items::{Reply, Wire};
use crate::world::World;
use model::{Case, Held, Value, case};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;

fn cases() -> u32 {
    if std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1") { 300 } else { 8 }
}

/// Everything that Redis holds.
fn held(wire: &mut Wire) -> Held {
    let keys = wire.ask(&["KEYS", "*"]).list();
    let keys: Vec<String> = keys.into_iter().map(|key| key.text().unwrap()).collect();
    let entry = |key: String| {
        let value = match wire.ask(&["TYPE", &key]).text().as_deref() {
            Some("hash") => Value::Hash(pairs(wire.ask(&["HGETALL", &key]))),
            Some("string") => Value::Text(wire.ask(&["GET", &key]).text().unwrap()),
            Some("list") => Value::List(words(wire.ask(&["LRANGE", &key, "0", "-1"]))),
            other => panic!("{key} is of type {other:?}"),
        };
        let expiry = match wire.ask(&["PEXPIRETIME", &key]) {
            Reply::Number(ms) => ms,
            other => panic!("{other:?}"),
        };
        (key, (value, expiry))
    };
    keys.into_iter().map(entry).collect()
}

fn words(list: Reply) -> Vec<String> {
    list.list().into_iter().map(|word| word.text().unwrap()).collect()
}

fn pairs(list: Reply) -> BTreeMap<String, String> {
    words(list).chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Empties Redis and puts what stands there before the first rebuild.
fn plant(wire: &mut Wire, planted: &Held) {
    wire.ask(&["FLUSHALL"]);
    for (key, (value, expiry)) in planted {
        let mut command = match value {
            Value::Hash(fields) => {
                let mut command = vec!["HSET".to_owned(), key.clone()];
                command.extend(fields.iter().flat_map(|(name, text)| [name.clone(), text.clone()]));
                command
            }
            Value::Text(text) => vec!["SET".to_owned(), key.clone(), text.clone()],
            Value::List(items) => [vec!["RPUSH".to_owned(), key.clone()], items.clone()].concat(),
        };
        wire.pipeline(std::slice::from_ref(&command));
        if *expiry != -1 {
            command = vec!["PEXPIREAT".to_owned(), key.clone(), expiry.to_string()];
            wire.pipeline(&[command]);
        }
    }
}

/// What may differ between two rebuilds of the same rows: nothing of this.
fn told(summary: &Json) -> Vec<Json> {
    let routes = summary["routes"].as_array().unwrap();
    let of_route = |route: &Json| {
        let fields = ["name", "rows", "expired", "rejects", "digest"];
        fields.map(|field| route[field].clone()).into_iter().collect::<Json>()
    };
    routes.iter().map(of_route).collect()
}

fn rebuild_twice(world: &World, case: &Case) -> Result<(), TestCaseError> {
    let mut wire = Wire::open(world);
    // A run compares its tables with those of the last one of the same routes, and each case has tables of its own.
    if world.state().exists() {
        fs::remove_dir_all(world.state()).unwrap();
    }
    world.sql(&case.sql());
    world.plan(&case.plan());
    plant(&mut wire, &case.planted());
    let wanted = case.wanted();
    let mut first = None;
    // A finished run is not resumed; --fresh asks for another one by name.
    for more in [&[][..], &[], &["--fresh"]] {
        let ran = world.rebuild(more);
        prop_assert_eq!(ran.code, Some(0), "{} {}\n{}", ran.stdout, ran.stderr, case.plan());
        let summary = ran.summary();
        let told = told(&summary);
        prop_assert_eq!(held(&mut wire), wanted.clone(), "{}", case.plan());
        prop_assert_eq!(first.get_or_insert_with(|| told.clone()), &told);
    }
    Ok(())
}

#[test]
fn rebuilding_twice_leaves_what_rebuilding_once_does() {
    let world = World::new();
    let config = Config {
        cases: cases(),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    if let Err(failure) = runner.run(&case(), |case| rebuild_twice(&world, &case)) {
        panic!("{failure}");
    }
}
