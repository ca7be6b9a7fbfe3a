//! Rows read through a spool, page by page: whole keys together, a large stream in pages of its own.
//!
//! Invariant: every key of a partition that is wanted, and every entry of its streams up to the last one that was
//! there, is in one page, in the order of the spool; a page is sized by what the one before it weighed, so that it is
//! bounded by bytes and not by rows.

use super::{Cut, Record, Records};
use stages::extract::redis_rows::{Commands, EntryId, Held, Replies, Reply, RowReader};
use stages::policy::Retry;
use stages::transform::redis_rows::Page;
use stages::{Error, Kind, Result};
use std::path::Path;
use std::time::Duration;

/// What the replies of a page should weigh.
const PAGE_BYTES: u64 = 1 << 20;
/// Rows of the first page, when nothing is known yet, and of the largest.
const ROWS_FIRST: u64 = 64;
const ROWS_MAX: u64 = 4_096;

/// The pages of one partition.
pub struct Pages {
    records: Records,
    cut: Cut,
    held: Held,
    reader: RowReader,
    /// How long the server may stay away.
    retry_for: Duration,
    /// Rows of the next page.
    rows: u64,
    /// What did not fit into the page before.
    waiting: Option<Record>,
    large: Option<Large>,
}

/// What is still to be read of a large stream: its key, and the ids of its entries.
struct Large {
    key: Vec<u8>,
    from: EntryId,
    to: EntryId,
}

impl Pages {
    /// Opens a partition of a checked file; `retry_for` is how long the server may stay away.
    pub fn open(
        path: &Path,
        cut: Cut,
        held: Held,
        reader: RowReader,
        retry_for: Duration,
    ) -> Result<Self> {
        let records = Records::open_at(path, cut.offset, cut.records)?;
        let (waiting, large) = (None, None);
        Ok(Self { records, cut, held, reader, retry_for, rows: ROWS_FIRST, waiting, large })
    }

    /// Returns the next page of the keys that are wanted.
    pub async fn next(&mut self, wants: impl Fn(&Record) -> bool) -> Result<Option<Page>> {
        let (mut commands, mut keys, mut rows) = (Commands::default(), Vec::new(), 0);
        // Records are read from a local file in short steps.
        while self.large.is_none()
            && let Some(record) = self.take(&wants)?
        {
            let weight = record.stream.map_or(1, |stream| stream.entries);
            let is_large = self.cut.ids.is_some() || weight > self.rows;
            if !keys.is_empty() && (is_large || rows + weight > self.rows) {
                self.waiting = Some(record);
                break;
            }
            match record.stream {
                Some(stream) if is_large => {
                    let (from, to) = self.cut.range(stream.last);
                    self.large = (from <= to).then_some(Large { key: record.key, from, to });
                    continue;
                }
                Some(stream) => {
                    commands.range(&record.key, EntryId::MIN, stream.last, stream.entries);
                }
                None => commands.read(self.held, &record.key),
            }
            rows += weight;
            keys.push(record.key);
        }
        if let Some(large) = self.large.take() {
            return self.part(large).await.map(Some);
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let replies = self.ask(&commands).await?;
        self.learn(rows, replies.len() as u64);
        Ok(Some(Page { keys, replies }))
    }

    fn take(&mut self, wants: impl Fn(&Record) -> bool) -> Result<Option<Record>> {
        if self.waiting.is_some() {
            return Ok(self.waiting.take());
        }
        while let Some(record) = self.records.next()? {
            if wants(&record) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Reads the next entries of a large stream.
    async fn part(&mut self, large: Large) -> Result<Page> {
        let Large { key, from, to } = large;
        let asked = self.rows;
        let mut commands = Commands::default();
        commands.range(&key, from, to, asked);
        let replies = self.ask(&commands).await?;
        let (entries, end) = ends(&replies)?;
        self.learn(entries, replies.len() as u64);
        let next = end.and_then(EntryId::after).filter(|next| entries == asked && *next <= to);
        self.large = next.map(|from| Large { key: key.clone(), from, to });
        Ok(Page { keys: vec![key], replies })
    }

    /// Asks again while the server may come back.
    async fn ask(&mut self, commands: &Commands) -> Result<bytes::Bytes> {
        let mut retry = Retry::within(self.retry_for);
        loop {
            match self.reader.ask(commands).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.wait_after(error).await?,
            }
        }
    }

    /// Sizes the next page; it grows slowly, because the next rows may be heavier.
    fn learn(&mut self, rows: u64, bytes: u64) {
        let each = (bytes / rows.max(1)).max(1);
        self.rows = (PAGE_BYTES / each).clamp(1, ROWS_MAX).min(self.rows * 4);
    }
}

/// Returns how many entries a page of one stream has, and the id of the last one.
fn ends(page: &[u8]) -> Result<(u64, Option<EntryId>)> {
    let mut replies = Replies::new(page);
    let Reply::Array(entries) = replies.token()? else { return Ok((0, None)) };
    for _ in 1..entries {
        replies.skip()?;
    }
    if entries == 0 {
        return Ok((0, None));
    }
    let (Reply::Array(_), Reply::Text(id)) = (replies.token()?, replies.token()?) else {
        return Err(Error::new(Kind::Internal, "redis sent a stream entry without an id"));
    };
    Ok((entries as u64, EntryId::parse(id)))
}
