//! Random tables, layouts and options, rebuilt with kills in between, beside what a model makes of the same rows.
//!
//! Invariant: the model is computed from the rows alone. A seed decides everything but the instant of a kill, so
//! shrinking, which runs a case again and again, would chase noise, and a case is several processes on real servers:
//! hence a loop over seeds. `REKINDLE_SEED=<seed>` runs one again, `REKINDLE_SOAK=1` runs many.

mod model;
mod table;
mod values;

use crate::carried::of_route;
use crate::items::{PIPELINE, Reply, Wire, settle, standing};
use crate::many::assert_held;
use crate::world::{Ran, World, wait_until};
use model::{Figures, Wanted};
use serde_json::Value;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use table::Filled;
use values::Dice;

/// Routes of a case, each with a table of its own.
const ROUTES: usize = 3;

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("REKINDLE_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let is_soak = std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1");
    let mut dice = Dice(RandomState::new().hash_one(()));
    (0..if is_soak { 150 } else { 4 }).map(|_| dice.below(1 << 30) as u64).collect()
}

/// What happened in all cases.
#[derive(Debug, Default)]
struct Told {
    cases: u64,
    kills_at_work: u64,
    ended_first: u64,
    changed_before_resume: u64,
    rows: u64,
    keys: u64,
    largest_key: usize,
    folded: u64,
    rejects: u64,
    expired: u64,
}

/// A plan of several routes in a world of which nothing else is left.
struct Case<'a> {
    world: &'a World,
    filled: Vec<Filled>,
    dice: Dice,
}

impl<'a> Case<'a> {
    fn begin(world: &'a World, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut filled: Vec<Filled> =
            (0..ROUTES).map(|number| Filled::roll(&mut dice, number)).collect();
        world.redis(&["FLUSHALL"]);
        if world.state().exists() {
            fs::remove_dir_all(world.state()).unwrap();
        }
        for one in &mut filled {
            one.create(world);
            if one.route.keeps {
                let keys: Vec<String> = one
                    .route
                    .wanted(&one.rows)
                    .held
                    .into_keys()
                    .filter(|_| dice.percent(10))
                    .take(3)
                    .collect();
                for key in keys {
                    world.redis(&["SET", &key, "mine"]);
                    one.route.planted.insert(key);
                }
            }
        }
        let plan: String = filled.iter().map(Filled::toml).collect();
        println!("{plan}");
        world.plan(&plan);
        Self { world, filled, dice }
    }

    fn wanted(&self) -> Vec<Wanted> {
        self.filled.iter().map(|one| one.route.wanted(&one.rows)).collect()
    }

    /// Starts a rebuild and kills it once Redis has carried out some commands of it. Returns whether that left a run
    /// to resume.
    fn kill_one(&mut self, told: &mut Told) -> bool {
        let keys: usize = self.wanted().iter().map(|wanted| wanted.held.len()).sum();
        let after = 1 + self.dice.below(3 * keys + 40) as u64;
        let lanes = (1 + self.dice.below(3)).to_string();
        let mut wire = Wire::open(self.world);
        let before = commands(&mut wire);
        let mut child = self.world.start_rebuild(&["--lanes", &lanes]);
        wait_until("the commands", || {
            commands(&mut wire) >= before + after || child.try_wait().unwrap().is_some()
        });
        drop(wire);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        settle(self.world);
        if output.status.signal() != Some(9) {
            Ran::of(&output).expect(0);
            told.ended_first += 1;
            return false;
        }
        told.kills_at_work += 1;
        standing(self.world)["status"] == "killed"
    }

    /// Asserts that Redis holds what the rows say, expiries included.
    fn assert_wanted(&self, wanted: &[Wanted]) {
        let held = wanted.iter().flat_map(|wanted| wanted.held.clone()).collect();
        assert_held(self.world, &held);
        let expiries: Vec<(&String, i64)> = wanted
            .iter()
            .flat_map(|wanted| wanted.expiries.iter().map(|(key, ms)| (key, *ms)))
            .collect();
        let mut wire = Wire::open(self.world);
        for some in expiries.chunks(PIPELINE) {
            let asks: Vec<Vec<String>> = some
                .iter()
                .map(|(key, _)| vec!["PEXPIRETIME".to_owned(), (*key).clone()])
                .collect();
            for ((key, wanted), found) in some.iter().zip(wire.pipeline(&asks)) {
                assert!(
                    matches!(found, Reply::Number(ms) if ms == *wanted),
                    "{key}: {found:?}, not {wanted}"
                );
            }
        }
    }

    /// Asserts the figures of a run that was not killed.
    fn assert_figures(&self, summary: &Value, wanted: &[Wanted]) {
        for (one, Wanted { figures, .. }) in self.filled.iter().zip(wanted) {
            let counts = of_route(summary, one.name());
            let of = |field: &str| counts[field].as_u64().unwrap();
            let Figures { rows, expired, rejects, left_out, folded } = *figures;
            assert_eq!(
                [of("rows"), of("expired"), of("rejects")],
                [rows, expired, rejects],
                "{counts}"
            );
            let carried = rows - expired - rejects;
            // Every key is there by now, so a route that keeps keys writes none.
            let kept = if one.route.keeps { carried - left_out } else { 0 };
            assert_eq!([of("written"), of("kept")], [carried - kept, kept], "{counts}");
            assert_eq!(of("folded"), if one.route.keeps { 0 } else { folded }, "{counts}");
        }
    }

    /// Removes keys of an earlier attempt whose rows have all become rejects.
    fn remove_rejected(&self, wanted: &[Wanted]) {
        for (one, Wanted { held, .. }) in self.filled.iter().zip(wanted) {
            for key in
                one.route.rejected_keys(&one.rows).iter().filter(|key| !held.contains_key(*key))
            {
                self.world.redis(&["DEL", key]);
            }
        }
    }

    fn work(&mut self, told: &mut Told) {
        let mut is_changed = false;
        for _ in 0..=self.dice.below(2) {
            let is_resumable = self.kill_one(told);
            // A key that is kept stays as it was written first.
            let keeps = self.filled.iter().any(|one| one.route.keeps);
            if is_resumable && !keeps && self.dice.percent(50) {
                for one in &mut self.filled {
                    one.change(self.world, &mut self.dice);
                }
                told.changed_before_resume += 1;
                is_changed = true;
            }
        }
        let wanted = self.wanted();
        let first = self.world.rebuild(&["--lanes", "2"]).expect(0).summary();
        if is_changed {
            self.remove_rejected(&wanted);
        }
        self.assert_wanted(&wanted);
        // Once more changes nothing.
        let again = self.world.rebuild(&[]).expect(0).summary();
        self.assert_wanted(&wanted);
        self.assert_figures(&again, &wanted);
        for one in &self.filled {
            let digest = |summary: &Value| of_route(summary, one.name())["digest"].clone();
            // Partitions that were kept are of another snapshot, and have no digest that a run could repeat.
            if !digest(&first).is_null() {
                assert_eq!(digest(&first), digest(&again), "{}", one.name());
            }
        }
        told.cases += 1;
        for Wanted { held, figures, .. } in &wanted {
            told.rows += figures.rows;
            told.keys += held.len() as u64;
            told.largest_key = told.largest_key.max(held.values().map(Vec::len).max().unwrap_or(0));
            told.folded += figures.folded;
            told.rejects += figures.rejects;
            told.expired += figures.expired;
        }
    }
}

/// Commands that Redis has carried out, but for those that ask this.
fn commands(wire: &mut Wire) -> u64 {
    let stats = wire.ask(&["INFO", "commandstats"]).text().unwrap();
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        (name != "info").then(|| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    stats.lines().filter_map(calls).sum()
}

#[test]
fn random_rows_under_kills_become_what_a_model_makes_of_them_and_once_more_is_the_same() {
    let world = World::new();
    world.sql(
        "create collation ci (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
    );
    let mut told = Told::default();
    for seed in seeds() {
        println!("seed {seed}");
        Case::begin(&world, seed).work(&mut told);
    }
    println!("{told:?}");
    assert!(told.kills_at_work > 0, "no run was killed at work");
}
