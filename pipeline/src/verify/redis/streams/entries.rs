//! The entries of all streams of a route, read page by page, some streams at once.
//!
//! Invariant: memory is a page per lane, and the names of a bounded number of gaps. It only reads.

use super::super::ends::Ends;
use super::super::run::Run;
use super::apart::name;
use super::{Share, Sided};
use crate::rebuild::patiently;
use crate::route::RouteRun;
use futures::{StreamExt, TryStreamExt};
use stages::extract::redis_rows::{Commands, EntryId, StreamState};
use stages::extract::redis_streams::{Paging, ReadEntry, entries};
use stages::{Error, Kind, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Milliseconds since 1970 that an application gives ids by are above it, numbers of rows below.
const NUMBER_MAX: u64 = 1_000_000_000_000;
/// Gaps that are named.
const GAPS_MAX: usize = 1_000;

/// What Redis holds of a route.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) streams: u64,
    pub(super) entries: u64,
    /// Keys, and the ids that they lack; none where that is the whole stream, or not known.
    pub(super) gaps: Vec<(Vec<u8>, Option<String>)>,
}

/// Reads the streams of a route and spreads what they hold.
pub(super) async fn read(
    run: &Run,
    ends: &Ends,
    route: &RouteRun,
    share: Share,
    sided: &mut Sided,
) -> Result<Held> {
    let (retry_for, cancel) = (run.options.verify.retry_for, &run.options.verify.cancel);
    let found = patiently(retry_for, cancel, || ends.sink.numbered(&route.bound)).await?;
    let mut keys: Vec<(u64, Vec<u8>)> = found
        .streams
        .iter()
        .filter_map(|key| Some((route.bound.route.stream_number(key)?, key.to_vec())))
        .collect();
    keys.sort();
    let mut held = Held::default();
    let mut next = 0;
    for (number, _) in &keys {
        for absent in (next..*number).take(GAPS_MAX.saturating_sub(held.gaps.len())) {
            held.gaps.push((route.bound.route.stream_key(absent), None));
        }
        next = number + 1;
    }
    let (held, sided) = (Mutex::new(held), Mutex::new(sided));
    let streams = keys.iter().map(|(_, key)| async {
        let reading = Reading { run, ends, route, share, key: key.as_slice() };
        reading.stream(&held, &sided).await
    });
    let streams = futures::stream::iter(streams).buffer_unordered(run.options.verify.lanes.max(1));
    streams.try_collect::<Vec<()>>().await?;
    let mut held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
    held.gaps.sort();
    Ok(held)
}

/// One stream being read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    run: &'a Run,
    ends: &'a Ends,
    route: &'a RouteRun,
    share: Share,
    key: &'a [u8],
}

impl Reading<'_> {
    async fn stream(&self, held: &Mutex<Held>, sided: &Mutex<&mut Sided>) -> Result<()> {
        let verify = &self.run.options.verify;
        let state = || async {
            let mut reader = self.ends.reader();
            Ok(reader.streams(&[self.key.to_vec()]).await?.pop().flatten())
        };
        let state = patiently(verify.retry_for, &verify.cancel, state).await?;
        let mut own = Held { streams: 1, ..Held::default() };
        if let Some(state) = state {
            if self.share.of == 0 {
                own.entries = state.entries;
                if may_lack(&state) {
                    own.gaps.push((self.key.to_vec(), None));
                }
            } else {
                self.entries(&state, &mut own, sided).await?;
            }
        }
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.streams += own.streams;
        held.entries += own.entries;
        let room = GAPS_MAX.saturating_sub(held.gaps.len());
        held.gaps.extend(own.gaps.into_iter().take(room));
        Ok(())
    }

    async fn entries(
        &self,
        state: &StreamState,
        own: &mut Held,
        sided: &Mutex<&mut Sided>,
    ) -> Result<()> {
        let verify = &self.run.options.verify;
        let mut reader = self.ends.reader();
        let mut paging = Paging::default();
        let mut from = EntryId::MIN;
        let mut next = 1;
        loop {
            if verify.cancel.is_cancelled() {
                return Err(Error::new(Kind::Cancelled, "the command was asked to stop"));
            }
            let mut commands = Commands::default();
            commands.range(self.key, from, EntryId::MAX, paging.entries());
            let bytes = loop {
                // The reader connects anew by itself; how long is for `patiently` to know.
                match reader.ask(&commands).await {
                    Ok(bytes) => break bytes,
                    Err(error) if error.kind().is_transient() => {
                        let again = || self.ends.sink.state();
                        patiently(verify.retry_for, &verify.cancel, again).await?;
                    }
                    Err(error) => return Err(error),
                }
            };
            let weight = bytes.len() as u64;
            let bound = Arc::clone(&self.route.bound);
            let page = self.run.cpu.submit(move || entries(&bound, &bytes)).await?;
            let count = page.len() as u64;
            for ReadEntry { id, hash } in &page {
                own.note_gap(self.key, &mut next, *id);
                if self.share.has(*hash) {
                    let mut sided = sided.lock().unwrap_or_else(PoisonError::into_inner);
                    sided.push_entry(*hash, &name(self.key, &id.to_string()))?;
                }
            }
            own.entries += count;
            let last = page.last().and_then(|entry| entry.id.after());
            let Some(after) = last.filter(|_| count == paging.entries()) else { break };
            from = after;
            paging.learn(count, weight);
        }
        // What is gone from the end is told by the last id alone.
        if may_lack(state) && state.last.ms >= next {
            own.gap(self.key, next, state.last.ms);
        }
        Ok(())
    }
}

/// Whether fewer entries are there than the last id tells.
fn may_lack(state: &StreamState) -> bool {
    state.last.seq == 0 && state.last.ms > state.entries && state.last.ms <= NUMBER_MAX
}

impl Held {
    /// Notes the numbers that were passed over; an id that no rebuild makes passes over nothing.
    fn note_gap(&mut self, key: &[u8], next: &mut u64, id: EntryId) {
        if id.seq != 0 || id.ms < *next || id.ms > NUMBER_MAX {
            return;
        }
        if id.ms > *next {
            self.gap(key, *next, id.ms - 1);
        }
        *next = id.ms.saturating_add(1);
    }

    fn gap(&mut self, key: &[u8], from: u64, to: u64) {
        if self.gaps.len() < GAPS_MAX {
            let ids = if from == to { format!("{from}-0") } else { format!("{from}-0 to {to}-0") };
            self.gaps.push((key.to_vec(), Some(ids)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_passed_over_are_gaps() {
        let mut held = Held::default();
        let mut next = 1;
        for ms in [1, 2, 4, 5, 9] {
            held.note_gap(b"s", &mut next, EntryId { ms, seq: 0 });
        }
        held.note_gap(b"s", &mut next, EntryId { ms: 1_700_000_000_000, seq: 3 });
        let ids: Vec<_> = held.gaps.iter().map(|(_, ids)| ids.as_deref().unwrap()).collect();
        assert_eq!(ids, ["3-0", "6-0 to 8-0"]);
        assert_eq!(next, 10);
    }
}
