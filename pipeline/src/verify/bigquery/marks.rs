//! Marks rows for the comparison: by the hash of their key where they have one, else by the hash of the row.
//!
//! Invariant: the hash of a row covers the typed values of all columns, as the digest does; a key is text only to name
//! the row.

use super::apart::Marked;
use super::read::{Look, no_hash};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use schemas::BoundRoute;
use schemas::digest::BatchHasher;
use schemas::key::key_hash;
use schemas::layout::ExpiryTimes;
use stages::{Error, Kind, Result};
use std::io::Write as _;
use std::sync::Arc;

/// What stands for "never expires".
pub(super) const NEVER_MS: i64 = i64::MAX;
/// Bytes of a key that are kept to name its row.
const NAME_BYTES_MAX: usize = 512;

/// Marks rows by a column that tells them apart, or by their hash.
pub(super) fn by_column(row_key: Option<String>) -> Look<Vec<Marked>> {
    Arc::new(move |rows: &RecordBatch| {
        let mut hasher = BatchHasher::new(rows).map_err(no_hash)?;
        let Some(row_key) = &row_key else {
            let marked = |row| {
                let hash = hasher.hash(row);
                Marked { bucket: hash, row: hash, expires_ms: NEVER_MS, name: Vec::new() }
            };
            return Ok((0..rows.num_rows()).map(marked).collect());
        };
        let keys = column(rows, row_key)?;
        let mut key_hasher = BatchHasher::new(&keys).map_err(no_hash)?;
        let options = FormatOptions::default().with_null("NULL");
        let texts =
            ArrayFormatter::try_new(keys.column(0).as_ref(), &options).map_err(|error| {
                let message = format!("column {row_key} (row_key) cannot be shown");
                Error::new(Kind::Schema, message).with_source(error)
            })?;
        let mut marked = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let mut name = Vec::new();
            write!(name, "{}", texts.value(row)).map_err(|error| {
                Error::new(Kind::Internal, "a key cannot be shown").with_source(error)
            })?;
            name.truncate(NAME_BYTES_MAX);
            let (bucket, row) = (key_hasher.hash(row), hasher.hash(row));
            marked.push(Marked { bucket, row, expires_ms: NEVER_MS, name });
        }
        Ok(marked)
    })
}

fn column(rows: &RecordBatch, name: &str) -> Result<RecordBatch> {
    let schema = rows.schema_ref();
    let place = schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
    let place = place.ok_or_else(|| {
        Error::new(Kind::Config, format!("the table has no column {name} (row_key)"))
            .with_hint("name a column of the table as row_key, or leave it out")
    })?;
    rows.project(&[place]).map_err(|error| {
        Error::new(Kind::Internal, "cannot take the key column of a batch").with_source(error)
    })
}

/// A part of the rows, chosen by the hash of their key: the same rows on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// One of so many rows.
    pub(super) of: u64,
    /// Which one.
    pub(super) which: u64,
}

impl Share {
    /// All rows.
    pub(super) const ALL: Self = Self { of: 1, which: 0 };

    /// About `wanted` of so many rows; another seed takes other rows.
    pub(super) fn about(wanted: u64, rows: u64, seed: u64) -> Self {
        let of = (rows / wanted.max(1)).max(1);
        Self { of, which: seed % of }
    }

    /// Whether a row with a key of this hash is in it.
    pub(super) fn has(self, bucket: u128) -> bool {
        // The low bits choose the bucket file.
        (bucket >> 64) % u128::from(self.of) == u128::from(self.which)
    }
}

/// Marks rows by the key that the template of a route makes of them; a row without one is marked by its hash.
pub(super) fn by_template(bound: Arc<BoundRoute>, share: Share) -> Look<Vec<Marked>> {
    Arc::new(move |rows: &RecordBatch| {
        let mismatch = |error: schemas::text::TypeMismatch| {
            Error::new(Kind::Schema, "rows do not fit the route").with_source(error)
        };
        let mut hasher = BatchHasher::new(rows).map_err(no_hash)?;
        let keys = bound.key.renderer(rows).map_err(mismatch)?;
        let expiry = ExpiryTimes::new(rows, &bound).map_err(mismatch)?;
        let mut marked = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let hash = hasher.hash(row);
            let mut name = Vec::new();
            let bucket = match keys.render(row, &mut name) {
                Ok(()) => key_hash(&name),
                Err(error) => {
                    name = format!("a row without a key: {error}").into_bytes();
                    hash
                }
            };
            if share.has(bucket) {
                let expires_ms = expiry.expires_ms(row).unwrap_or(NEVER_MS);
                name.truncate(NAME_BYTES_MAX);
                marked.push(Marked { bucket, row: hash, expires_ms, name });
            }
        }
        Ok(marked)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_disjoint_and_together_all_rows() {
        let hashes = (0..5_000_u32).map(|key| key_hash(&key.to_le_bytes()));
        let mut taken = [0_u64; 7];
        for hash in hashes {
            let of = (0..7).filter(|which| Share { of: 7, which: *which }.has(hash));
            let of: Vec<u64> = of.collect();
            assert_eq!(of.len(), 1);
            taken[usize::try_from(of[0]).unwrap()] += 1;
        }
        assert!(taken.iter().all(|count| (500..1_000).contains(count)), "{taken:?}");
        assert_eq!(Share::about(100, 50, 9), Share::ALL);
        assert_eq!(Share::about(100, 1_000, 23), Share { of: 10, which: 3 });
    }
}
