//! Runs that are killed, stopped or lose a system, and the runs that continue them.
//!
//! Invariant: whatever happened, a run that ends 0 leaves in Redis exactly what PostgreSQL holds, told by a
//! comparison that shares nothing with the product.

use crate::items::{
    HASH, JSON, ROWS, assert_columns, assert_complete, calls, filled, held, killed, random,
    resumed, signal, standing, started,
};
use crate::world::{Ran, World};
use fixtures::servers::{Postgres, PostgresOptions, Redis, RedisOptions, StopMode};
use nix::sys::signal::Signal;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How often a run sends the commands that write rows.
struct Sends {
    commands: &'static [&'static str],
    /// Times an attempt runs them for something else.
    besides: u64,
    /// Whether a key is sampled by one of them too.
    is_sampled_by: bool,
    /// Rows per command; where it is not 1, the last command of a batch may hold fewer.
    rows_max: u64,
}

impl Sends {
    /// Rows sent so far by so many attempts; an upper bound where commands hold several.
    fn rows(&self, world: &World, attempts: u64) -> u64 {
        // Each key that is written to find out what it takes is told to expire, and no other is.
        let sampled = if self.is_sampled_by { calls(world, "pexpire") } else { 0 };
        let sent: u64 = self.commands.iter().map(|command| calls(world, command)).sum();
        (sent - attempts * self.besides - sampled) * self.rows_max
    }
}

/// Kills once at `percent` and resumes.
fn kill_and_resume(world: &World, percent: u64, sends: &Sends) {
    let killed = killed(world, percent);
    let committed = killed["rows"].as_u64().unwrap();
    let sent_first = sends.rows(world, 1);
    let summary = resumed(world);
    let sent = sends.rows(world, 2);
    let plan = world.run(&["plan", "--json"]).expect(0).summary();
    let in_flight = plan["in_flight_bytes"].as_f64().unwrap();
    let row_bytes = summary["bytes"].as_f64().unwrap() / ROWS as f64;
    let interval = plan["checkpoint_seconds"].as_f64().unwrap();
    let repeated = sent - ROWS;
    let bound = interval * summary["rows_per_second"].as_f64().unwrap() + in_flight / row_bytes;
    println!(
        "{percent} %: {sent_first} sent, {committed} committed, {repeated} repeated, bound {bound:.0}"
    );
    assert!(interval <= 2.0 && repeated as f64 <= bound, "{repeated} > {bound}");
    if sends.rows_max == 1 {
        // Exactly what the journal did not know of was sent again.
        assert_eq!(repeated, sent_first - committed);
    }
    assert_eq!(summary["rows"].as_u64(), Some(ROWS), "{summary}");
}

fn kills() -> u64 {
    if std::env::var("REKINDLE_SOAK").is_ok_and(|value| value == "1") { 20 } else { 3 }
}

#[test]
fn killed_at_random_instants_the_resumed_run_is_complete_and_repeats_little() {
    // GIVEN a table, and per round an empty Redis and no state
    let mut world = filled();
    let first = RandomState::new().hash_one(());
    println!("seed {first}");
    let mut seed = first;
    for round in 0..kills() {
        // The two ways to write hashes take turns. The trial of RESTORE restores three hashes, and long values go by HSET
        // either way.
        let sends = if round % 2 == 0 {
            world.way = "restore";
            let commands = &["restore", "hset"];
            Sends { commands, besides: 3, is_sampled_by: true, rows_max: 1 }
        } else {
            world.way = "command";
            Sends { commands: &["hset"], besides: 0, is_sampled_by: true, rows_max: 1 }
        };
        // WHEN the run is killed somewhere past its second commit THEN the next one completes it
        kill_and_resume(&world, 5 + random(&mut seed, 80), &sends);
        world.redis = Redis::start(RedisOptions::default()).unwrap();
        fs::remove_dir_all(world.state()).unwrap();
    }
}

#[test]
fn a_killed_run_of_json_values_is_complete_after_the_resume_and_repeats_little() {
    // GIVEN the JSON layout
    let world = filled();
    world.plan(JSON);
    let mut seed = RandomState::new().hash_one(());
    println!("seed {seed}");
    // WHEN the run is killed THEN the next one completes it
    let sends = Sends { commands: &["mset"], besides: 0, is_sampled_by: false, rows_max: 64 };
    kill_and_resume(&world, 5 + random(&mut seed, 80), &sends);
}

#[test]
fn flushall_between_kill_and_resume_is_noticed_and_everything_is_written_again() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 50);
    // WHEN somebody empties Redis, the mark of the run included
    world.redis(&["FLUSHALL"]);
    // THEN nothing that was committed is believed
    let summary = resumed(&world);
    assert!(summary["rows"].as_u64() == Some(ROWS), "{summary}");
}

#[test]
fn a_run_is_resumed_into_a_new_redis_on_another_port() {
    // GIVEN a killed run
    let mut world = filled();
    killed(&world, 50);
    // WHEN Redis is recreated elsewhere THEN everything is written there
    world.redis = Redis::start(RedisOptions::default()).unwrap();
    resumed(&world);
}

#[test]
fn a_run_is_resumed_from_a_new_postgres_with_the_same_data() {
    // GIVEN a killed run
    let mut world = filled();
    killed(&world, 50);
    // WHEN the source is restored into a new cluster, in another order on disk
    let restored = Postgres::start(PostgresOptions::default()).unwrap();
    let dump = Command::new("pg_dump").args(world.postgres.superuser_args()).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    restored.psql(&String::from_utf8(dump.stdout).unwrap()).unwrap();
    restored.psql("update items set b = b + 1 where id % 7 = 0").unwrap();
    world.postgres = restored;
    // THEN its rows are what Redis holds
    resumed(&world);
    // AND the same holds when both servers are new
    fs::remove_dir_all(world.state()).unwrap();
    world.redis(&["FLUSHALL"]);
    killed(&world, 30);
    let restored = Postgres::start(PostgresOptions::default()).unwrap();
    let dump = Command::new("pg_dump").args(world.postgres.superuser_args()).output().unwrap();
    restored.psql(&String::from_utf8(dump.stdout).unwrap()).unwrap();
    world.postgres = restored;
    world.redis = Redis::start(RedisOptions::default()).unwrap();
    resumed(&world);
}

#[test]
fn another_state_folder_on_the_same_target_is_refused_with_8_until_it_takes_over() {
    // GIVEN an unfinished run on this Redis
    let world = filled();
    let run_id = killed(&world, 50)["run_id"].as_str().unwrap().to_owned();
    // WHEN a run with another state folder comes THEN it is refused, and told how to go on
    let before = calls(&world, "hset");
    world.rebuild(&["--state", "other"]).expect(8).says(&[&run_id, "--take-over"]);
    world.rebuild(&["--state", "other", "--take-over", "0000"]).expect(8);
    assert_eq!(calls(&world, "hset"), before, "a refused run wrote");
    // AND by name it may take the target over
    world.rebuild(&["--state", "other", "--take-over", &run_id]).expect(0);
    assert_complete(&world);
    // AND the run it took it from can still be resumed, and believes nothing of its own
    resumed(&world);
}

#[test]
fn a_second_process_on_the_same_state_folder_is_refused_with_8() {
    // GIVEN a run at work, held still so that it cannot end first
    let world = filled();
    let child = held(&world, 30);
    // WHEN the same command is typed again THEN it is refused
    let second = world.rebuild(&[]);
    let third = world.rebuild(&["--state", "other"]);
    signal(&child, Signal::SIGCONT);
    second.expect(8);
    third.expect(8);
    // AND the first one ends well
    Ran::of(&child.wait_with_output().unwrap()).expect(0);
    assert_complete(&world);
}

#[test]
fn sigterm_and_sigint_stop_within_ten_seconds_and_the_run_is_resumable() {
    for (name, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        // GIVEN a run at work, whose commands count rows
        let world = World { way: "command", ..filled() };
        let child = started(&world, 30);
        // WHEN it is asked to stop THEN it does, checkpointed
        let asked = Instant::now();
        signal(&child, name);
        let ran = Ran::of(&child.wait_with_output().unwrap()).expect(code);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert_eq!(ran.summary()["status"], "interrupted");
        let standing = standing(&world);
        assert_eq!(standing["status"], "interrupted", "{standing}");
        assert_eq!(standing["is_resumable"], true, "{standing}");
        // AND what was written is what was committed: nothing is repeated
        resumed(&world);
        assert_eq!(calls(&world, "hset") - calls(&world, "pexpire"), ROWS);
    }
}

/// Asserts that the run ended well, or in a documented way after which the resume is right.
fn ended_or_resumed(world: &World, child: Child) {
    let ran = Ran::of(&child.wait_with_output().unwrap());
    if ran.code == Some(0) {
        assert_complete(world);
    } else {
        println!("the run ended first: {:?} {}", ran.code, ran.stderr);
        ran.expect(3);
        resumed(world);
    }
}

#[test]
fn a_redis_that_restarts_empty_in_mid_run_is_filled_again() {
    // GIVEN a run at work
    let mut world = filled();
    let child = started(&world, 40);
    // WHEN Redis crashes and comes back empty on the same port
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    // THEN nothing is missing in the end
    ended_or_resumed(&world, child);
}

#[test]
fn a_postgres_that_restarts_in_mid_run_loses_nothing() {
    for is_crash in [false, true] {
        // GIVEN a run at work
        let mut world = filled();
        let child = started(&world, 30);
        // WHEN PostgreSQL restarts or crashes THEN nothing is missing in the end
        if is_crash {
            world.postgres.kill().unwrap();
        } else {
            world.postgres.stop(StopMode::Fast).unwrap();
        }
        world.postgres.start_again().unwrap();
        ended_or_resumed(&world, child);
    }
}

#[test]
fn a_changed_plan_or_column_type_is_refused_on_resume_until_it_starts_over() {
    // GIVEN a killed run
    let world = filled();
    killed(&world, 50);
    let before = calls(&world, "hset");
    // WHEN the route changes THEN the resume is refused with the lines that differ
    world.plan(&format!("{HASH}columns = [\"a\", \"b\"]\n"));
    world.rebuild(&[]).expect(2).says(&["  - items: ", "  + items: ", "columns", "--fresh"]);
    // AND so it is when a column has another type
    world.plan(HASH);
    world.sql("alter table items alter b type bigint");
    world.rebuild(&[]).expect(2).says(&[
        "  route items, public.items: column b has another type: integer -> bigint",
        "--fresh",
    ]);
    assert_eq!(calls(&world, "hset"), before, "a refused run wrote");
    // AND a fresh run leaves nothing of the first one, fields that the route no longer carries included
    world.plan(&format!("{HASH}columns = [\"a\", \"b\"]\n"));
    let summary = world.rebuild(&["--fresh"]).expect(0).summary();
    assert_eq!(summary["resumed"], 0);
    assert_columns(&world, "ab");
}
