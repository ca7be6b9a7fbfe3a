//! Repair: writes again what a dry run has shown, key by key, each looked at twice more right before.
//!
//! Invariant: a key is written or removed only if the dry run of the same command named it, it still differs, and
//! neither end has moved between two looks; an unexplained key only if it was asked for by name as well.

use super::again::stored;
use super::candidate::Pile;
use super::ends::{Ends, marked};
use super::findings::{Finding, Reader};
use super::judge::{Difference, Expected, Look, Second};
use super::many::rewrite;
use super::page::rules_of;
use super::rows::{Found, encode, find, keys_at_once};
use crate::cli::figures::things;
use crate::cpu::CpuPool;
use crate::live::compares_versions;
use crate::rebuild::patiently;
use crate::route::RouteRun;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use stages::extract::redis_entries::Ask;
use stages::load::{Sentinel, Versioned, Written};
use stages::{Error, Kind, Result};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Writes on their way at once.
const WRITES: usize = 32;

/// What a repair did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Repaired {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Keys that were to be written.
    pub to_write: u64,
    /// Unexplained keys that were to be removed.
    pub to_remove: u64,
    /// Unexplained keys that nobody named.
    pub left: u64,
    /// Keys written.
    pub written: u64,
    /// Keys removed: unexplained ones, and those whose row has expired.
    pub removed: u64,
    /// Keys that agreed by now.
    pub settled: u64,
    /// Keys that were being changed, and were left alone.
    pub moving: u64,
}

impl Repaired {
    /// Counts what a finding asks for; returns whether the key is touched at all.
    pub(super) fn ask(&mut self, finding: &Finding, named: &[String]) -> bool {
        match finding.difference {
            Difference::Missing | Difference::Value | Difference::Expiry => {
                self.to_write += 1;
                true
            }
            Difference::Unexplained if is_named(&finding.key, named) => {
                self.to_remove += 1;
                true
            }
            Difference::Unexplained => {
                self.left += 1;
                false
            }
            // It may hold something newer, and the write would leave it alone.
            Difference::Unreadable | Difference::Moving => false,
        }
    }

    /// Says it for people.
    pub(super) fn told(&self) -> String {
        let left = match self.left {
            0 => String::new(),
            left => format!(
                "; left alone: {} that --remove-unexplained does not name",
                things(left, "unexplained key")
            ),
        };
        if self.dry_run {
            let (write, remove) = (things(self.to_write, "key"), things(self.to_remove, "key"));
            return format!("--repair would write {write} and remove {remove}{left}");
        }
        let mut text = format!(
            "repaired: {} written, {} removed",
            things(self.written, "key"),
            things(self.removed, "key")
        );
        for (number, what) in
            [(self.settled, "agreed by then"), (self.moving, "left alone, being changed")]
        {
            if number > 0 {
                text = format!("{text}, {} {what}", things(number, "key"));
            }
        }
        text + &left
    }
}

/// Whether a key is one of the names, or begins with one that ends in `*`.
pub(super) fn is_named(key: &str, named: &[String]) -> bool {
    named.iter().any(|name| match name.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == name,
    })
}

/// What a repair needs.
pub(super) struct Repairer<'a> {
    pub(super) ends: &'a Ends,
    pub(super) cpu: &'a CpuPool,
    pub(super) run_id: &'a str,
    pub(super) named: &'a [String],
    pub(super) folder: &'a Path,
    pub(super) settle: Duration,
    pub(super) retry_for: Duration,
    pub(super) cancel: &'a CancellationToken,
}

impl Repairer<'_> {
    /// Repairs everything that a file of findings names, under a mark of its own.
    pub(super) async fn repair(&self, findings: &Path) -> Result<Repaired> {
        let sink = &self.ends.sink;
        let note = format!("verify pid={}", std::process::id());
        if let Sentinel::Foreign(note) = sink.claim(self.run_id, &note).await? {
            return Err(marked(sink.address(), &note));
        }
        let repaired = self.all(findings).await;
        let released = sink.release(self.run_id).await;
        let repaired = repaired?;
        released?;
        Ok(repaired)
    }

    async fn all(&self, findings: &Path) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        let mut reader = Reader::open(findings)?;
        let mut piles = Vec::new();
        while let Some(name) = reader.next_route()? {
            let route = self.route(&name)?;
            let findings = reader.next(keys_at_once(route))?;
            let keys: Vec<Vec<u8>> = findings
                .iter()
                .filter(|finding| repaired.ask(finding, self.named))
                .filter_map(Finding::key_bytes)
                .collect();
            let looked = patiently(self.retry_for, self.cancel, || self.first_look(route, &keys));
            let name = format!("repair.{}", piles.len());
            let mut pile = Pile::new(self.folder, &name)?;
            for (key, look) in keys.iter().zip(looked.await?) {
                pile.push(key, look)?;
            }
            piles.push((route, pile));
        }
        tokio::select! {
            () = tokio::time::sleep(self.settle) => {}
            () = self.cancel.cancelled() => return Err(cancelled()),
        }
        for (route, pile) in &mut piles {
            let mut reader = pile.read()?;
            while let Some(candidates) = reader.some(keys_at_once(route))? {
                let looks: Vec<(Vec<u8>, Look)> = candidates
                    .into_iter()
                    .map(|candidate| (candidate.key, candidate.look))
                    .collect();
                let write = || self.write(route, &looks);
                let done = patiently(self.retry_for, self.cancel, write).await?;
                repaired.written += done.written;
                repaired.removed += done.removed;
                repaired.settled += done.settled;
                repaired.moving += done.moving;
            }
        }
        Ok(repaired)
    }

    fn route(&self, name: &str) -> Result<&RouteRun> {
        let found = self.ends.routes.iter().find(|route| route.name() == name);
        found.map(|route| &**route).ok_or_else(|| {
            Error::new(Kind::Internal, format!("route {name} of the findings is not looked at"))
        })
    }

    async fn first_look(&self, route: &RouteRun, keys: &[Vec<u8>]) -> Result<Vec<Look>> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        self.ends.release_snapshot().await;
        let rows = find(self.cpu, route, &keys, false).await?;
        let mut looks = Vec::with_capacity(keys.len());
        stored(self.ends, route, Ask::Value, &keys, &mut |number, stored, _| {
            let expected = rows.expected.get(keys[number]).copied();
            looks.push(Look { expected, stored: Some(stored) });
            Ok(())
        })
        .await?;
        Ok(looks)
    }

    /// Looks at keys once more and writes at once what still differs in the same way.
    async fn write(&self, route: &RouteRun, looks: &[(Vec<u8>, Look)]) -> Result<Repaired> {
        let mut done = Repaired::default();
        let keys: Vec<&[u8]> = looks.iter().map(|(key, _)| &key[..]).collect();
        self.ends.release_snapshot().await;
        let is_many = route.bound.is_many();
        let rows = find(self.cpu, route, &keys, !is_many).await?;
        let rules = rules_of(&route.bound, Ask::Value);
        let (mut to_write, mut to_remove, mut over) = (Vec::new(), Vec::new(), Vec::new());
        stored(self.ends, route, Ask::Value, &keys, &mut |number, stored, now_ms| {
            let (key, first) = &looks[number];
            let expected = rows.expected.get(key).copied();
            match rules.judge(*first, expected, stored, now_ms) {
                Second::Agrees(_) => done.settled += 1,
                // It turned unreadable since the dry run: somebody else wrote it.
                Second::Moves | Second::Differs(Difference::Unreadable) => done.moving += 1,
                Second::Differs(Difference::Unexplained) => {
                    // A row that is gone since the dry run explains nothing; only a name removes a key.
                    if is_named(&String::from_utf8_lossy(key), self.named) {
                        to_remove.push(Bytes::copy_from_slice(key));
                    } else {
                        done.moving += 1;
                    }
                }
                Second::Differs(_) => {
                    let is_over = |row: &Expected| row.expires_ms != 0 && row.expires_ms <= now_ms;
                    match expected.filter(is_over) {
                        Some(row) => over.push((Bytes::copy_from_slice(key), row)),
                        None => to_write.push(&key[..]),
                    }
                }
            }
            Ok(())
        })
        .await?;
        let written = if is_many {
            rewrite(self.ends, self.cpu, route, &to_write).await?
        } else {
            self.write_rows(route, &rows, &to_write).await?
        };
        done.written = written.written;
        // A key that the style of the route leaves alone holds what an application wrote since the look.
        done.moving += written.kept;
        let removed = self.remove_expired(route, over, &mut to_remove).await?;
        done.removed = removed + self.ends.sink.remove(&to_remove).await?;
        Ok(done)
    }

    /// Removes keys whose rows have expired, where versions are compared unless they hold something newer; the others
    /// are put among the keys to remove.
    async fn remove_expired(
        &self,
        route: &RouteRun,
        over: Vec<(Bytes, Expected)>,
        to_remove: &mut Vec<Bytes>,
    ) -> Result<u64> {
        if !compares_versions(route) {
            to_remove.extend(over.into_iter().map(|(key, _)| key));
            return Ok(0);
        }
        let entry = |(key, row): (Bytes, Expected)| {
            let Expected { hash: value_hash, expires_ms, version } = row;
            Versioned { key, value_hash, expires_ms, version }
        };
        let entries: Vec<Versioned> = over.into_iter().map(entry).collect();
        Ok(self.ends.sink.remove_unless_newer(&route.bound, &entries).await?.len() as u64)
    }

    async fn write_rows(&self, route: &RouteRun, rows: &Found, keys: &[&[u8]]) -> Result<Written> {
        let writes = keys.iter().filter_map(|key| rows.raw.get(*key)).map(|row| async move {
            let encoded = encode(route, row)?;
            self.ends.sink.write(0, &encoded).await
        });
        let add = |sum: Written, one: Written| async move {
            Ok(Written {
                written: sum.written + one.written,
                kept: sum.kept + one.kept,
                folded: sum.folded + one.folded,
            })
        };
        let written = futures::stream::iter(writes).buffer_unordered(WRITES);
        written.try_fold(Written::default(), add).await
    }
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the command was asked to stop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_whole_or_by_a_prefix_with_a_star() {
        let named = ["a:1".to_owned(), "b:*".to_owned()];
        let is = |key| is_named(key, &named);
        assert!(is("a:1") && is("b:") && is("b:77"));
        assert!(!is("a:11") && !is("a:") && !is("c:b:1"));
    }

    #[test]
    fn a_finding_is_written_removed_or_left() {
        let mut asked = Repaired { dry_run: true, ..Repaired::default() };
        let named = ["x:*".to_owned()];
        for (key, difference, is_touched) in [
            ("a", Difference::Missing, true),
            ("a", Difference::Value, true),
            ("a", Difference::Expiry, true),
            ("x:1", Difference::Unexplained, true),
            ("y:1", Difference::Unexplained, false),
            ("x:2", Difference::Moving, false),
            ("x:3", Difference::Unreadable, false),
        ] {
            let finding = Finding::new("r", difference, key.as_bytes());
            assert_eq!(asked.ask(&finding, &named), is_touched, "{key} {difference:?}");
        }
        assert_eq!((asked.to_write, asked.to_remove, asked.left), (3, 1, 1));
        assert_eq!(
            asked.told(),
            "--repair would write 3 keys and remove 1 key; left alone: 1 unexplained key that --remove-unexplained does not name"
        );
    }
}
