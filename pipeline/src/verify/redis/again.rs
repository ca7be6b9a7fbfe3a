//! Looking again: keys that differed are asked for at both ends until they agree, stand still, or have had their chances.
//!
//! Invariant: between two looks at a key lies at least the time that an application may take between its two writes,
//! and at each the row is read before the key, in a state of the source that is not older than the look.

use super::candidate::{Candidate, Pile};
use super::ends::Ends;
use super::judge::{Difference, Look, Second};
use super::page::{Tally, rules_of, torn};
use super::rows::{find, keys_at_once};
use crate::rebuild::patiently;
use crate::route::RouteRun;
use stages::extract::redis_entries::{Ask, Stored, answers, questions};
use stages::{Error, Kind, Result};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Looks at a key after which it counts as moving.
const LOOKS_MAX: usize = 5;
/// Keys asked for in one exchange with Redis.
const KEYS_PER_EXCHANGE: usize = 2_000;

/// Looks again at the keys of one route.
pub(super) struct Again<'a> {
    pub(super) ends: &'a Ends,
    pub(super) route: &'a RouteRun,
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
            let mut moving = new_pile()?;
            for pile in &mut piles {
                let mut reader = pile.read()?;
                loop {
                    let candidates = reader.next(keys_at_once(self.route))?;
                    if candidates.is_empty() {
                        break;
                    }
                    let looked = patiently(self.retry_for, self.cancel, || self.look(&candidates));
                    for (candidate, second) in candidates.iter().zip(looked.await?) {
                        match second {
                            (Second::Agrees(agreement), _) => {
                                settled.agreed += 1;
                                settled.tally.agree(agreement);
                            }
                            (Second::Differs(difference), _) => found(&candidate.key, difference)?,
                            (Second::Moves, _) if look == LOOKS_MAX => {
                                found(&candidate.key, Difference::Moving)?;
                            }
                            (Second::Moves, now) => moving.push(&candidate.key, now)?,
                        }
                    }
                }
            }
            piles = vec![moving];
        }
        Ok(settled)
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

    async fn look(&self, candidates: &[Candidate]) -> Result<Vec<(Second, Look)>> {
        let keys: Vec<&[u8]> = candidates.iter().map(|candidate| &candidate.key[..]).collect();
        self.ends.release_snapshot().await;
        let rows = find(self.route, &keys, false).await?;
        let rules = rules_of(&self.route.bound, self.ask);
        let mut seconds = Vec::with_capacity(keys.len());
        stored(self.ends, self.route, self.ask, &keys, &mut |number, stored, now_ms| {
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

/// Asks Redis for keys; calls `take` once per key, in order, with the server's time in ms.
pub(super) async fn stored(
    ends: &Ends,
    route: &RouteRun,
    ask: Ask,
    keys: &[&[u8]],
    take: &mut (dyn FnMut(usize, Stored, i64) -> Result<()> + Send),
) -> Result<()> {
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
