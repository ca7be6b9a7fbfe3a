//! Compares what a copy holds with BigQuery: now, or as of the time of the copy where BigQuery may have changed since.
//!
//! Invariant: what BigQuery changed after the copy was made is no damage. It is compared as of the time of the copy,
//! and where BigQuery cannot show that time any more, the end is inconclusive and says so.

use super::apart::{Apart, Marked, Side, Spread};
use super::marks;
use super::read::{self, streams_for};
use super::report::{Part, State};
use super::shape::Columns;
use super::unit::{Depth, Unit};
use crate::backup::decide::Fate;
use crate::summarize::rfc3339;
use schemas::Digest;
use schemas::manifest::Version;
use serde_json::json;
use stages::extract::table_rows::Reading;
use stages::{Kind, Result};

/// Rows of one side: how many, and the sum of their hashes where they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) rows: u64,
    pub(super) sum: Option<u128>,
}

impl Seen {
    fn is_same(self, other: Self) -> bool {
        self.rows == other.rows && self.sum.zip(other.sum).is_none_or(|(this, that)| this == that)
    }
}

impl From<Digest> for Seen {
    fn from(digest: Digest) -> Self {
        Self { rows: digest.count, sum: Some(digest.sum) }
    }
}

impl Unit<'_> {
    /// Compares what the copy holds with BigQuery.
    pub(super) async fn compare(
        &self,
        part: &mut Part,
        newest: &Version,
        copy: Seen,
    ) -> Result<()> {
        let fate = self.table.fates.get(self.id);
        if self.table.source.is_none() {
            // Said once, of the table as a whole.
            return Ok(());
        }
        if fate == Some(&Fate::Expire) {
            part.state = State::Expired;
            return Ok(());
        }
        let columns = match self.table.columns(newest) {
            Ok(columns) => columns,
            Err(reason) => {
                self.inconclusive(part, format!("the columns changed since the copy: {reason}"));
                return Ok(());
            }
        };
        let now_us = self.shared.snapshot_us;
        // A copy that is younger than the pinned time was published after the source was listed.
        let is_listed_newer = self.is_newer
            || newest.snapshot_us > now_us
            || self
                .table
                .listed(self.id)
                .is_none_or(|found| found.last_modified_us > newest.snapshot_us);
        let mut then = None;
        if !is_listed_newer {
            let now = self.look(now_us, &columns).await?;
            part.rows_in_bigquery = Some(now.rows);
            part.compared_as_of = Some(rfc3339(now_us / 1_000));
            if now.is_same(copy) {
                return Ok(());
            }
            if !self.table.has_windows && !self.table.has_buffer {
                return self.differs(part, newest, copy, now_us, &columns).await;
            }
            then = Some(now);
        }
        self.compare_back(part, newest, copy, &columns, then).await
    }

    /// Compares as of the time of the copy, because BigQuery may have changed since.
    async fn compare_back(
        &self,
        part: &mut Part,
        newest: &Version,
        copy: Seen,
        columns: &Columns,
        now: Option<Seen>,
    ) -> Result<()> {
        let (now_us, at_us) = (self.shared.snapshot_us, newest.snapshot_us);
        let is_readable = at_us >= self.table.oldest_us;
        let then = if is_readable {
            self.look_back(at_us, columns).await?
        } else if self.table.is_made_anew {
            Err("the table was made anew since".to_owned())
        } else {
            Err("bigquery shows no time that old any more".to_owned())
        };
        let now = match now {
            Some(now) => now,
            None => self.look(now_us, columns).await?,
        };
        part.rows_in_bigquery = Some(now.rows);
        match then {
            Ok(then) if !then.is_same(copy) => {
                part.rows_in_bigquery = Some(then.rows);
                part.compared_as_of = Some(rfc3339(at_us / 1_000));
                if self.may_have_moved() {
                    self.inconclusive(part, "rows of the streaming buffer move between table partitions, and bigquery may show them where they are now".to_owned());
                    return Ok(());
                }
                return self.differs(part, newest, copy, at_us, columns).await;
            }
            Ok(_) => {
                part.compared_as_of = Some(rfc3339(at_us / 1_000));
                // A copy that a backup has published meanwhile may be younger than the pinned time.
                if now.is_same(copy) || self.is_newer || at_us > now_us {
                    return Ok(());
                }
                self.changed(part);
            }
            Err(_) if now.is_same(copy) => {
                part.compared_as_of = Some(rfc3339(now_us / 1_000));
                return Ok(());
            }
            Err(reason) => self.inconclusive(
                part,
                format!(
                    "it changed after it was copied at {}, and {reason}",
                    rfc3339(at_us / 1_000)
                ),
            ),
        }
        if let Some(Fate::Hold(loss)) = self.table.fates.get(self.id) {
            part.state = State::Lost;
            let reason = part.reason.take().map(|reason| format!("; {reason}")).unwrap_or_default();
            part.reason = Some(format!("{}{reason}", loss.word()));
            part.hint = Some(self.hint_lost());
        }
        if self.depth == Depth::Full && part.damage_count == 0 {
            part.since = self.apart(newest, now_us, columns, "since").await?;
            part.is_stale = part.since.is_none();
        }
        Ok(())
    }

    /// Says that BigQuery changed it, and whether a backup will see that.
    fn changed(&self, part: &mut Part) {
        part.state = State::Changed;
        let is_copied = !matches!(self.table.fates.get(self.id), Some(Fate::Keep));
        if !is_copied {
            part.reason = Some("a backup does not see this change, because neither the number of rows nor a time shows it".to_owned());
            part.hint = Some(self.table.hint_backup(" --full"));
        }
    }

    async fn differs(
        &self,
        part: &mut Part,
        newest: &Version,
        copy: Seen,
        at_us: i64,
        columns: &Columns,
    ) -> Result<()> {
        part.state = State::Different;
        let (name, route) = (self.table.full_name(), &self.table.route.name);
        part.hint = Some(format!(
            "if bigquery is right: rekindle backup bigquery --full --route {route} (--accept-loss {name} where it has fewer rows); if the duplicate is right: {}",
            self.restore()
        ));
        if part.damage_count > 0 {
            part.reason =
                Some("which rows differ can be told when its blocks are whole".to_owned());
        } else if self.depth == Depth::Full {
            part.rows = self.apart(newest, at_us, columns, "then").await?;
            part.is_stale = part.rows.is_none();
        } else {
            let rows = part.rows_in_bigquery.unwrap_or(0);
            let what = if rows > copy.rows { "missing in redis" } else { "missing in bigquery" };
            let count = rows.abs_diff(copy.rows);
            part.reason =
                Some(format!("at least {count} rows are {what}; --tier full names what differs"));
        }
        Ok(())
    }

    /// Looks at BigQuery as of a time, as deep as asked.
    async fn look(&self, at_us: i64, columns: &Columns) -> Result<Seen> {
        if self.depth == Depth::Count {
            let is_counted = at_us == self.shared.snapshot_us && !self.table.has_windows;
            let rows = if is_counted {
                self.table.counted.get(self.id).copied().unwrap_or(0)
            } else {
                self.table.count(self.shared, self.id, at_us).await?
            };
            return Ok(Seen { rows, sum: None });
        }
        let reading = self.reading(at_us)?;
        let look = read::digest();
        let read = || async {
            let mut digest = Digest::default();
            let mut take = |batch| {
                digest += batch;
                Ok(())
            };
            read::rows(self.shared, &reading, columns, &look, &mut take).await?;
            Ok(digest)
        };
        Ok(self.shared.patiently(read).await?.into())
    }

    /// The same of an earlier time, which BigQuery may refuse to show: the reason, then.
    async fn look_back(
        &self,
        at_us: i64,
        columns: &Columns,
    ) -> Result<std::result::Result<Seen, String>> {
        match self.look(at_us, columns).await {
            Ok(seen) => Ok(Ok(seen)),
            Err(error) if matches!(error.kind(), Kind::Config | Kind::Schema) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                Ok(Err(format!("bigquery does not show it: {}", cause.unwrap_or_default())))
            }
            Err(error) => Err(error),
        }
    }

    fn reading(&self, at_us: i64) -> Result<Reading> {
        let bytes = self.table.listed(self.id).map_or(0, |found| found.bytes);
        Ok(Reading {
            dataset: self.table.dataset.clone(),
            table: self.table.name.clone(),
            filter: self.table.filter(self.id)?,
            snapshot_us: at_us,
            streams: streams_for(bytes),
        })
    }

    /// Finds the rows that differ; `None` where blocks that were whole are not any more. One at a time, whatever the
    /// lanes: each takes bucket files and memory.
    async fn apart(
        &self,
        newest: &Version,
        at_us: i64,
        columns: &Columns,
        when: &'static str,
    ) -> Result<Option<Apart>> {
        let _turn = self.shared.one_at_a_time.lock().await;
        let look = marks::by_column(self.table.route.backup.row_key.clone());
        let blocks = self.blocks_of(newest);
        let reading = self.reading(at_us)?;
        let find = || async {
            let mut spread = Spread::new(self.shared.scratch.path(), "rows", newest.rows)?;
            let ordinals = 0..u32::try_from(newest.blocks.len()).unwrap_or(u32::MAX);
            let mut of_redis = |rows: Vec<Marked>| spread.push(Side::Redis, &rows);
            let bad = blocks.read(self.shared, ordinals, &look, &mut of_redis).await?;
            if !bad.is_empty() {
                return Ok(None);
            }
            let mut of_bigquery = |rows: Vec<Marked>| spread.push(Side::BigQuery, &rows);
            read::rows(self.shared, &reading, columns, &look, &mut of_bigquery).await?;
            Ok(Some(spread))
        };
        let Some(spread) = self.shared.patiently(find).await? else { return Ok(None) };
        let (table, id) = (self.table.full_name(), self.id);
        let apart = spread.compare(&mut |_, _| true, &mut |sort, name| {
            let key = String::from_utf8_lossy(name);
            let key = (!key.is_empty()).then_some(key);
            self.shared.findings.note(&json!({
                "table": table, "table_partition": id, "what": sort.word(), "when": when,
                "row_key": key,
            }))
        })?;
        Ok(Some(apart))
    }
}
