//! The end of a drill: the scratch targets are taken down, and looked at once more.
//!
//! Invariant: nothing is called gone that was not looked for afterwards; what is kept is called kept.

use super::found::Found;
use super::phases::Clock;
use super::run::Drill;
use stages::{Error, Kind, Result};

impl Drill<'_> {
    /// Takes the scratch targets down and looks whether they are gone, unless they are to be kept or serve.
    pub(super) async fn tear_down(&self, found: &mut Found) {
        if self.options.cancel.is_cancelled() {
            found.torn_down.push(
                "the scratch targets are left as they are; the next drill empties them".to_owned(),
            );
            return;
        }
        let begun = Clock::begin("take the scratch targets down", false);
        // Whatever becomes of one, the other is taken down too.
        let done = [self.redis_taken_down().await, self.dataset_taken_down().await];
        let mut errors = Vec::new();
        for line in done {
            match line {
                Ok(line) => found.torn_down.extend(line),
                Err(error) => errors.push(error),
            }
        }
        (self.tell)(&found.clock.end(&begun, errors.is_empty()));
        if !errors.is_empty() {
            found.fail(errors);
        }
    }

    async fn redis_taken_down(&self) -> Result<Option<String>> {
        let Some(redis) = &self.targets.redis else { return Ok(None) };
        let (client, address) = (&redis.client, redis.client.address());
        if redis.is_production {
            self.patiently(|| client.remove_mark()).await?;
            return Ok(Some(format!("redis at {address} serves; only the mark was removed")));
        }
        if self.asked.keep {
            return Ok(Some(format!("redis at {address} is kept, as asked")));
        }
        self.patiently(|| client.empty_marked()).await?;
        let keys = self.patiently(|| client.size()).await?;
        if keys != 0 {
            let message = format!("redis at {address} was emptied and holds {keys} keys");
            return Err(Error::new(Kind::Config, message)
                .with_hint("see who writes to it, then empty it: FLUSHDB"));
        }
        Ok(Some(format!("redis at {address} holds 0 keys")))
    }

    async fn dataset_taken_down(&self) -> Result<Option<String>> {
        let Some(dataset) = &self.targets.dataset else { return Ok(None) };
        if self.asked.keep {
            return Ok(Some(format!("dataset {} is kept, as asked", dataset.name)));
        }
        self.patiently(|| dataset.tear_down()).await.map(Some)
    }
}
