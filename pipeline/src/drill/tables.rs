//! Restored tables read whole, beside the digest that their duplicate was recorded with.
//!
//! Invariant: rows come from the scratch tables themselves, after everything that the restore did.

use super::dataset::ScratchDataset;
use super::work::{Restore, table_of};
use crate::cpu::CpuPool;
use crate::rebuild::{Options, patiently};
use crate::summary::RouteSummary;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use schemas::Digest;
use schemas::digest::BatchHasher;
use stages::load::bigquery::{ReadBack, ReadOptions};
use stages::transform::arrow_rows::read_rows;
use stages::{Error, Kind, Result};

/// A restored table and what it has to hold.
pub(super) struct Restored<'a> {
    pub(super) route: &'a str,
    pub(super) table: &'a str,
    pub(super) rows: u64,
    pub(super) digest: &'a str,
}

/// Pairs the routes with what the restore says of them.
pub(super) fn restored<'a>(
    restore: &'a Restore,
    summaries: &'a [RouteSummary],
) -> Result<Vec<Restored<'a>>> {
    let of = |route: &'a schemas::Route| {
        let summary = summaries.iter().find(|summary| summary.name == route.name)?;
        let (_, table) = table_of(route)?;
        let digest = summary.digest.as_deref()?;
        Some(Restored { route: &route.name, table, rows: summary.rows, digest })
    };
    let found = restore.routes.iter().map(|route| {
        of(route).ok_or_else(|| {
            let message = format!("the restore told no digest of route {}", route.name);
            Error::new(Kind::Internal, message).with_hint("report this; the tables are not proven")
        })
    });
    found.collect()
}

/// Reads every restored table; returns one line for each that differs.
pub(super) async fn verify(
    scratch: &ScratchDataset,
    tables: &[Restored<'_>],
    options: &Options,
) -> Result<Vec<String>> {
    let cpu = CpuPool::new()?;
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let mut differences = Vec::new();
    for table in tables {
        patiently(retry_for, cancel, || scratch.lift_filter(table.table)).await?;
        let streams = options.lanes.start;
        let read = || digest(scratch, &cpu, table.table, streams);
        let found = patiently(retry_for, cancel, read).await?;
        if Digest::from_hex(table.digest, table.rows) != Some(found) {
            differences.push(format!(
                "route {}: table {}.{} holds {} rows with digest {}, where its duplicate says {} rows with {}",
                table.route, scratch.name, table.table, found.count, found.hex(), table.rows, table.digest
            ));
        }
    }
    Ok(differences)
}

async fn digest(
    scratch: &ScratchDataset,
    cpu: &CpuPool,
    table: &str,
    streams: usize,
) -> Result<Digest> {
    let options = ReadOptions { streams, ..ReadOptions::default() };
    let session = ReadBack::open(&scratch.bigquery, &scratch.name, table, &options).await?;
    let of_stream = |name: &String| {
        let mut messages = Box::pin(session.rows(name));
        let schema = session.schema.clone();
        async move {
            let mut total = Digest::default();
            while let Some(message) = messages.next().await {
                let (message, schema) = (message?, schema.clone());
                total += cpu.submit(move || digest_of(&schema, &message)).await?;
            }
            Ok::<_, Error>(total)
        }
    };
    let reading: Vec<_> = session.streams.iter().map(of_stream).collect();
    let mut found = stream::iter(reading).buffer_unordered(streams.max(1));
    let mut total = Digest::default();
    while let Some(part) = found.next().await {
        total += part?;
    }
    Ok(total)
}

fn digest_of(schema: &Bytes, message: &Bytes) -> Result<Digest> {
    let mut digest = Digest::default();
    for rows in read_rows(schema, message)? {
        BatchHasher::new(&rows).map_err(unknown)?.add_to(&mut digest);
    }
    Ok(digest)
}

fn unknown(error: schemas::digest::UnknownType) -> Error {
    Error::new(Kind::Schema, "cannot hash rows of bigquery")
        .with_hint("rekindle check")
        .with_source(error)
}
