//! `rekindle plan --sample N`: real rows of every route and the exact commands they become.
//!
//! Invariant: rows are shown because they were asked for by name, on stdout and nowhere else; nothing is sent to Redis
//! that writes.

use super::readable::{commands, readable, unquoted};
use crate::lane::now_ms;
use crate::rebuild::{Options, patiently, selected_routes};
use crate::route::RouteRun;
use crate::summarize::rfc3339;
use crate::wiring::{self, Sampler, Sources};
use schemas::text::TextColumn;
use schemas::{Bounds, Plan};
use serde::Serialize;
use serde_json::{Map, Value};
use stages::load::Sink;
use stages::transform::Style;
use stages::{Encoded, Error, Kind, RawBatch, Result};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// Some rows of one route.
#[derive(Debug, Clone, Serialize)]
pub struct RouteSample {
    /// Route name.
    pub route: String,
    /// Table or query.
    pub table: String,
    /// The rows, as the source gave them.
    pub rows: Vec<RowSample>,
    /// What a run would do differently, and what is missing.
    pub notes: Vec<String>,
}

/// One row and what becomes of it.
#[derive(Debug, Clone, Serialize)]
pub struct RowSample {
    /// Column to its canonical text, or null.
    pub row: Map<String, Value>,
    /// `written`, `expired`, `left out` or `rejected`.
    pub outcome: &'static str,
    /// Why it is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the key expires, RFC 3339; absent where it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The commands, each as its words.
    pub commands: Vec<Vec<String>>,
    /// The same, as `redis-cli` would take them.
    #[serde(skip)]
    lines: Vec<String>,
}

/// Reads up to `rows` rows of every selected route that rebuilds Redis.
pub async fn sample(
    plan: &Plan,
    options: &Options,
    rows: usize,
) -> std::result::Result<Vec<RouteSample>, Vec<Error>> {
    let one = |error: Error| vec![error];
    let chosen = selected_routes(plan, &options.routes)?;
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let from_archive = options.from_archive;
    let connect = || wiring::connect_with(plan, &chosen, 1, from_archive);
    let sources = patiently(retry_for, cancel, connect).await.map_err(one)?;
    let sink = wiring::make_sink(plan, options.way).map_err(one)?;
    let state = patiently(retry_for, cancel, || sink.state()).await.map_err(one)?;
    let described = wiring::describe_routes(&sources, &chosen).await?;
    let tables: Vec<String> = described.iter().map(|described| described.facts().table).collect();
    let mut readers = Vec::with_capacity(described.len());
    for described in &described {
        readers.push(wiring::sampler(&sources, described, rows).await?);
    }
    // For what only a run of all routes together knows: whether a key may be there already.
    let runs = wiring::run_routes(&sources, &sink, described).map_err(one)?;
    let mut samples = Vec::with_capacity(runs.len());
    for ((reader, run), table) in readers.iter().zip(&runs).zip(tables) {
        run.target_was_empty.store(state.entries == 0, Ordering::Relaxed);
        let style = run.style(&Bounds::Whole, true);
        let found = one_route(&sources, reader, run, style, rows).await.map_err(one)?;
        samples.push(RouteSample { table, ..found });
    }
    sources.release_snapshot().await;
    Ok(samples)
}

async fn one_route(
    sources: &Sources,
    sampler: &Sampler,
    run: &RouteRun,
    style: Style,
    rows: usize,
) -> Result<RouteSample> {
    // A name of its own: two samples at once must not share what they write.
    let name = format!("sample{}", uuid::Uuid::new_v4().simple());
    let raw = sampler.rows(sources, rows, &name).await?;
    let mut notes = Vec::new();
    if raw.len() < rows {
        notes.push(format!("{} of {rows} rows were found", raw.len()));
    }
    let layout = sampler.bound().route.layout.word();
    let is_many = sampler.bound().is_many();
    notes.push(match (layout, style) {
        ("stream", _) => "each row is shown as the first entry of the first stream; a run numbers the entries of each partition, under a temporary name until the stream is whole".to_owned(),
        _ if is_many => "each row is shown alone; a run writes all rows of a key at once, and one that does not fit a batch under a temporary name first".to_owned(),
        ("hash" | "redisjson", Style::Keep) => format!("EVALSHA runs a script that writes the {} only where there is no key", if layout == "hash" { "hash" } else { "document" }),
        (_, Style::Newest) => "EVALSHA runs a script that leaves the key alone where its version is newer; the words behind the key are its kind, field and digits, and the expiry".to_owned(),
        ("hash", _) => "a run may send the same hash by RESTORE, where a trial at its start finds that faster, and up to 64 rows in one transaction".to_owned(),
        ("redisjson", _) => "a run sends up to 64 rows in one transaction, where a key has to be deleted first or expires".to_owned(),
        _ => "a run sends up to 64 rows in one MSET".to_owned(),
    });
    let rows = raw.into_iter().map(|raw| one_row(sampler, raw, style));
    Ok(RouteSample {
        route: run.name().to_owned(),
        table: String::new(),
        rows: rows.collect::<Result<_>>()?,
        notes,
    })
}

fn one_row(sampler: &Sampler, raw: RawBatch, style: Style) -> Result<RowSample> {
    let row = texts(sampler, &raw)?;
    let encoded = sampler.encode(raw, style, now_ms())?;
    let commands = commands(&encoded.payload)?;
    let words = |command: &Vec<Vec<u8>>| command.iter().map(|word| unquoted(word)).collect();
    let lines = commands.iter().map(|command| readable(command)).collect();
    let (outcome, reason) = outcome(&encoded);
    let expires_ms = encoded.entries.first().map_or(0, |entry| entry.expires_ms);
    Ok(RowSample {
        row,
        outcome,
        reason,
        expires_at: (expires_ms != 0).then(|| rfc3339(expires_ms)),
        commands: commands.iter().map(words).collect(),
        lines,
    })
}

/// A batch of one row is one entry, or expired, or rejected.
fn outcome(encoded: &Encoded) -> (&'static str, Option<String>) {
    match &encoded.rejected {
        Some(rejected) => ("rejected", rejected.reasons.first().cloned()),
        None if encoded.expired > 0 => ("expired", None),
        None if encoded.left_out > 0 => ("left out", None),
        None => ("written", None),
    }
}

/// The columns of a row as canonical texts; a value that could not be carried is null.
fn texts(sampler: &Sampler, raw: &RawBatch) -> Result<Map<String, Value>> {
    let decoded = sampler.decode(raw)?;
    let mut row = Map::new();
    for (index, column) in sampler.bound().schema.columns.iter().enumerate() {
        let array = decoded.rows.column(index).as_ref();
        let values = TextColumn::new(array, &column.column_type).map_err(|error| {
            Error::new(Kind::Internal, "a decoded column has the wrong arrow type")
                .with_source(error)
        })?;
        let mut text = Vec::new();
        if !values.is_null(0) {
            values.write(0, &mut text);
        }
        let value = if values.is_null(0) { Value::Null } else { Value::from(unquoted(&text)) };
        row.insert(column.name.clone(), value);
    }
    Ok(row)
}

impl RouteSample {
    /// Renders the rows for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).unwrap_or_default();
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\nsample of route {}: {} of {}",
            self.route,
            rows(self.rows.len()),
            self.table
        )?;
        for (index, sample) in self.rows.iter().enumerate() {
            writeln!(out, "  row {}", index + 1)?;
            for (column, value) in &sample.row {
                let shown = match value.as_str() {
                    Some(text) => readable(&[text.as_bytes().to_vec()]),
                    None => "null".to_owned(),
                };
                writeln!(out, "    {column} = {shown}")?;
            }
            let expiry = sample.expires_at.as_ref().map(|at| format!(", expires at {at}"));
            let outcome = match &sample.reason {
                Some(reason) => format!("rejected: {reason}"),
                None if sample.outcome == "expired" => "expired: not written".to_owned(),
                None if sample.outcome == "left out" => {
                    "left out: what would be its element is null".to_owned()
                }
                None => format!("written{}", expiry.unwrap_or_default()),
            };
            writeln!(out, "  -> {outcome}")?;
            for line in &sample.lines {
                writeln!(out, "    {line}")?;
            }
        }
        for note in &self.notes {
            writeln!(out, "  note: {note}")?;
        }
        Ok(())
    }
}

fn rows(count: usize) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}
