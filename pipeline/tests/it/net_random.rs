//! Storms on the network, between the binary and each of its systems, while each of its runs is at work.
//!
//! Invariant: whatever the network did, what is there when a run has ended with 0 is exactly the source, each row once,
//! told by what shares nothing with the product. `REKINDLE_SEED=<seed>` blows the storm of a failed test again: the same
//! toxics in the same order, each for as long; what they hit is up to the machine. `REKINDLE_SOAK=1` makes it a minute.

use crate::cloud::{Cloud, DAY_PARTITIONED, ROUTE};
use crate::items::{self, Wire, assert_complete};
use crate::net::{Storm, assert_bound, hits, lead, led, persist, port_of, storm_time};
use crate::restore::lost;
use crate::world::Ran;
use fixtures::servers::{Proxy, RedisOptions};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::sync::Arc;

/// Rows of the BigQuery tables.
const LOGS: u32 = 20_000;

fn proxy(port: u16) -> Arc<Proxy> {
    Arc::new(Proxy::start(port).unwrap())
}

/// Whatever a short storm draws has hit something in the end; a long one has drawn several toxics.
#[track_caller]
fn assert_blown(proxies: &[Arc<Proxy>], runs: u32) {
    let hits = hits(proxies);
    let accepted: u64 = proxies.iter().map(|proxy| proxy.accepted()).sum();
    println!("{runs} runs, {accepted} connections, {:?} of storm: {hits:?}", storm_time());
    let kinds = if storm_time().as_secs() < 60 { 1 } else { 4 };
    assert!(hits.len() >= kinds, "{hits:?}");
}

/// Rows per second so that a run lasts as long as the storm, about.
fn pace(rows: u64) -> String {
    (rows / storm_time().as_secs()).to_string()
}

#[test]
fn a_rebuild_from_postgres_comes_through_a_storm() {
    let world = items::filled();
    let bound = world.run(&["plan", "--json"]).expect(0).summary()["memory_bound_bytes"].clone();
    let proxies = [proxy(world.postgres.port()), proxy(world.redis.port())];
    let storm = Storm::over(&proxies);
    let pace = pace(items::ROWS);
    let (runs, ran) = persist(|| {
        let mut command = world.command(&["rebuild", "redis", "--json", "--progress", "none"]);
        command
            .args(["--retry-for", "10s", "--max-rows-per-second", &pace])
            .env("ALLOYDB_URL", led(&world.postgres.url(), world.postgres.port(), &proxies[0]))
            .env("REDIS_URL", led(&world.redis.url(), world.redis.port(), &proxies[1]));
        command
    });
    storm.end();
    assert_complete(&world);
    assert_blown(&proxies, runs);
    assert_bound(&ran, &bound);
    println!("{} rows compared", items::ROWS);
}

/// A cloud whose plan leads through proxies to BigQuery's two ports and to Redis.
fn beclouded(routes: &str) -> (Cloud, Vec<Arc<Proxy>>) {
    let cloud = Cloud::new(RedisOptions::default(), routes);
    cloud.table(DAY_PARTITIONED);
    for from in (0..LOGS).step_by(5_000) {
        cloud.stream(1 + from / 5_000, from..from + 5_000, 200);
    }
    let ports = [
        port_of(&cloud.bigquery.rest_url()),
        port_of(&cloud.bigquery.grpc_url()),
        cloud.redis.port(),
    ];
    let proxies: Vec<_> = ports.into_iter().map(proxy).collect();
    for (port, proxy) in ports.into_iter().zip(&proxies) {
        lead(cloud.folder.path(), port, proxy);
    }
    (cloud, proxies)
}

#[test]
fn a_rebuild_from_bigquery_comes_through_a_storm() {
    let route = "[[route]]\nname = \"logs\"\ntable = \"bigquery:d.t\"\nkey = \"log:{id}\"\ntype = \"hash\"\non_collision = \"error\"\n";
    let (cloud, proxies) = beclouded(route);
    let planned = Ran::of(&cloud.command(&["plan", "--json"]).output().unwrap()).expect(0);
    let bound = planned.summary()["memory_bound_bytes"].clone();
    let storm = Storm::over(&proxies);
    let pace = pace(LOGS.into());
    let words = ["rebuild", "redis", "--json", "--progress", "none", "--retry-for", "10s"];
    let (runs, ran) = persist(|| {
        let mut command = cloud.command(&words);
        command.args(["--max-rows-per-second", &pace]);
        command
    });
    storm.end();
    let found = Wire::to(cloud.redis.port()).everything();
    let mut lines: Vec<String> = found
        .iter()
        .map(|(key, fields)| format!("{}|{}", key.trim_start_matches("log:"), fields["name"]))
        .collect();
    lines.sort();
    assert_eq!(lines.len(), LOGS as usize);
    assert!(lines == cloud.source("id, name"), "the rows differ");
    assert_blown(&proxies, runs);
    assert_bound(&ran, &bound);
}

#[test]
fn a_backup_comes_through_a_storm() {
    let (cloud, proxies) = beclouded(ROUTE);
    let words = ["backup", "bigquery", "--json", "--progress", "none", "--retry-for", "10s"];
    let backup = || {
        let mut command = cloud.command(&words);
        command.args(["--lanes", "1", "--full"]);
        command
    };
    // `plan` says no bound of a backup: what a storm makes it hold is compared with the same one in calm weather.
    let calm = Ran::of(&backup().output().unwrap()).expect(0).summary();
    let bound = json!(calm["peak_rss_bytes"].as_u64().unwrap() * 3 / 2);
    cloud.redis.cli(&["FLUSHALL"]).unwrap();
    fs::remove_dir_all(cloud.folder.path().join(".rekindle")).unwrap();
    // Each block of rows comes only after a while, so that there is something left to hit.
    cloud.fault("ReadRows", "delay_ms:150", 0, 1_000_000);
    let storm = Storm::over(&proxies);
    let mut runs = 0;
    // One backup may be over before the storm is, and the next one has to be right as well.
    for _ in 0..3 {
        let (again, ran) = persist(backup);
        runs += again;
        assert_bound(&ran, &bound);
    }
    storm.end();
    cloud.no_faults();
    cloud.assert_same("id, name, ts");
    assert_eq!(cloud.strays(), Vec::<String>::new());
    assert_blown(&proxies, runs);
    println!("{LOGS} rows compared");
}

#[test]
fn a_restore_comes_through_a_storm() {
    let (lost, days) = lost(20_000, false);
    let planned = lost.rekindle(&["plan", "--json"]).output().unwrap();
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    let bound = planned["restores"][0]["memory_bound_bytes"].clone();
    let ports =
        [port_of(&lost.bigquery.rest_url()), port_of(&lost.bigquery.grpc_url()), lost.redis.port()];
    let proxies: Vec<_> = ports.into_iter().map(proxy).collect();
    for (port, proxy) in ports.into_iter().zip(&proxies) {
        lead(lost.folder.path(), port, proxy);
    }
    for method in ["AppendRows", "FinalizeWriteStream", "ReadRows"] {
        let fault = json!({"method": method, "kind": "delay_ms:100", "times": 1_000_000});
        lost.rest("POST", "stand-in/faults", Some(fault));
    }
    let storm = Storm::over(&proxies);
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "10s"];
    let command = || -> Command { lost.rekindle(&words) };
    let (runs, ran) = persist(command);
    storm.end();
    lost.rest("DELETE", "stand-in/faults", None);
    lost.assert_restored();
    assert_blown(&proxies, runs);
    assert_bound(&ran, &bound);
    println!("{} rows compared", crate::restore::count(&days));
}
