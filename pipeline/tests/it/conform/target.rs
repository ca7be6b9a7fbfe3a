//! The promises of `Sink` about the target itself: whose it is, how full it is, and what its failures are called.
//!
//! Invariant: a mark is only ever changed or removed by the run it names.

use super::sinks::server;
use super::targets::{SINKS, encoded, fill};
use crate::systems::Systems;
use bytes::Bytes;
use stages::load::{Limit, Sampled, Sentinel, Sink};
use stages::{Encoded, Kind};

#[test]
fn a_target_says_whose_it_is_and_why_it_fails() {
    let mut systems = Systems::new(server());
    let tokio = systems.cloud.tokio.handle().clone();
    let _inside = tokio.enter();
    fill(&systems);
    let line = &SINKS[0];
    let wired = tokio.block_on(systems.wire(&line.text(), line.way, 2));
    let batches = tokio.block_on(encoded(line, &wired, 1));
    tokio.block_on(marks_belong_to_their_run(&*wired.sink));
    tokio.block_on(figures_are_those_of_the_server(&systems, &*wired.sink));
    tokio.block_on(async {
        assert_eq!(wired.sink.claim("run-1", "").await.unwrap(), Sentinel::Ours);
        refusals_have_their_kind(&systems, &*wired.sink, &batches[0]).await;
        another_target_is_noticed(&systems, &*wired.sink, &batches[0]).await;
    });
    systems.cloud.redis.kill().unwrap();
    let error = tokio.block_on(wired.sink.write(0, &batches[0])).unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "{error}");
    assert_eq!(tokio.block_on(wired.sink.state()).unwrap_err().kind(), Kind::Connection);
}

async fn marks_belong_to_their_run(sink: &dyn Sink) {
    assert_eq!(sink.sentinel("run-1").await.unwrap(), Sentinel::Missing);
    assert_eq!(sink.claim("run-1", "first").await.unwrap(), Sentinel::Ours);
    assert_eq!(sink.claim("run-1", "again").await.unwrap(), Sentinel::Ours);
    let foreign = Sentinel::Foreign("run-1 first".into());
    for other in ["run-2", "run", "run-1 first", ""] {
        assert_eq!(sink.sentinel(other).await.unwrap(), foreign, "{other:?}");
        assert_eq!(sink.claim(other, "mine").await.unwrap(), foreign, "{other:?}");
        sink.annotate(other, "mine").await.unwrap();
        sink.release(other).await.unwrap();
        assert_eq!(sink.sentinel("run-2").await.unwrap(), foreign, "after {other:?}");
    }
    sink.annotate("run-1", "second").await.unwrap();
    assert_eq!(sink.sentinel("run-2").await.unwrap(), Sentinel::Foreign("run-1 second".into()));
    sink.release("run-1").await.unwrap();
    assert_eq!(sink.sentinel("run-1").await.unwrap(), Sentinel::Missing);
    sink.annotate("run-1", "third").await.unwrap();
    assert_eq!(sink.sentinel("run-1").await.unwrap(), Sentinel::Missing, "nothing to annotate");
}

async fn figures_are_those_of_the_server(systems: &Systems, sink: &dyn Sink) {
    let redis = &systems.cloud.redis;
    redis.cli(&["set", "of others", "1"]).unwrap();
    let state = sink.state().await.unwrap();
    assert_eq!((state.entries, state.evicted, state.limit_bytes), (1, 0, None));
    assert_eq!((state.eviction.as_str(), state.refusal), ("noeviction", None));
    assert!(state.used_bytes > 0 && state.version.starts_with("redis "), "{}", state.version);
    let again = sink.state().await.unwrap();
    assert_eq!((&again.process_id, &again.history_id), (&state.process_id, &state.history_id));
    redis.cli(&["config", "set", "maxmemory", "300mb"]).unwrap();
    let pressure = sink.pressure().await.unwrap();
    assert_eq!((pressure.limit, pressure.entries), (Some(Limit::Own(300 << 20)), 1));
    assert_eq!((pressure.process_id, pressure.replica_lag_bytes), (state.process_id, None));
    redis.cli(&["config", "set", "maxmemory", "0"]).unwrap();
    sink.ping().await.unwrap();
    assert!(sink.json_module().await.unwrap().is_some() && sink.way_note().is_some());
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let sample = |key: &str, value: &str| Sampled { commands: vec![words(&["SET", key, value])] };
    let samples = [sample("of others", "1"), sample("large", &"x".repeat(100_000))];
    let measured = sink.measure(&samples).await.unwrap();
    assert_eq!(measured.len(), 2);
    assert!(measured[0].replaced_bytes > Some(0) && measured[1].replaced_bytes == Some(0));
    assert!(measured[1].bytes > Some(100_000) && measured[0].bytes < Some(1_000), "{measured:?}");
    assert_eq!(sink.state().await.unwrap().entries, 1, "samples are removed again");
    assert_eq!(sink.remove(&[Bytes::from_static(b"of others")]).await.unwrap(), 1);
}

/// What the server refuses is called by what it means, and the sink works again afterwards.
async fn refusals_have_their_kind(systems: &Systems, sink: &dyn Sink, batch: &Encoded) {
    let ask = |words: &[&str]| systems.cloud.redis.cli(words).unwrap();
    let kind = async || sink.write(0, batch).await.unwrap_err().kind();
    ask(&["config", "set", "maxmemory", "1mb"]);
    assert_eq!(kind().await, Kind::Capacity);
    ask(&["config", "set", "maxmemory", "0"]);
    ask(&["replicaof", "127.0.0.1", "1"]);
    assert_eq!(kind().await, Kind::Unavailable, "a replica");
    ask(&["replicaof", "no", "one"]);
    // The history of a replica that was made a primary is another one; the run claims it anew.
    assert_eq!(sink.claim("run-1", "").await.unwrap(), Sentinel::Ours);
    ask(&["acl", "setuser", "default", "-hset"]);
    assert_eq!(kind().await, Kind::Auth);
    ask(&["acl", "setuser", "default", "+hset"]);
    assert_eq!(sink.write(0, batch).await.unwrap().written, batch.carried);
}

/// A target that lost its mark, or carries another one, is not written to any more once its connections broke.
async fn another_target_is_noticed(systems: &Systems, sink: &dyn Sink, batch: &Encoded) {
    let ask = |words: &[&str]| systems.cloud.redis.cli(words).unwrap();
    let break_off = async || {
        ask(&["client", "kill", "type", "normal"]);
        // The first write may meet the broken connection, the next one makes another.
        loop {
            match sink.write(0, batch).await {
                Err(error) if error.kind() == Kind::Connection => {}
                outcome => return outcome.map(drop).map_err(|error| error.kind()),
            }
        }
    };
    assert_eq!(break_off().await, Ok(()));
    assert!(!sink.has_changed());
    ask(&["debug", "change-repl-id"]);
    assert_eq!(break_off().await, Ok(()));
    assert!(sink.has_changed(), "another history with the same mark");
    ask(&["set", "rekindle:run", "run-9 elsewhere"]);
    assert_eq!(break_off().await, Err(Kind::Fenced));
    ask(&["flushall"]);
    assert_eq!(break_off().await, Err(Kind::TargetChanged));
    assert_eq!(ask(&["dbsize"]), "0", "nothing was written to it");
}
