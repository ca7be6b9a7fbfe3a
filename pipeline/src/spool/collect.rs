//! From SCAN into a spool: pages of keys over a bounded channel into the sorter, from there into the file.
//!
//! Invariant: a key that is there throughout is in the file once; one that the template of the route does not fit is
//! counted and left out.

use super::{Facts, Records, SORTED_BYTES_MAX, Sorter, Writer};
use crate::ledger::io_error;
use crate::rebuild::patiently;
use schemas::KeyTemplate;
use stages::extract::redis_rows::{Held, RedisRows};
use stages::{Error, Kind, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// Pages of keys on their way to the sorter.
const PAGES: usize = 4;
/// Streams looked at in one round trip.
const STREAMS_AT_ONCE: usize = 256;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// The file.
    pub facts: Facts,
    /// Keys of the type and prefix that the template does not fit.
    pub unfit: u64,
}

/// Where and how rows are looked for.
pub struct Search<'a> {
    /// The server.
    pub rows: &'a RedisRows,
    /// What the rows are kept in.
    pub held: Held,
    /// What their keys look like.
    pub template: &'a KeyTemplate,
    /// How long the server may stay away.
    pub retry_for: Duration,
    /// Ends the search.
    pub cancel: &'a CancellationToken,
}

impl Search<'_> {
    /// Looks for all rows and writes their keys to a file.
    pub async fn collect(&self, path: &Path) -> Result<Looked> {
        if self.held != Held::Streams {
            return self.sort(path).await;
        }
        // Streams are looked at in the order of their keys, so their keys are sorted first.
        let names = path.with_extension("names");
        let looked = self.sort(&names).await?;
        let facts = self.look_at_streams(&names, &looked.facts, path).await?;
        fs::remove_file(&names).map_err(|error| io_error("remove", &names, error))?;
        Ok(Looked { facts, ..looked })
    }

    /// Walks through the keyspace; sorting and writing happen on a thread that may block.
    async fn sort(&self, path: &Path) -> Result<Looked> {
        let (sender, pages) = mpsc::channel(PAGES);
        let (to, template) = (path.to_owned(), self.template.clone());
        let sorting = tokio::task::spawn_blocking(move || sort(pages, &to, &template));
        let prefix = self.template.leading_literal();
        let mut cursor = 0;
        loop {
            let scan = || self.rows.scan(cursor, self.held, prefix);
            let page = patiently(self.retry_for, self.cancel, scan).await?;
            // A sorter that is gone tells why below.
            if sender.send(Some(page.keys)).await.is_err() {
                break;
            }
            if page.next == 0 {
                drop(sender.send(None).await);
                break;
            }
            cursor = page.next;
        }
        sorting.await.map_err(|error| {
            Error::new(Kind::Internal, "sorting the keys of a spool panicked").with_source(error)
        })?
    }

    async fn look_at_streams(&self, names: &Path, found: &Facts, path: &Path) -> Result<Facts> {
        let mut writer = Writer::new(path, true)?;
        let mut records = Records::open(names, found.records)?;
        let reader = Mutex::new(self.rows.reader());
        loop {
            let mut keys = Vec::with_capacity(STREAMS_AT_ONCE);
            while keys.len() < STREAMS_AT_ONCE {
                let Some(record) = records.next()? else { break };
                keys.push(record.key);
            }
            if keys.is_empty() {
                return writer.finish();
            }
            let look = || async { reader.lock().await.streams(&keys).await };
            let states = patiently(self.retry_for, self.cancel, look).await?;
            for (key, state) in keys.iter().zip(states) {
                if state.is_some() {
                    writer.push(key, state)?;
                }
            }
        }
    }
}

/// Some keys on their way to the sorter, or the end of all of them.
type Page = Option<Vec<Vec<u8>>>;

fn sort(mut pages: mpsc::Receiver<Page>, path: &Path, template: &KeyTemplate) -> Result<Looked> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut fit = Sorter::new(&folder, &name, SORTED_BYTES_MAX)?;
    // SCAN may show a key twice, one that does not fit as well.
    let mut others = Sorter::new(&folder, &format!("{name}.unfit"), SORTED_BYTES_MAX / 8)?;
    loop {
        let keys = match pages.blocking_recv() {
            Some(Some(keys)) => keys,
            Some(None) => break,
            // Whoever walked says why; a file of some of the keys must not get the name of all.
            None => return Err(Error::new(Kind::Cancelled, "the search for rows ended early")),
        };
        for key in keys {
            let sorter = if template.parse_key(&key).is_some() { &mut fit } else { &mut others };
            sorter.push(&key)?;
        }
    }
    let mut writer = Writer::new(path, false)?;
    fit.merge(|key| writer.push(key, None))?;
    let mut unfit = 0;
    others.merge(|_| {
        unfit += 1;
        Ok(())
    })?;
    Ok(Looked { facts: writer.finish()?, unfit })
}
