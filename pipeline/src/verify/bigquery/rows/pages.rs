//! The rows of Redis, page by page: read on connections of their own, decoded and marked on the CPU pool.
//!
//! Invariant: every key of the share, and every entry of a stream up to the last one that was there, is read once.

use super::super::apart::{Marked, Side, Spread};
use super::{Comparison, Way};
use crate::spool::{Cut, Pages, Record};
use arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt};
use schemas::key::key_hash;
use stages::transform::arrow_rows::read_schema;
use stages::transform::redis_rows::{Page, decode};
use stages::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows that cannot be read back and are named.
const NAMED_MAX: usize = 10_000;
/// Marked pages that wait to be taken.
const WAITING: usize = 4;

/// What was read of Redis.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: u64,
    pub(super) rejects: u64,
    /// Keys and reasons of the first of them.
    pub(super) reject_examples: Vec<(String, String)>,
}

/// One page, decoded and marked.
struct Marks {
    rows: Vec<Marked>,
    rejects: Vec<(String, String)>,
}

/// Reads all partitions of a spool, several at once, and spreads their rows.
pub(super) async fn read(
    comparison: &Comparison<'_>,
    way: &Way,
    path: &Path,
    cuts: Vec<Cut>,
    spread: &mut Spread,
) -> Result<Found> {
    let schema = arrow_schema(comparison, way).await?;
    let (sender, mut marks) = mpsc::channel(WAITING);
    let every_lane = sender.clone();
    let lanes = stream::iter(cuts).map(move |cut| {
        let lane =
            Lane { comparison, way, schema: Arc::clone(&schema), path, sender: every_lane.clone() };
        lane.run(cut)
    });
    // The channel ends with its last sender.
    drop(sender);
    let reading = async move {
        let mut lanes = lanes.buffer_unordered(comparison.shared.lanes);
        while let Some(done) = lanes.next().await {
            done?;
        }
        Ok::<_, Error>(())
    };
    let taking = async {
        let mut found = Found::default();
        while let Some(page) = marks.recv().await {
            let Marks { rows, rejects } = page;
            found.rows += rows.len() as u64;
            found.rejects += rejects.len() as u64;
            let room = NAMED_MAX.saturating_sub(found.reject_examples.len());
            found.reject_examples.extend(rejects.into_iter().take(room));
            spread.push(Side::Redis, &rows)?;
        }
        Ok(found)
    };
    let ((), found) = tokio::try_join!(reading, taking)?;
    Ok(found)
}

/// The columns of the table as a read gives them, which the decoder is made for.
async fn arrow_schema(comparison: &Comparison<'_>, way: &Way) -> Result<SchemaRef> {
    let shared = comparison.shared;
    let reading = comparison.reading(shared.snapshot_us);
    let session = stages::extract::table_rows::open(&shared.bigquery, &reading).await?;
    let schema = read_schema(&session.schema)?;
    let places = way.reverse.schema().columns.iter().map(|column| {
        let same =
            |field: &arrow::datatypes::FieldRef| field.name().eq_ignore_ascii_case(&column.name);
        schema.fields().iter().position(same).ok_or_else(|| {
            Error::new(Kind::Schema, format!("bigquery sent rows without column {}", column.name))
        })
    });
    let places = places.collect::<Result<Vec<_>>>()?;
    let schema = schema.project(&places).map_err(|error| {
        Error::new(Kind::Internal, "cannot take columns of a schema").with_source(error)
    })?;
    Ok(Arc::new(schema))
}

struct Lane<'a> {
    comparison: &'a Comparison<'a>,
    way: &'a Way,
    schema: SchemaRef,
    path: &'a Path,
    sender: mpsc::Sender<Marks>,
}

impl Lane<'_> {
    async fn run(self, cut: Cut) -> Result<()> {
        let (reader, held) = (self.comparison.rows.reader(), self.comparison.table.held);
        let retry_for = self.comparison.shared.retry_for;
        let mut pages = Pages::open(self.path, cut, held, reader, retry_for)?;
        let share = &self.way.share;
        let wants = |record: &Record| record.stream.is_some() || share.has(key_hash(&record.key));
        while let Some(page) = pages.next(wants).await? {
            self.send(page).await?;
        }
        Ok(())
    }

    /// Decodes and marks a page and hands it over.
    async fn send(&self, page: Page) -> Result<()> {
        let (reverse, schema) = (Arc::clone(&self.way.reverse), Arc::clone(&self.schema));
        let (look, held) = (Arc::clone(&self.way.look), self.comparison.table.held);
        let work = self.comparison.shared.cpu.submit(move || {
            let decoded = decode(&reverse, &schema, held, &page)?;
            let rejects = decoded
                .rejects
                .into_iter()
                .map(|reject| (String::from_utf8_lossy(&reject.key).into_owned(), reject.reason));
            Ok(Marks { rejects: rejects.collect(), rows: look(&decoded.rows)? })
        });
        let marks = work.await?;
        // Whoever took them has left with an error of its own.
        self.sender
            .send(marks)
            .await
            .map_err(|_| Error::new(Kind::Cancelled, "the rows of redis are not wanted any more"))
    }
}
