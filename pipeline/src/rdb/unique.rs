//! Whether the files would hold a key twice: a server refuses such a file as a whole.
//!
//! Invariant: what a unique index of the source proves is not looked at again; everything else is, in bounded memory.

use crate::engine::Engine;
use crate::keys::{Buckets, Record};
use crate::ledger::FrameReader;
use crate::route::RouteRun;
use schemas::key::key_hash;
use stages::{Error, Kind, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// Fails with `Data` where two rows that were written have one key; names up to five of them.
pub(super) async fn check(engine: &Arc<Engine>) -> Result<()> {
    let engine = Arc::clone(engine);
    super::blocking(move || look(&engine)).await
}

fn look(engine: &Engine) -> Result<()> {
    let ledger = &engine.shared.ledger;
    let is_unproven =
        |route: &&Arc<RouteRun>| !route.bound.key_is_proven_unique || !route.has_own_keys;
    let routes: Vec<&Arc<RouteRun>> = engine.routes.iter().filter(is_unproven).collect();
    if routes.is_empty() {
        return Ok(());
    }
    let entries = routes.iter().map(|route| ledger.entries(route.name())).sum::<Result<u64>>()?;
    let mut buckets = Buckets::create(&ledger.scratch(), "files", entries)?;
    for route in &routes {
        for path in ledger.files(route.name())? {
            let mut reader = FrameReader::open(&path)?;
            while let Some(frame) = reader.next_frame()? {
                frame.iter().try_for_each(|(key, ..)| buckets.push(key_hash(key), key))?;
            }
        }
    }
    let (mut twice, mut examples) = (0_u64, Vec::new());
    for bucket in buckets.finish()? {
        let mut seen = HashSet::new();
        bucket.for_each(&mut |Record { hash, payload }| {
            if !seen.insert(hash) {
                twice += 1;
                if examples.len() < 5 {
                    examples.push(String::from_utf8_lossy(&payload).into_owned());
                }
            }
            Ok(())
        })?;
    }
    if twice == 0 {
        return Ok(());
    }
    let names: Vec<&str> = routes.iter().map(|route| route.name()).collect();
    let message = format!(
        "{twice} rows of {} have a key that another row has too, for example {}; a server would refuse the file",
        names.join(", "),
        examples.join(", ")
    );
    Err(Error::new(Kind::Data, message)
        .with_hint("add a column to key, or write these routes one by one with --route; no file was given its name"))
}
