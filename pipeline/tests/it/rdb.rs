//! RDB files instead of a server: what real servers make of them, and what is refused.
//!
//! Invariant: what a file holds is told by `redis-server` and `redis-check-rdb`, never by the product.

use crate::carried::{TYPE_COLUMNS, TYPES, route};
use crate::cloud::Cloud;
use crate::items::Wire;
use crate::world::{Ran, World, wait_until};
use fixtures::servers::{Redis, RedisOptions};
use serde_json::Value;
use stages::failpoint::{Point, VARIABLE};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where no Redis is.
pub(crate) const NOWHERE: &str = "redis://127.0.0.1:1/0";

/// A server that has loaded a file, which `redis-check-rdb` takes too.
pub(crate) fn loaded(file: &Path, more: &[&str]) -> Redis {
    let checked = Command::new("redis-check-rdb").arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("RDB looks OK!"), "{said}");
    let (folder, name) = (file.parent().unwrap(), file.file_name().unwrap());
    let words = ["--dir", folder.to_str().unwrap(), "--dbfilename", name.to_str().unwrap()];
    let args = [&words[..], more].concat().into_iter().map(str::to_owned).collect();
    let redis = Redis::start(RedisOptions { args, ..RedisOptions::default() }).unwrap();
    wait_until("the end of loading", || redis.cli(&["DBSIZE"]).is_ok());
    redis
}

/// Type, encoding, expiry and content of every key, in order.
pub(crate) fn held(redis: &Redis, database: &str) -> Vec<String> {
    let script = "local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do \
        local t = redis.call('TYPE', k)['ok'] local v \
        if t == 'string' then v = redis.call('GET', k) else \
            local f, p = redis.call('HGETALL', k), {} \
            for i = 1, #f, 2 do p[#p + 1] = f[i] .. '=' .. f[i + 1] end \
            table.sort(p) v = #p .. ' ' .. table.concat(p, ' ') end \
        r[#r + 1] = k .. ' ' .. t .. ' ' .. redis.call('OBJECT', 'ENCODING', k) .. ' ' .. \
            redis.call('PEXPIRETIME', k) .. ' ' .. #v .. ' ' .. redis.sha1hex(v) end table.sort(r) return r";
    let told = redis.cli(&["-n", database, "--json", "EVAL", script, "0"]).unwrap();
    serde_json::from_str(&told).unwrap()
}

/// Runs a rebuild into `files`, with no Redis to be reached.
pub(crate) fn command(world: &World, more: &[&str]) -> Command {
    let words = ["rebuild", "redis", "--json", "--progress", "none", "--to-rdb", "files"];
    let mut command = world.command(&[&words[..], &["--retry-for", "2s"], more].concat());
    command.env("REDIS_URL", NOWHERE);
    command
}

pub(crate) fn to_files(world: &World, more: &[&str]) -> Ran {
    Ran::of(&command(world, more).output().unwrap())
}

pub(crate) fn folder(world: &World) -> PathBuf {
    world.folder.path().join("files")
}

/// Every name in the folder of the files, hidden ones too.
pub(crate) fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(folder(world)).map(|entries| {
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    });
    let mut names: Vec<String> = entries.unwrap_or_default();
    names.sort();
    names
}

/// Rows that reach every length and encoding: texts at each limit, integers of every width, bytes, emptiness, more fields
/// than a listpack holds, expiries of then and of long ago.
fn world_of_everything() -> World {
    let world = World::new();
    let wide: Vec<String> =
        (0..600).map(|field| format!("c{field} text default '{field}'")).collect();
    world.sql(TYPES);
    world.sql(&format!(
        "create table small (id bigint primary key, a text, n bigint, at timestamptz); \
         insert into small select i, repeat('ż', i), (-7) ^ i, \
             case when i % 2 = 0 then timestamptz '2090-01-01Z' end from generate_series(0, 22) i; \
         insert into small select 1000 + l, repeat('x', l), l, null \
             from unnest(array[0, 31, 63, 64, 65, 127, 128, 4095, 16383, 16384, 70000, 300000]) l; \
         insert into small values (104, '007', -9223372036854775808, null), (105, '12', 0, '2020-01-01Z'), \
             (106, E'a\\u0001b\\r\\n\\t\"', 9223372036854775807, '2090-01-01Z'); \
         create table wide (id bigint primary key, {}); insert into wide (id) values (1), (2); \
         analyze small, wide, types",
        wide.join(", ")
    ));
    let expires = "expire_at = \"at\"\ncolumns = [\"a\", \"n\"]";
    let routes = [
        route("types", "hash", TYPE_COLUMNS),
        route("types", "json", TYPE_COLUMNS),
        route("small", "hash", expires),
        route("small", "json", expires),
        route("small", "string", "expire_at = \"at\"\ncolumns = [\"a\"]"),
        route("wide", "hash", ""),
    ];
    world.plan(&routes.concat());
    world
}

#[test]
fn a_server_loads_from_a_file_what_a_live_rebuild_leaves() {
    let world = world_of_everything();
    world.rebuild(&[]).expect(0);
    let live = held(&world.redis, "0");
    // WHEN the same is written into a file
    let ran = to_files(&world, &[]).expect(0);
    let summary = ran.summary();
    let file = &summary["files"][0];
    // THEN it has its name, its owner's rights and nothing beside it
    let path = folder(&world).join("dump.rdb");
    assert_eq!(names(&world), ["dump.rdb"]);
    let facts = fs::metadata(&path).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    assert_eq!((&file["bytes"], &file["slots"]), (&facts.len().into(), &"0-16383".into()));
    let trailer = fs::read(&path).unwrap();
    let crc = u64::from_le_bytes(*trailer.last_chunk::<8>().unwrap());
    assert_eq!(file["crc64"], format!("{crc:016x}"));
    // AND was read back, every key of it
    let verified = &summary["verified"];
    assert_eq!((&verified["keys_counted"], &verified["differences"]), (&file["keys"], &0.into()));
    assert_eq!((&summary["status"], &summary["expired"]), (&"done".into(), &3.into()));
    // AND a server loads what a live rebuild leaves: values, encodings, expiries.
    let redis = loaded(&path, &[]);
    assert_eq!(held(&redis, "0"), live);
    assert_eq!(file["keys"], live.len());
    let expiring = live.iter().filter(|line| !line.contains(" -1 ")).count();
    assert!(expiring > 0 && file["expiring"] == expiring, "{expiring} {file}");
    let told = to_files(&world, &["--fresh"]).expect(2);
    told.says(&["dump.rdb exists, and is not overwritten", "--replace-rdb"]);
    to_files(&world, &["--fresh", "--replace-rdb"]).expect(0);
    assert_eq!(
        (names(&world), held(&loaded(&path, &[]), "0")),
        (vec!["dump.rdb".to_owned()], live)
    );
}

#[test]
fn each_file_of_several_holds_the_keys_of_its_slots() {
    let world = World::new();
    world.sql("create table small (id bigint primary key, a text); insert into small select i, md5(i::text) from generate_series(1, 5000) i; analyze small");
    world.plan(&[route("small", "hash", ""), route("small", "json", "")].concat());
    let summary = to_files(&world, &["--rdb-nodes", "3"]).expect(0).summary();
    let names = names(&world);
    assert_eq!(names, ["slots-00000-05460.rdb", "slots-05461-10922.rdb", "slots-10923-16383.rdb"]);
    let mut all = 0;
    for (file, name) in summary["files"].as_array().unwrap().iter().zip(&names) {
        let redis = loaded(&folder(&world).join(name), &["--cluster-enabled", "yes"]);
        let mut wire = Wire::to(redis.port());
        let keys: Vec<String> =
            wire.ask(&["KEYS", "*"]).list().into_iter().map(|key| key.text().unwrap()).collect();
        let asks: Vec<Vec<String>> =
            keys.iter().map(|key| vec!["CLUSTER".into(), "KEYSLOT".into(), key.clone()]).collect();
        let (first, last) = file["slots"].as_str().unwrap().split_once('-').unwrap();
        let range: std::ops::RangeInclusive<i64> = first.parse().unwrap()..=last.parse().unwrap();
        for (slot, key) in wire.pipeline(&asks).into_iter().zip(&keys) {
            assert!(
                matches!(slot, crate::items::Reply::Number(slot) if range.contains(&slot)),
                "{key}"
            );
        }
        assert_eq!(file["keys"], keys.len());
        all += keys.len();
    }
    assert_eq!(all, 10_000);
    // Another number of files is another run.
    to_files(&world, &["--rdb-nodes", "2"]).expect(0);
}

#[test]
fn a_file_of_a_bigquery_table_is_what_a_live_rebuild_leaves() {
    let route = "[[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\ntype = \"hash\"\nkey = \"log:{id}\"\n\
                 use = [\"rebuild\"]\non_collision = \"error\"\n";
    let cloud = Cloud::new(RedisOptions::default(), route);
    cloud.table("{}");
    cloud.insert(1, 0..3_000);
    let words = ["rebuild", "redis", "--json", "--progress", "none"];
    Ran::of(&cloud.command(&words).output().unwrap()).expect(0);
    let files = [&words[..], &["--to-rdb", "files"]].concat();
    Ran::of(&cloud.command(&files).output().unwrap()).expect(0);
    let path = cloud.folder.path().join("files/dump.rdb");
    let live = held(&cloud.redis, "0");
    assert_eq!((live.len(), held(&loaded(&path, &[]), "0")), (3_000, live));
}

/// Leaves a run that was killed at the n-th passing of a point.
pub(crate) fn killed(world: &World, point: Point, at: u32, more: &[&str]) {
    let mut command = command(world, more);
    let output = command.env(VARIABLE, format!("{}:{at}", point.name())).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", Ran::of(&output).stderr);
    assert!(!folder(world).join("dump.rdb").exists(), "a name before the end");
}

#[test]
fn what_makes_no_sense_for_a_file_is_refused_by_name() {
    let world = World::new();
    world.sql("create table t (id bigint primary key, g int, a text, at timestamptz); insert into t values (1, 1, 'x', now()), (2, 1, 'y', now())");
    let refused = [
        ("type = \"set\"\nkey = \"s:{g}\"\nmember = \"{id}\"", "many rows make one key"),
        ("type = \"redisjson\"\nkey = \"d:{id}\"", "type redisjson is not written into files yet"),
        (
            "type = \"stream\"\nkey = \"e\"\nuse = [\"rebuild\"]",
            "type stream is not written into files yet",
        ),
        ("type = \"hash\"\nkey = \"k:{id}\"\non_conflict = \"keep\"", "on_conflict = \"keep\""),
        (
            "type = \"hash\"\nkey = \"n:{id}\"\non_conflict = \"newest\"\nversion_by = \"at\"",
            "on_conflict = \"newest\"",
        ),
        (
            "type = \"hash\"\nkey = \"l:{g}\"\non_collision = \"last\"\norder_by = \"id\"",
            "on_collision = \"last\"",
        ),
    ];
    let routes = refused.iter().enumerate().map(|(number, (route, _))| {
        format!("[[route]]\nname = \"r{number}\"\ntable = \"alloydb:t\"\n{route}\n")
    });
    world.plan(&routes.collect::<Vec<_>>().concat());
    // Every one of them at once, and before anything is connected to or made.
    let mut command = command(&world, &[]);
    let ran = Ran::of(&command.env("ALLOYDB_URL", "postgres://h.invalid/d").output().unwrap());
    ran.expect(2).says(&refused.map(|(_, why)| why));
    assert!(!folder(&world).exists());
    for flags in [["--cut-over", "3"], ["--way", "restore"], ["--fit", "80%"], ["--take-over", "x"]]
    {
        to_files(&world, &flags).expect(2).says(&["cannot be used with"]);
    }
    world.rebuild(&["--rdb-nodes", "3"]).expect(2).says(&["--to-rdb"]);

    // Two rows with one key, which no index forbids: seen before the first write by the plan, or at the end.
    world.plan("[[route]]\nname = \"a\"\ntable = \"alloydb:t\"\nkey = \"k:{id}\"\ntype = \"json\"\n\
                [[route]]\nname = \"b\"\ntable = \"alloydb:t\"\nkey = \"k:{id}\"\ntype = \"string\"\ncolumns = [\"a\"]\n");
    let ran = to_files(&world, &[]);
    assert_ne!(ran.code, Some(0));
    ran.says(&["have a key that another row has too", "k:1"]);
    assert!(!folder(&world).join("dump.rdb").exists());

    // A run goes on where it began, or not at all.
    world.sql("insert into t select i, i, 'z', now() from generate_series(3, 40000) i; analyze t");
    world.plan(
        "[[route]]\nname = \"a\"\ntable = \"alloydb:t\"\nkey = \"k:{id}\"\ntype = \"json\"\n",
    );
    killed(&world, Point::BatchInFile, 2, &["--fresh"]);
    let elsewhere = ["rebuild", "redis", "--to-rdb", "elsewhere"];
    world.run(&elsewhere).expect(2).says(&["writes other files: --to-rdb", "files --rdb-nodes 1"]);
    to_files(&world, &["--rdb-nodes", "2"]).expect(2).says(&["is unfinished"]);
    let status: Value = world.run(&["status", "--json"]).expect(0).summary();
    assert_eq!(status["run"]["command"], "rebuild redis --to-rdb");
    to_files(&world, &[]).expect(0);
    // What a file was written for can be loaded live all the same.
    world.rebuild(&[]).expect(0);
    let redis = loaded(&folder(&world).join("dump.rdb"), &[]);
    assert_eq!(held(&redis, "0"), held(&world.redis, "0"));
}
