//! `verify redis` beside an application that writes, and on what routes leave to it: kept keys, expired rows, the last
//! of several rows, keys of other routes.

use crate::verify::{connection, counts, findings, rebuilt, verify};
use crate::world::{World, wait_until};
use redis::Commands;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Ends the writers of a test, also where it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes rows, deletes rows and makes rows, and each time their keys right after.
fn write_both_ends(world: &World, stop: &AtomicBool, written: &AtomicU64) {
    let mut connection = connection(world);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let from = 1 + round % 10 * 20;
        let to = from + 19;
        world.sql(&format!(
            "update builds set status = 's{round}' where id between {from} and {to}; \
             delete from builds where id between {} and {}; \
             insert into builds select n, 'new', 'main', 1 from generate_series({}, {}) n on conflict do nothing",
            from + 200,
            to + 200,
            from + 400_000,
            to + 400_000
        ));
        let mut pipeline = redis::pipe();
        for id in from..=to {
            let status = format!("s{round}");
            pipeline.cmd("HSET").arg(format!("build:{id}")).arg("status").arg(status);
            pipeline.cmd("DEL").arg(format!("build:{}", id + 200));
            let new = ["status", "new", "branch", "main", "seconds", "1"];
            pipeline.cmd("HSET").arg(format!("build:{}", id + 400_000)).arg(&new);
        }
        let _: () = pipeline.query(&mut connection).unwrap();
        round += 1;
        written.store(round, Ordering::Relaxed);
        // The pace of an application: every row changes about twice a second.
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn an_application_that_writes_both_ends_makes_no_false_difference() {
    let world = rebuilt();
    let mut connection = connection(&world);
    // One damage that stays, so that the verification cannot simply forgive everything.
    let _: u64 = connection.hset("build:3000", "status", "wrong").unwrap();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| write_both_ends(&world, &stop, &written));
        wait_until("a first round of writes", || written.load(Ordering::Relaxed) > 2);
        for tier in ["full", "count", "full"] {
            let words = ["verify", "redis", "--json", "--progress", "none", "--settle", "2s"];
            let before = written.load(Ordering::Relaxed);
            let ran = world.run(&[&words[..], &["--tier", tier]].concat());
            let writes = written.load(Ordering::Relaxed) - before;
            let is_count = tier == "count";
            let summary = ran.expect(if is_count { 0 } else { 4 }).summary();
            println!("{tier}: {writes} rounds of writes, {} keys settled", summary["settled"]);
            let damaged = ("build:3000".to_owned(), "value".to_owned());
            let expected = (!is_count).then_some(damaged).into_iter().collect();
            assert_eq!(findings(&summary, &world), expected, "{tier}, {writes} rounds of writes");
        }
    });
}

#[test]
fn a_key_that_never_stands_still_is_inconclusive_and_not_different() {
    let world = rebuilt();
    let stop = AtomicBool::new(false);
    let (code, summary) = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut connection = connection(&world);
            let mut round = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let _: u64 = connection.hset("build:9", "status", round).unwrap();
                round += 1;
            }
        });
        let ran = verify(&world, &["--tier", "full"]);
        (ran.code, ran.summary())
    });
    assert_eq!((code, &summary["status"]), (Some(4), &"inconclusive".into()), "{summary:#}");
    assert_eq!((counts(&summary), &summary["moving"]), ([0; 4], &1.into()));
    assert_eq!(findings(&summary, &world), [("build:9".to_owned(), "moving".to_owned())].into());
}

#[test]
fn kept_keys_are_told_apart_and_are_no_difference() {
    let world = World::new();
    world.sql("create table t (id int primary key, v text); insert into t select n, 'v' || n from generate_series(1, 50) n");
    for layout in ["hash", "string", "json"] {
        world.plan(&format!(
            "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"{layout}:{{id}}\"\ntype = \"{layout}\"\n\
             columns = [\"v\"]\non_conflict = \"keep\"\n"
        ));
        let mut connection = connection(&world);
        let _: () = connection.set(format!("{layout}:7"), "the application's").unwrap();
        world.rebuild(&[]).expect(0);
        let _: bool = connection.expire(format!("{layout}:8"), 1_000).unwrap();
        let summary = verify(&world, &["--tier", "full"]).expect(0).summary();
        assert_eq!((&summary["kept"], &summary["status"]), (&2.into(), &"pass".into()), "{layout}");
        let _: u64 = connection.del(format!("{layout}:9")).unwrap();
        verify(&world, &["--tier", "full", "--repair", "--dry-run"]).expect(4);
        let summary = verify(&world, &["--tier", "full", "--repair"]).expect(0).summary();
        assert_eq!((&summary["repair"]["written"], &summary["kept"]), (&1.into(), &2.into()));
        let kept: String = connection.get(format!("{layout}:7")).unwrap();
        assert_eq!(kept, "the application's");
    }
}

#[test]
fn rows_that_have_expired_need_no_key() {
    let world = rebuilt();
    world.sql("update sessions set until = now() - interval '1 second' where until is not null");
    let mut connection = connection(&world);
    // The application let half of them go; the others outlive their rows.
    let ids = world.sql("select id from sessions where until is not null order by id");
    for id in ids.lines().skip(20) {
        let _: u64 = connection.del(format!("session:{id}")).unwrap();
    }
    for tier in ["count", "full"] {
        let summary = verify(&world, &["--tier", tier]).expect(4).summary();
        assert_eq!(
            (counts_of(&summary), &summary["expired"]),
            ([0, 0, 20], &2_230.into()),
            "{tier}"
        );
    }
    for id in ids.lines().take(20) {
        let _: u64 = connection.del(format!("session:{id}")).unwrap();
    }
    let summary = verify(&world, &["--tier", "full"]).expect(0).summary();
    assert_eq!(summary["expired"], 2_250);
}

/// Counts of what every tier looks for.
fn counts_of(summary: &serde_json::Value) -> [u64; 3] {
    ["missing", "different_value", "different_expiry"].map(|name| summary[name].as_u64().unwrap())
}

#[test]
fn of_several_rows_the_last_one_is_expected() {
    let world = World::new();
    world.sql(
        "create table t (id int, at int, v text, until timestamptz); \
         insert into t select n % 100, n, 'v' || n, null from generate_series(1, 1000) n; \
         insert into t values (5, 5000, 'expired', now() - interval '1 day')",
    );
    world.plan(
        "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{id}\"\ntype = \"json\"\ncolumns = [\"v\"]\n\
         expire_at = \"until\"\non_collision = \"last\"\norder_by = \"at\"\n",
    );
    world.rebuild(&[]).expect(0);
    for tier in ["count", "sample", "full"] {
        let summary = verify(&world, &["--tier", tier]).expect(0).summary();
        assert_eq!((&summary["rows"], &summary["keys"]), (&1_001.into(), &100.into()), "{tier}");
        assert_eq!(summary["settled"], 0, "{tier}");
    }
    // An earlier row's value is damage, and is mended to the last one's.
    let mut connection = connection(&world);
    let _: () = connection.set("t:5", r#"{"v":"v5"}"#).unwrap();
    verify(&world, &["--tier", "full", "--repair", "--dry-run"]).expect(4);
    verify(&world, &["--tier", "full", "--repair"]).expect(0);
    let value: String = connection.get("t:5").unwrap();
    assert_eq!(value, r#"{"v":"v905"}"#);
}

#[test]
fn keys_that_another_route_may_write_are_left_to_it() {
    let world = World::new();
    world.sql(
        "create table a (id int primary key, v text); create table b (id text primary key, v text); \
         insert into a values (1, 'x'); insert into b values ('one', 'x')",
    );
    // Both templates fit every key of either.
    let route = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\ntable = \"alloydb:{name}\"\nkey = \"k:{{id}}\"\ntype = \"hash\"\n"
        )
    };
    world.plan(&[route("a"), route("b")].concat());
    world.rebuild(&[]).expect(0);
    verify(&world, &["--tier", "full"]).expect(0);
    let mut connection = connection(&world);
    let _: () = connection.set("k:two", "x").unwrap();
    let _: () = connection.set("k:2", "x").unwrap();
    let summary = verify(&world, &["--tier", "full"]).expect(4).summary();
    let both = [("k:2", "unexplained"), ("k:two", "unexplained")];
    assert_eq!(findings(&summary, &world), both.map(|(k, w)| (k.to_owned(), w.to_owned())).into());
    // Of one route alone it cannot be said.
    verify(&world, &["--tier", "full", "--route", "a"]).expect(0);
}

#[test]
fn an_interrupted_verification_says_so_and_leaves_nothing() {
    let world = rebuilt();
    let mut connection = connection(&world);
    let _: u64 = connection.del("build:1").unwrap();
    // A long time to settle is where the signal meets it.
    let words =
        ["verify", "redis", "--tier", "full", "--settle", "10m", "--json", "--progress", "none"];
    let child =
        world.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let list = world.state().join("verify").join("findings.jsonl.new");
    wait_until("the second look", || list.exists());
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let ran = crate::world::Ran::of(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(ran.summary()["status"], "inconclusive");
    assert!(!world.state().join("verify").join("scratch").exists());
}

#[test]
fn a_system_that_goes_away_on_the_way_proves_nothing() {
    let mut world = rebuilt();
    let _: u64 = connection(&world).del("build:1").unwrap();
    let words = ["verify", "redis", "--tier", "full", "--settle", "2s", "--retry-for", "1s"];
    let mut command = world.command(&[&words[..], &["--json", "--progress", "none"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let list = world.state().join("verify").join("findings.jsonl.new");
    wait_until("the second look", || list.exists());
    world.redis.kill().unwrap();
    let ran = crate::world::Ran::of(&child.wait_with_output().unwrap()).expect(3);
    let summary = ran.summary();
    assert_eq!((&summary["status"], &summary["rows"]), (&"inconclusive".into(), &9_000.into()));
    assert_eq!((counts(&summary), &summary["findings"]), ([0; 4], &serde_json::Value::Null));
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_its_code() {
    let world = World::new();
    world.sql("create table t (id int primary key, v text)");
    world.plan(
        "[[route]]\nname = \"t\"\ntable = \"alloydb:t\"\nkey = \"t:{id}\"\ntype = \"hash\"\n\
         [bigquery]\nproject = \"p\"\n\
         [[route]]\nname = \"logs\"\ntable = \"bigquery:d.logs\"\nkey = \"log\"\ntype = \"blocks\"\n",
    );
    for (words, says) in [
        (&["--tier", "most"][..], "invalid value 'most'"),
        (&["--sample", "0"], "0 is not in 1..=100000"),
        (&["--tier", "full", "--sample", "5"], "--sample goes with --tier sample only"),
        (&["--dry-run"], "--repair"),
        (&["--repair", "--remove-unexplained", "t:1"], "--remove-unexplained needs --tier full"),
        (&["--route", "logs"], "--route logs: it is a backup"),
        (&["--route", "x"], "has no route \"x\""),
        (&["--deadline", "1h"], "--deadline and --lost-at go with recoveries"),
    ] {
        verify(&world, words).expect(2).says(&[says]);
    }
    for (name, address) in [
        ("ALLOYDB_URL", "postgres://u:secret@127.0.0.1:1/d"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:1"),
    ] {
        let words = ["verify", "redis", "--retry-for", "1s", "--route", "t", "--progress", "none"];
        let output = world.command(&words).env(name, address).output().unwrap();
        let ran = crate::world::Ran::of(&output).expect(3);
        assert!(
            !ran.stderr.contains("secret") && ran.stderr.contains("127.0.0.1:1"),
            "{}",
            ran.stderr
        );
    }
    assert!(!world.state().join("verify").join("scratch").exists());
}
