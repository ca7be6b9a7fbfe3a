//! Looking again: keys that differed are asked for at both ends until they agree, stand still, or have had their chances.
//!
//! Invariant: between two looks at a key lies at least the time that an application may take between its two writes,
//! and at each the row is read before the key, in a state of the source that is not older than the look.

use super::candidate::{Candidate, Pile};
use super::ends::Ends;
use super::judge::{Difference, Look, Second};
use super::page::{Compared, Page, Tally, rules_of, torn};
use super::rows::{find, keys_at_once};
use crate::cpu::CpuPool;
use crate::rebuild::patiently;
use crate::route::RouteRun;
use schemas::{Plan, Route};
use stages::extract::redis_entries::{Ask, Stored, answers, questions};
use stages::{Error, Kind, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Looks at a key after which it counts as moving.
const LOOKS_MAX: usize = 5;
/// Keys asked for in one exchange with Redis.
const KEYS_PER_EXCHANGE: usize = 2_000;

/// Looks again at the keys of one route.
pub(super) struct Again<'a> {
    pub(super) ends: &'a Ends,
    pub(super) cpu: &'a CpuPool,
    pub(super) route: &'a RouteRun,
    pub(super) plan: &'a Plan,
    pub(super) chosen: &'a [Route],
    pub(super) lanes: usize,
    /// Where rows are sorted.
    pub(super) folder: PathBuf,
    /// Whether the source is read at one time for as long as a connection to it lives.
    pub(super) is_pinned: bool,
    pub(super) ask: Ask,
    pub(super) settle: Duration,
    pub(super) retry_for: Duration,
    pub(super) cancel: &'a CancellationToken,
}

/// What the later looks came to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Keys that agree after all.
    pub(super) agreed: u64,
    /// In which way they do.
    pub(super) tally: Tally,
}

impl Settled {
    /// Counts what agrees, hands on what differs, and keeps what moves for another look, if there is one.
    fn sort(
        &mut self,
        candidates: &[Candidate],
        looked: Vec<(Second, Look)>,
        mut moving: Option<&mut Pile>,
        found: &mut (dyn FnMut(&[u8], Difference) -> Result<()> + Send),
    ) -> Result<()> {
        for (Candidate { key, .. }, (second, now)) in candidates.iter().zip(looked) {
            match (second, &mut moving) {
                (Second::Agrees(agreement), _) => {
                    self.agreed += 1;
                    self.tally.agree(agreement);
                }
                (Second::Differs(difference), _) => found(key, difference)?,
                (Second::Moves, Some(moving)) => moving.push(key, now)?,
                (Second::Moves, None) => found(key, Difference::Moving)?,
            }
        }
        Ok(())
    }
}

impl Again<'_> {
    /// Looks at all keys of some piles; hands every key that differs for good to `found`. `new_pile` makes room for
    /// keys that have to be looked at once more.
    pub(super) async fn settle(
        &self,
        piles: Vec<Pile>,
        mut new_pile: impl FnMut() -> Result<Pile>,
        found: &mut (dyn FnMut(&[u8], Difference) -> Result<()> + Send),
    ) -> Result<Settled> {
        let mut settled = Settled::default();
        let mut piles = piles;
        for look in 1..=LOOKS_MAX {
            if piles.iter().all(|pile| pile.len() == 0) {
                return Ok(settled);
            }
            self.rest().await?;
            let renewed = self.renewed().await?;
            let route = renewed.as_ref().map_or(self.route, |ends| &*ends.routes[self.route.index]);
            let mut moving = new_pile()?;
            for pile in &mut piles {
                let mut reader = pile.read()?;
                while let Some(candidates) = reader.some(keys_at_once(route))? {
                    let look_now = || self.look(route, &candidates);
                    let looked = patiently(self.retry_for, self.cancel, look_now).await?;
                    let moving = (look < LOOKS_MAX).then_some(&mut moving);
                    settled.sort(&candidates, looked, moving, found)?;
                }
            }
            piles = vec![moving];
            if let Some(ends) = renewed {
                ends.routes[self.route.index].source.discard().await?;
            }
        }
        Ok(settled)
    }

    /// Connects anew where only that reads a later state; a query is then written once more.
    async fn renewed(&self) -> Result<Option<Ends>> {
        if !self.is_pinned {
            return Ok(None);
        }
        let connect = || async {
            let connected = Ends::connect(self.plan, self.chosen, self.lanes, &self.folder).await;
            connected.map_err(|mut errors| errors.remove(0))
        };
        let ends = patiently(self.retry_for, self.cancel, connect).await?;
        let name = format!("again{}", uuid::Uuid::new_v4().simple());
        ends.routes[self.route.index].source.prepare(&name).await?;
        Ok(Some(ends))
    }

    /// Gives whoever writes to both ends the time to have done so.
    async fn rest(&self) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(self.settle) => Ok(()),
            () = self.cancel.cancelled() => {
                Err(Error::new(Kind::Cancelled, "the command was asked to stop"))
            }
        }
    }

    async fn look(
        &self,
        route: &RouteRun,
        candidates: &[Candidate],
    ) -> Result<Vec<(Second, Look)>> {
        let keys: Vec<&[u8]> = candidates.iter().map(|candidate| &candidate.key[..]).collect();
        self.ends.release_snapshot().await;
        let rows = find(self.cpu, route, &keys, false).await?;
        let rules = rules_of(&route.bound, self.ask);
        let mut seconds = Vec::with_capacity(keys.len());
        stored(self.ends, route, self.ask, &keys, &mut |number, stored, now_ms| {
            let candidate = &candidates[number];
            let expected = rows.expected.get(&candidate.key).copied();
            let second = rules.judge(candidate.look, expected, stored, now_ms);
            seconds.push((second, Look { expected, stored: Some(stored) }));
            Ok(())
        })
        .await?;
        Ok(seconds)
    }
}

/// Asks Redis for the keys of a page, in exchanges of bounded size, and compares them.
pub(super) async fn compare(
    ends: &Ends,
    route: &RouteRun,
    ask: Ask,
    page: &Page,
) -> Result<Compared> {
    let keys: Vec<&[u8]> = page.iter().map(|(key, _)| key).collect();
    let mut found = Vec::with_capacity(keys.len());
    stored(ends, route, ask, &keys, &mut |_, stored, now_ms| {
        found.push((stored, now_ms));
        Ok(())
    })
    .await?;
    page.compare_stored(&route.bound, ask, &found)
}

/// Asks Redis for keys; calls `take` once per key, in order, with the server's time in ms.
pub(crate) async fn stored(
    ends: &Ends,
    route: &RouteRun,
    ask: Ask,
    keys: &[&[u8]],
    take: &mut (dyn FnMut(usize, Stored, i64) -> Result<()> + Send),
) -> Result<()> {
    if route.bound.is_many() && ask == Ask::Value {
        let found = ends.sink.stored(&route.bound, keys).await?;
        if found.len() != keys.len() {
            return Err(torn());
        }
        let mut found = found.into_iter().enumerate();
        return found.try_for_each(|(number, (stored, now_ms))| take(number, stored, now_ms));
    }
    let mut reader = ends.reader();
    for (exchange, slice) in keys.chunks(KEYS_PER_EXCHANGE).enumerate() {
        let commands = questions(&route.bound, ask, slice.iter().copied())?;
        let bytes = reader.ask(&commands).await?;
        let mut answered = 0;
        answers(&route.bound, ask, &bytes, |number, stored, now_ms| {
            answered += 1;
            take(exchange * KEYS_PER_EXCHANGE + number, stored, now_ms)
        })?;
        if answered != slice.len() {
            return Err(torn());
        }
    }
    Ok(())
}
