//! Both ways to write hashes: they leave the same, whoever chooses.
//!
//! Invariant: what a way left is told by Redis itself (values, encodings, expiry), never by the product.

use crate::carried::{hash, of_route, pairs, route};
use crate::items::{assert_complete, calls, filled};
use crate::world::World;
use fixtures::servers::{PostgresOptions, Redis, RedisOptions};

/// Rows whose hashes reach every kind of payload: small, longer than a listpack value, more fields than a
/// listpack holds, integers of every width, emptiness, an expiry.
fn world_of_widths() -> World {
    let args = ["--hash-max-listpack-entries", "100"].map(str::to_owned).to_vec();
    let redis = RedisOptions { args, ..RedisOptions::default() };
    let world = World::with(PostgresOptions::default(), redis);
    let wide: Vec<String> =
        (0..140).map(|field| format!("c{field} text default '{field}'")).collect();
    world.sql(&format!(
        "create table small (id bigint primary key, a text, n bigint, at timestamptz); \
         insert into small select i, repeat('ż', i), (-7) ^ i, \
             case when i % 2 = 0 then timestamptz '2090-01-01Z' end from generate_series(0, 22) i; \
         insert into small values (100, repeat('x', 64), 127, null), (101, repeat('x', 65), 128, null), \
             (102, repeat('x', 5000), -4097, null), (103, '', 9223372036854775807, null), \
             (104, '007', -9223372036854775808, null), (105, '12', 0, '2020-01-01Z'); \
         create table wide (id bigint primary key, {}); insert into wide (id) values (1), (2)",
        wide.join(", ")
    ));
    let expires = "expire_at = \"at\"\ncolumns = [\"a\", \"n\"]";
    world.plan(&[route("small", "hash", expires), route("wide", "hash", "")].concat());
    world
}

/// Encoding, expiry and fields of every key.
fn everything(world: &World) -> Vec<String> {
    let script = "local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do \
        local f = redis.call('HGETALL', k) local p = {} \
        for i = 1, #f, 2 do p[#p + 1] = f[i] .. '=' .. f[i + 1] end table.sort(p) \
        r[#r + 1] = k .. ' ' .. redis.call('OBJECT', 'ENCODING', k) .. ' ' .. \
            redis.call('PEXPIRETIME', k) .. ' ' .. table.concat(p, ' ') end table.sort(r) return r";
    serde_json::from_str(&world.redis(&["--json", "EVAL", script, "0"])).unwrap()
}

#[test]
fn both_ways_leave_the_same_values_encodings_and_expiries() {
    let mut world = world_of_widths();
    let mut left = Vec::new();
    for way in ["command", "restore"] {
        // GIVEN stale fields, an old expiry and a key of another type
        world.redis(&["FLUSHALL"]);
        world.redis(&["HSET", "small-hash:1", "stale", "1", "a", "old"]);
        world.redis(&["EXPIRE", "small-hash:1", "1000"]);
        world.redis(&["RPUSH", "small-hash:2", "x"]);
        // WHEN the tables are rebuilt in one way
        world.way = way;
        let restored = calls(&world, "restore");
        let summary = world.rebuild(&[]).expect(0).summary();
        // THEN that way was taken
        let told = summary["way"].as_str().unwrap();
        assert!(told.starts_with(if way == "restore" { "RESTORE" } else { "HSET" }), "{told}");
        assert_eq!(calls(&world, "restore") > restored, way == "restore");
        assert_eq!(of_route(&summary, "small-hash")["expired"], 1);
        left.push(everything(&world));
    }
    // AND leaves what the other leaves.
    assert_eq!(left[0], left[1]);
    let encodings = |of: &str| left[0].iter().filter(|line| line.contains(of)).count();
    assert_eq!((encodings(" listpack "), encodings(" hashtable ")), (26, 4), "{:#?}", left[0]);
}

#[test]
fn a_key_that_exists_is_kept_by_restore_too() {
    let world = World { way: "restore", ..world_of_widths() };
    let keep = "on_conflict = \"keep\"\ncolumns = [\"a\", \"n\"]";
    world.plan(&route("small", "hash", keep));
    world.redis(&["HSET", "small-hash:2", "mine", "1"]);
    world.redis(&["SET", "small-hash:3", "of another type"]);
    let summary = world.rebuild(&[]).expect(0).summary();
    let counts = of_route(&summary, "small-hash");
    assert_eq!((&counts["kept"], &counts["written"]), (&2.into(), &27.into()));
    assert_eq!(hash(&world, "small-hash:2"), pairs(&[("mine", "1")]));
    assert_eq!(world.redis(&["GET", "small-hash:3"]), "of another type");
    assert_eq!(
        hash(&world, "small-hash:104"),
        pairs(&[("a", "007"), ("n", "-9223372036854775808")])
    );
}

#[test]
fn a_server_that_refuses_restore_gets_commands_and_nothing_of_the_trial_stays() {
    let mut world = filled();
    // GIVEN a user who may not run RESTORE
    world.redis(&["ACL", "SETUSER", "default", "-restore"]);
    for way in ["auto", "restore"] {
        world.way = way;
        // WHEN it is tried out THEN commands do the work, and the summary says why.
        let summary = world.rebuild(&[]).expect(0).summary();
        let told = summary["way"].as_str().unwrap();
        assert!(told.starts_with("HSET: the server refuses RESTORE: NOPERM"), "{told}");
        assert_complete(&world);
    }
}

#[test]
fn the_faster_way_is_found_by_a_trial_that_leaves_nothing() {
    let world = filled();
    let summary = world.rebuild(&[]).expect(0).summary();
    let told = summary["way"].as_str().unwrap();
    assert!(told.contains("in a trial") && told.contains(" times as fast"), "{told}");
    // Both ways were tried, rows and edges, and every trial key is gone again.
    assert!(calls(&world, "hset") >= 5 * 1024 && calls(&world, "restore") >= 5 * 1024 + 3);
    assert_complete(&world);

    // GIVEN a server without the command, as managed ones may be
    let args = ["--rename-command", "RESTORE", ""].map(str::to_owned).to_vec();
    let world = World {
        redis: Redis::start(RedisOptions { args, ..RedisOptions::default() }).unwrap(),
        ..world
    };
    let summary = world.rebuild(&[]).expect(0).summary();
    let told = summary["way"].as_str().unwrap();
    assert!(told.starts_with("HSET: the server refuses RESTORE: ERR unknown command"), "{told}");
    assert_complete(&world);
}

/// A number that `INFO stats` tells.
fn stat(world: &World, name: &str) -> u64 {
    let stats = world.redis(&["INFO", "stats"]);
    let told = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    told.unwrap_or_else(|| panic!("no {name} in {stats}")).trim().parse().unwrap()
}

#[test]
fn redis_is_made_to_read_more_at_a_time_than_its_buffer_holds_at_first() {
    let mut world = filled();
    for way in ["command", "restore"] {
        world.redis(&["FLUSHALL"]);
        world.redis(&["CONFIG", "RESETSTAT"]);
        world.way = way;
        world.rebuild(&["--fresh"]).expect(0);
        assert_complete(&world);
        let (bytes, reads) =
            (stat(&world, "total_net_input_bytes"), stat(&world, "total_reads_processed"));
        // A buffer that was never widened is one of 20 KiB (PROTO_IOBUF_LEN and what the allocator gives with it).
        assert!(bytes / reads > 24 * 1024, "{way}: {bytes} bytes in {reads} reads");
    }
}

#[test]
fn a_server_that_refuses_ping_is_filled_all_the_same() {
    let world = filled();
    world.redis(&["ACL", "SETUSER", "default", "-ping"]);
    world.rebuild(&[]).expect(0);
    assert_complete(&world);
}
