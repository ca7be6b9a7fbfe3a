//! The end of a drill: the scratch targets are taken down, and looked at once more.
//!
//! Invariant: nothing is called gone that was not looked for afterwards; what is kept is called kept.

use super::found::Found;
use super::phases::Clock;
use super::run::Drill;
use stages::{Error, Kind};

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
        let done = self.taken_down(found).await;
        let line = found.clock.end(&begun, done.is_ok());
        (self.tell)(&line);
        if let Err(error) = done {
            found.fail(vec![error]);
        }
    }

    async fn taken_down(&self, found: &mut Found) -> stages::Result<()> {
        if let Some(redis) = &self.targets.redis {
            let (client, address) = (&redis.client, redis.client.address());
            if redis.is_production {
                self.patiently(|| client.remove_mark()).await?;
                found.torn_down.push(format!("redis at {address} serves; only the mark was removed"));
            } else if self.asked.keep {
                found.torn_down.push(format!("redis at {address} is kept, as asked"));
            } else {
                self.patiently(|| client.empty_marked()).await?;
                let keys = client.size().await?;
                if keys != 0 {
                    let message = format!("redis at {address} was emptied and holds {keys} keys");
                    return Err(Error::new(Kind::Config, message)
                        .with_hint("see who writes to it, then empty it: FLUSHDB"));
                }
                found.torn_down.push(format!("redis at {address} holds 0 keys"));
            }
        }
        if let Some(dataset) = &self.targets.dataset {
            let line = if self.asked.keep {
                format!("dataset {} is kept, as asked", dataset.name)
            } else {
                self.patiently(|| dataset.tear_down()).await?
            };
            found.torn_down.push(line);
        }
        Ok(())
    }
}
