//! The header of a block: fixed fields, three names and a check of its own, little-endian throughout.
//!
//! Invariant: a header that does not match its check is never interpreted. It carries all that is needed to rebuild
//! the manifest of its table partition when that is lost.

use super::BlockError;
use crate::digest::{DIGEST_VERSION, Digest};
use xxhash_rust::xxh3::xxh3_64;

/// First bytes of every block.
pub const MAGIC: [u8; 8] = *b"RKBLOCK\0";
/// Version of the header and the body together, of a block that is not sealed.
pub const VERSION: u16 = 1;
/// The same of a sealed block: its header names the key, its body is sealed.
pub const VERSION_SEALED: u16 = 2;
/// An arrow IPC stream in one zstd frame; any arrow library reads what `zstd -d` makes of the body.
pub const CODEC_ZSTD_ARROW: u8 = 1;

const FIXED_BYTES: usize = 136;
const CHECK_BYTES: usize = 8;
const KEY_ID_BYTES: usize = 8;
/// Magic, version, codec, flags and the length of the header: as much as tells how much more to read.
const PREFIX_BYTES: usize = 16;
const FLAG_LAST: u8 = 1;
const NAME_BYTES_MAX: usize = 4096;
/// What stands for "does not expire".
const NEVER: i64 = i64::MIN;

/// What a block says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How the body is written; see [`CODEC_ZSTD_ARROW`].
    pub codec: u8,
    /// Whether no block of the same generation follows.
    pub is_last: bool,
    /// Rows in the body.
    pub rows: u32,
    /// Place in the generation, from 0.
    pub ordinal: u32,
    /// Which rewriting of the table partition this belongs to.
    pub generation: u64,
    /// When the source was read, microseconds since 1970.
    pub snapshot_us: i64,
    /// When the source changed the table partition last before that.
    pub last_modified_us: i64,
    /// When the source lets the table partition expire.
    pub expires_us: Option<i64>,
    /// `creationTime` of the table, milliseconds since 1970.
    pub table_created_ms: i64,
    /// Sum of the row hashes of the body, and its rows.
    pub digest: Digest,
    /// Version of the row hash.
    pub digest_version: u32,
    /// Names the recorded table resource.
    pub schema_hash: u128,
    /// Length of the body uncompressed.
    pub raw_bytes: u64,
    /// Length of the body.
    pub body_bytes: u64,
    /// XXH3-64 of the body.
    pub body_xxh3: u64,
    /// Id of the key that the body is sealed with; lengths and hashes here are those of the body before that.
    pub key_id: Option<[u8; KEY_ID_BYTES]>,
    /// `dataset.table`.
    pub table: String,
    /// `id` of the table resource.
    pub table_id: String,
    /// Table partition or window, as in the key.
    pub table_partition: String,
}

impl Header {
    /// Returns the bytes of the header; the body follows them in the same value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let names = [&self.table, &self.table_id, &self.table_partition];
        let key_id = self.key_id.as_ref().map_or(&[][..], |id| &id[..]);
        let names_bytes = names.iter().map(|name| 4 + name.len()).sum::<usize>();
        let total = FIXED_BYTES + key_id.len() + names_bytes + CHECK_BYTES;
        let version = if self.key_id.is_some() { VERSION_SEALED } else { VERSION };
        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&version.to_le_bytes());
        out.push(self.codec);
        out.push(u8::from(self.is_last) * FLAG_LAST);
        out.extend_from_slice(&length(total));
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.ordinal.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.snapshot_us.to_le_bytes());
        out.extend_from_slice(&self.last_modified_us.to_le_bytes());
        out.extend_from_slice(&self.expires_us.unwrap_or(NEVER).to_le_bytes());
        out.extend_from_slice(&self.table_created_ms.to_le_bytes());
        out.extend_from_slice(&self.digest.sum.to_le_bytes());
        out.extend_from_slice(&self.digest.count.to_le_bytes());
        out.extend_from_slice(&u64::from(self.digest_version).to_le_bytes());
        out.extend_from_slice(&self.schema_hash.to_le_bytes());
        out.extend_from_slice(&self.raw_bytes.to_le_bytes());
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&self.body_xxh3.to_le_bytes());
        out.extend_from_slice(key_id);
        for name in names {
            out.extend_from_slice(&length(name.len()));
            out.extend_from_slice(name.as_bytes());
        }
        let check = xxh3_64(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads the header at the start of a value and returns it with its length.
    pub fn parse(value: &[u8]) -> Result<(Self, usize), BlockError> {
        if value.len() < PREFIX_BYTES || value[..8] != MAGIC {
            return Err(BlockError::NotABlock);
        }
        let mut reader = Reader { bytes: value, at: 8 };
        let version = u16::from_le_bytes(reader.take()?);
        if version != VERSION && version != VERSION_SEALED {
            return Err(BlockError::UnknownVersion { version });
        }
        let [codec, flags] = reader.take()?;
        let total = u32::from_le_bytes(reader.take()?) as usize;
        let checked = total.checked_sub(CHECK_BYTES).filter(|checked| *checked >= FIXED_BYTES);
        let (Some(checked), Some(header)) = (checked, value.get(..total)) else {
            return Err(BlockError::HeaderAltered);
        };
        if xxh3_64(&header[..checked]).to_le_bytes() != header[checked..] {
            return Err(BlockError::HeaderAltered);
        }
        let mut reader = Reader { bytes: &header[..checked], at: PREFIX_BYTES };
        let is_sealed = version == VERSION_SEALED;
        let parsed = Self::fields(&mut reader, codec, flags & FLAG_LAST != 0, is_sealed)?;
        if reader.at != checked || flags > FLAG_LAST {
            return Err(BlockError::HeaderAltered);
        }
        if codec != CODEC_ZSTD_ARROW {
            return Err(BlockError::UnknownCodec { codec });
        }
        Ok((parsed, total))
    }

    /// Struct fields are evaluated in the order they are written here, which is that of the bytes.
    fn fields(
        reader: &mut Reader<'_>,
        codec: u8,
        is_last: bool,
        is_sealed: bool,
    ) -> Result<Self, BlockError> {
        Ok(Self {
            codec,
            is_last,
            rows: u32::from_le_bytes(reader.take()?),
            ordinal: u32::from_le_bytes(reader.take()?),
            generation: u64::from_le_bytes(reader.take()?),
            snapshot_us: i64::from_le_bytes(reader.take()?),
            last_modified_us: i64::from_le_bytes(reader.take()?),
            expires_us: Some(i64::from_le_bytes(reader.take()?)).filter(|at| *at != NEVER),
            table_created_ms: i64::from_le_bytes(reader.take()?),
            digest: Digest {
                sum: u128::from_le_bytes(reader.take()?),
                count: u64::from_le_bytes(reader.take()?),
            },
            digest_version: u32::try_from(u64::from_le_bytes(reader.take()?))
                .map_err(|_| BlockError::HeaderAltered)?,
            schema_hash: u128::from_le_bytes(reader.take()?),
            raw_bytes: u64::from_le_bytes(reader.take()?),
            body_bytes: u64::from_le_bytes(reader.take()?),
            body_xxh3: u64::from_le_bytes(reader.take()?),
            key_id: if is_sealed { Some(reader.take()?) } else { None },
            table: reader.name()?,
            table_id: reader.name()?,
            table_partition: reader.name()?,
        })
    }

    /// Returns whether the digest of this block can be compared with one that this program makes.
    pub fn is_digest_comparable(&self) -> bool {
        self.digest_version == DIGEST_VERSION
    }
}

/// Names are bounded by BigQuery far below this range.
#[expect(clippy::cast_possible_truncation, reason = "a header is a few hundred bytes")]
fn length(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let taken = self.bytes.get(self.at..self.at + N).ok_or(BlockError::HeaderAltered)?;
        self.at += N;
        taken.try_into().map_err(|_| BlockError::HeaderAltered)
    }

    fn name(&mut self) -> Result<String, BlockError> {
        let bytes = u32::from_le_bytes(self.take()?) as usize;
        if bytes > NAME_BYTES_MAX {
            return Err(BlockError::HeaderAltered);
        }
        let taken = self.bytes.get(self.at..self.at + bytes).ok_or(BlockError::HeaderAltered)?;
        self.at += bytes;
        String::from_utf8(taken.to_vec()).map_err(|_| BlockError::HeaderAltered)
    }
}
