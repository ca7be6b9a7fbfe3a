//! Rows into Redis commands in RESP2.
//!
//! Invariant: every row read becomes exactly one of an entry, an expired row, or a reject; the commands
//! of one batch may be sent again any number of times with the same result.

mod batch;
mod dump;
pub(crate) mod resp;
mod script;
#[cfg(test)]
mod tests;
mod trial;

pub use dump::ListpackLimits;
pub use script::{
    KEEP_DOCUMENT_SCRIPT, KEEP_DOCUMENT_SHA1, KEEP_HASH_SCRIPT, KEEP_HASH_SHA1, NEWEST_SCRIPT,
    NEWEST_SHA1,
};
pub use trial::{
    TRIAL_PREFIX, TrialEntry, trial_edges, trial_entries, trial_payload, trial_removal,
};

use super::{Decoder, Transform};
use crate::batch::{Encoded, RawBatch};
use crate::error::Result;
use batch::BatchEncoder;
pub(super) use batch::{mismatch, rejected};
use dump::DumpEncoder;
use schemas::plan::Layout;
use schemas::{BoundRoute, SlotCut};
use std::sync::Arc;

/// What the commands assume of the target, and what they leave there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// First pass into a keyspace proven empty: nothing has to be deleted first.
    Blank,
    /// Exactly this row is left under the key, whatever was there before.
    Exact,
    /// A key that exists is left alone, whole and atomically.
    Keep,
    /// A key that holds a newer version is left alone, whole and atomically.
    Newest,
}

/// How hashes reach the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `HSET` and its relatives; every server takes them.
    Command,
    /// `RESTORE` of a finished payload where that costs the server less; needs RDB version 10 and the permission.
    Restore(ListpackLimits),
}

/// How the entries of files are written.
#[derive(Debug, Clone)]
pub struct FileForm {
    /// Up to which size a hash is a listpack; a server with lower limits converts what is above them when it loads.
    pub limits: ListpackLimits,
    /// Which file a key belongs to.
    pub cut: Arc<SlotCut>,
}

/// Encodes raw batches as Redis commands, or as entries of RDB files.
///
/// | layout | `Blank` | `Exact` | `Keep` |
/// |---|---|---|---|
/// | string, json | `MSET k v …`; with an expiry `SET k v [PXAT ms]` | the same | `SET k v NX [PXAT ms]` |
/// | hash, by command | `HSET`, with an expiry in `MULTI`…`EXEC` with `PEXPIREAT` | `DEL`, `HSET`, `PEXPIREAT` in `MULTI`…`EXEC` | `EVALSHA` of `KEEP_HASH_SCRIPT` |
/// | redisjson | `JSON.SET k $ v`, with an expiry in `MULTI`…`EXEC` with `PEXPIREAT` | `DEL`, `JSON.SET`, `PEXPIREAT` in `MULTI`…`EXEC` | `EVALSHA` of `KEEP_DOCUMENT_SCRIPT` |
/// | hash, by restore | `RESTORE k ms payload REPLACE [ABSTTL]` | the same | `RESTORE k ms payload [ABSTTL]`, where `BUSYKEY` is a key kept |
///
/// By restore, a hash with a name or value too long for a listpack goes by `HSET` under `Blank` where it does not expire:
/// Redis 7.0 takes 3.3 us for it on its main thread, and 3.65 us by `RESTORE` (three fields, one of 84 bytes).
///
/// `Newest` runs `NEWEST_SCRIPT` for up to 32 rows at once, whatever the way.
///
/// A transaction or an `MSET` holds up to 64 rows. `Blank` by command leaves the fields of two rows with one key
/// mixed, so it needs distinct keys as well as an empty keyspace.
#[derive(Debug)]
pub struct RedisCommands {
    bound: Arc<BoundRoute>,
    decoder: Decoder,
    style: Style,
    /// Present where hashes go by `RESTORE`, or into a file.
    dump: Option<DumpEncoder>,
    /// Present where entries go into files instead of commands.
    files: Option<Arc<SlotCut>>,
    /// `$<length>\r\n<name>\r\n` of every field.
    field_headers: Vec<Vec<u8>>,
    /// Bytes that a row's commands add to its values, without the key.
    row_overhead: usize,
}

impl RedisCommands {
    /// Makes the transform of one route.
    pub fn new(
        bound: Arc<BoundRoute>,
        decoder: impl Into<Decoder>,
        style: Style,
        way: Way,
    ) -> Self {
        let field_headers: Vec<Vec<u8>> = bound
            .fields
            .iter()
            .map(|field| {
                let mut header = Vec::new();
                resp::write_bulk(field.name.as_bytes(), &mut header);
                header
            })
            .collect();
        // Verbs, lengths and an expiry take about 100 bytes, the length of a value up to 8.
        let row_overhead = 100 + field_headers.iter().map(|header| header.len() + 8).sum::<usize>();
        let dump = match way {
            Way::Restore(limits)
                if bound.route.layout == Layout::Hash && style != Style::Newest =>
            {
                let names = bound.fields.iter().map(|field| field.name.as_bytes());
                Some(DumpEncoder::new(limits, names))
            }
            _ => None,
        };
        let (decoder, files) = (decoder.into(), None);
        Self { bound, decoder, style, dump, files, field_headers, row_overhead }
    }

    /// Makes the transform of one route into RDB files, which hold every key once: nothing is there before.
    pub fn into_files(
        bound: Arc<BoundRoute>,
        decoder: impl Into<Decoder>,
        form: &FileForm,
    ) -> Self {
        let way = Way::Restore(form.limits);
        Self { files: Some(Arc::clone(&form.cut)), ..Self::new(bound, decoder, Style::Blank, way) }
    }
}

impl Transform for RedisCommands {
    /// The position is `Start` where the batch completes nothing that a resume could continue from: it has
    /// no row, or a cut by key in which all rows share one value and more may follow. The digest and its
    /// count cover every row that could be decoded; rows with a value that could not are rejects only.
    fn apply(&self, raw: RawBatch, now_ms: i64) -> Result<Encoded> {
        let decoded = self.decoder.decode(&raw, &self.bound.schema)?;
        let mut encoder = BatchEncoder::new(self, &decoded, raw.bytes.len(), now_ms)?;
        for row in 0..raw.rows {
            encoder.row(row)?;
        }
        encoder.finish(&raw)
    }
}
