//! The sample tier: what it finds by chance, it finds as often as it says.

use crate::verify::{Seeded, connection, findings, verify};
use crate::world::World;
use redis::Commands;

const ROWS: u64 = 400;
/// Values compared by each trial.
const SAMPLE: u64 = 40;
const TRIALS: u64 = 60;

fn world() -> World {
    let world = World::new();
    world.sql(&format!(
        "create table t (id int primary key, v text); insert into t select n, 'v' from generate_series(1, {ROWS}) n"
    ));
    world.plan("[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{id}\"\ntype = \"string\"\ncolumns = [\"v\"]\n");
    world.rebuild(&[]).expect(0);
    world
}

/// The probability that a sample of the keys without repetition meets one of the damaged ones.
fn detection(damaged: u64) -> f64 {
    let missed: f64 =
        (0..SAMPLE).map(|taken| 1.0 - damaged as f64 / (ROWS - taken) as f64).product();
    1.0 - missed
}

/// How many of the trials, each with a seed of its own, find damage in so many values.
fn trials(world: &World, damaged: u64, first_seed: u64) -> u64 {
    let mut connection = connection(world);
    let mut random = Seeded(damaged);
    let mut ids: Vec<u64> = (1..=ROWS).collect();
    let keys: Vec<String> =
        (0..damaged).map(|_| format!("t:{}", ids.swap_remove(random.place(ids.len())))).collect();
    for key in &keys {
        let _: () = connection.set(key, "damaged").unwrap();
    }
    let mut found = 0;
    let (sample, mut detects) = (SAMPLE.to_string(), String::new());
    for seed in first_seed..first_seed + TRIALS {
        let seed = seed.to_string();
        let ran = verify(world, &["--sample", &sample, "--seed", &seed]);
        let is_found = ran.code == Some(4);
        let summary = ran.expect(if is_found { 4 } else { 0 }).summary();
        assert_eq!((&summary["compared"], &summary["keys"]), (&SAMPLE.into(), &ROWS.into()));
        assert_eq!(summary["seed"].to_string(), seed);
        let named = findings(&summary, world);
        assert!(named.iter().all(|(key, what)| keys.contains(key) && what == "value"), "{named:?}");
        assert_eq!(!named.is_empty(), is_found);
        summary["detects"].as_str().unwrap().clone_into(&mut detects);
        found += u64::from(is_found);
    }
    println!("{damaged} of {ROWS} damaged, {SAMPLE} compared: {found} of {TRIALS} ({detects})");
    for key in &keys {
        let _: () = connection.set(key, "v").unwrap();
    }
    found
}

#[test]
fn damage_is_found_as_often_as_the_stated_power_says() {
    let world = world();
    let detects = verify(&world, &["--sample", "40"]).expect(0).summary()["detects"].clone();
    assert_eq!(
        detects,
        "any missing key, any other expiry; damage of 7.22 % of all values or more, evenly spread, with 95 % probability"
    );
    // 7.22 % of 400 keys are 29. The seeds are fixed, so the trials are the same ones each time; the bounds are
    // 3.3 standard deviations of a binomial distribution, 0.1 % of which lie outside.
    for (damaged, first_seed) in [(29, 1), (8, 1_000)] {
        let power = detection(damaged);
        assert!(damaged != 29 || power >= 0.95, "the power that is stated is too high: {power}");
        let found = trials(&world, damaged, first_seed) as f64;
        let mean = TRIALS as f64 * power;
        let bound = 3.3 * (mean * (1.0 - power)).sqrt();
        assert!(
            (found - mean).abs() <= bound,
            "{found} of {TRIALS}, expected {mean:.1} +- {bound:.1}"
        );
    }
}

#[test]
fn the_same_seed_takes_the_same_sample_and_a_missing_key_needs_no_luck() {
    let world = world();
    let mut connection = connection(&world);
    for id in 1..=40 {
        let _: () = connection.set(format!("t:{}", id * 10), "damaged").unwrap();
    }
    let named = |seed: &str| {
        let words = ["--sample", "100", "--seed", seed];
        findings(&verify(&world, &words).expect(4).summary(), &world)
    };
    assert_eq!(named("7"), named("7"));
    assert_ne!(named("7"), named("8"));
    for id in 1..=40 {
        let _: () = connection.set(format!("t:{}", id * 10), "v").unwrap();
    }
    let _: u64 = connection.del("t:5").unwrap();
    let _: bool = connection.expire("t:6", 1_000).unwrap();
    for tier in [&["--sample", "1"][..], &["--tier", "count"]] {
        let found = findings(&verify(&world, tier).expect(4).summary(), &world);
        let expected = [("t:5", "missing"), ("t:6", "expiry")];
        assert_eq!(found, expected.map(|(key, what)| (key.to_owned(), what.to_owned())).into());
    }
    // Met by the first look and by the sample, it is one finding; where value and expiry differ, it is the value.
    let _: () = connection.set("t:7", "damaged").unwrap();
    let _: bool = connection.expire("t:7", 1_000).unwrap();
    let all = verify(&world, &["--sample", "400"]).expect(4).summary();
    let route = &all["routes"][0];
    let counts = ["missing", "different_expiry", "different_value"].map(|what| &route[what]);
    assert_eq!(counts, [1, 1, 1], "{route}");
}
