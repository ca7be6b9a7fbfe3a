//! Frames of a ledger file: one per batch, checksummed and compressed.
//!
//! Layout, little-endian: magic `RKL1` (4 bytes), rows u32, raw length u32, body length u32, low half of the
//! xxh3-64 of these 16 bytes (4 bytes), xxh3-64 of the body (8 bytes), body. The body is zstd of: key lengths u32 x rows, value hashes u64 x rows, expiries i64 x
//! rows (ms since 1970, 0 = never), keys. With the magic `RKL2`, versions i64 x rows follow the expiries.
//!
//! Invariant: a frame is read whole with a matching checksum, or not at all.

use super::{damaged, io_error, refused};
use schemas::key::key_hash;
use schemas::zstd_frame::{compress, decompress};
use stages::{Encoded, Error, Kind, Result};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 4] = *b"RKL1";
/// Of a frame whose entries have versions.
const MAGIC_VERSIONED: [u8; 4] = *b"RKL2";
const HEADER_BYTES: usize = 28;
/// A batch is far smaller; anything above it is damage and must not be allocated.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Decoded entries of one batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Frame {
    keys: Vec<u8>,
    entries: Vec<(usize, u64, i64)>,
    /// One per entry, or none at all.
    versions: Vec<i64>,
}

impl Frame {
    /// Adds an entry with its version; a frame has versions for all of its entries or for none.
    pub fn push_version(&mut self, key: &[u8], hash: u64, expires_ms: i64, version: i64) {
        self.push(key, hash, expires_ms);
        self.versions.push(version);
    }

    /// Returns the version of an entry; `None` where the frame has none.
    pub fn version(&self, index: usize) -> Option<i64> {
        self.versions.get(index).copied()
    }

    /// Iterates over `(key, value hash, expiry in ms or 0)` in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64, i64)> {
        let mut start = 0;
        self.entries.iter().map(move |&(end, hash, expires_ms)| {
            let key = &self.keys[start..end];
            start = end;
            (key, hash, expires_ms)
        })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry.
    pub fn push(&mut self, key: &[u8], hash: u64, expires_ms: i64) {
        self.keys.extend_from_slice(key);
        self.entries.push((self.keys.len(), hash, expires_ms));
    }

    /// Returns the entries whose keys are not among these.
    fn without(&self, refused: &HashSet<u128>) -> Self {
        let mut rest = Self::default();
        for (index, (key, hash, expires_ms)) in self.iter().enumerate() {
            if !refused.contains(&key_hash(key)) {
                rest.push(key, hash, expires_ms);
                rest.versions.extend(self.version(index));
            }
        }
        rest
    }

    /// Encodes and empties the frame.
    pub fn take_encoded(&mut self) -> Result<Vec<u8>> {
        let frame = std::mem::take(self);
        encode(frame.iter(), frame.len(), frame.keys.len(), &frame.versions)
    }
}

/// Encodes the entries of a batch; empty when it has none.
pub fn encode_frame(batch: &Encoded) -> Result<Vec<u8>> {
    let entries = batch.keyed().map(|(key, entry)| (key, entry.value_hash, entry.expires_ms));
    encode(entries, batch.entries.len(), batch.keys.len(), &batch.versions)
}

fn encode<'a>(
    entries: impl Iterator<Item = (&'a [u8], u64, i64)>,
    rows: usize,
    key_bytes: usize,
    versions: &[i64],
) -> Result<Vec<u8>> {
    if rows == 0 {
        return Ok(Vec::new());
    }
    let magic = if versions.is_empty() { MAGIC } else { MAGIC_VERSIONED };
    if !versions.is_empty() && versions.len() != rows {
        return Err(Error::new(Kind::Internal, "a batch has versions for some entries only"));
    }
    let fixed = rows * fixed_bytes(magic);
    let raw_length = fixed + key_bytes;
    let mut raw = vec![0; fixed];
    raw.reserve(key_bytes);
    for (index, version) in versions.iter().enumerate() {
        put(&mut raw, rows * 20 + index * 8, &version.to_le_bytes());
    }
    for (index, (key, hash, expires_ms)) in entries.enumerate() {
        put(&mut raw, index * 4, &length(key.len())?.to_le_bytes());
        put(&mut raw, rows * 4 + index * 8, &hash.to_le_bytes());
        put(&mut raw, rows * 12 + index * 8, &expires_ms.to_le_bytes());
        raw.extend_from_slice(key);
    }
    let body = compress(&raw).map_err(|error| {
        Error::new(Kind::Internal, "cannot compress the ledger").with_source(error)
    })?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&magic);
    frame.extend_from_slice(&length(rows)?.to_le_bytes());
    frame.extend_from_slice(&length(raw_length)?.to_le_bytes());
    frame.extend_from_slice(&length(body.len())?.to_le_bytes());
    // A damaged length must not look like a torn last frame.
    let header_checksum = checksum_of_header(&frame);
    frame.extend_from_slice(&header_checksum.to_le_bytes());
    frame.extend_from_slice(&xxh3_64(&body).to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Bytes of an entry beside its key.
fn fixed_bytes(magic: [u8; 4]) -> usize {
    if magic == MAGIC_VERSIONED { 28 } else { 20 }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is enough for 16 bytes")]
fn checksum_of_header(fields: &[u8]) -> u32 {
    xxh3_64(fields) as u32
}

fn put(raw: &mut [u8], at: usize, bytes: &[u8]) {
    raw[at..at + bytes.len()].copy_from_slice(bytes);
}

fn length(length: usize) -> Result<u32> {
    u32::try_from(length)
        .map_err(|_| Error::new(Kind::Internal, "a batch is too large for the ledger"))
}

/// Reads the frames of one file.
#[derive(Debug)]
pub struct FrameReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Bytes of whole frames read so far.
    whole: u64,
    /// Whether damage ends the file instead of being an error.
    ends_at_damage: bool,
    /// Hashes of keys that never arrived.
    refused: HashSet<u128>,
}

impl FrameReader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| io_error("open", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(256 * 1024, file),
            whole: 0,
            ends_at_damage: false,
            refused: refused::of(path)?,
        })
    }

    /// Returns the next frame; `None` at the end or at a torn last frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some((header, body)) = self.next_body()? else { return Ok(None) };
        let raw = decompress(&body, header.raw_length).map_err(|error| {
            damaged(&self.path, &format!("a frame does not decompress: {error}"))
        })?;
        let frame = decode(&raw, &header)
            .ok_or_else(|| damaged(&self.path, "a frame has inconsistent lengths"))?;
        Ok(Some(if self.refused.is_empty() { frame } else { frame.without(&self.refused) }))
    }

    /// Bytes of the frames read so far.
    pub fn bytes_read(&self) -> u64 {
        self.whole
    }

    /// Passes over the next frame and returns its number of entries; `None` as in `next_frame`.
    pub fn skip_frame(&mut self) -> Result<Option<usize>> {
        Ok(self.next_body()?.map(|(header, _)| header.rows))
    }

    fn next_body(&mut self) -> Result<Option<(Header, Vec<u8>)>> {
        let mut bytes = [0; HEADER_BYTES];
        let got = self.fill(&mut bytes)?;
        if got < HEADER_BYTES {
            return Ok(None);
        }
        let Some(header) = Header::parse(&bytes) else {
            return self.damage("a frame has no valid header");
        };
        // A length is believed no further than the file reaches.
        let mut body = Vec::with_capacity(header.body_length.min(1 << 20));
        let taken = (&mut self.file).take(header.body_length as u64).read_to_end(&mut body);
        taken.map_err(|error| io_error("read", &self.path, error))?;
        if body.len() < header.body_length {
            return Ok(None);
        }
        if xxh3_64(&body) != header.checksum {
            // A torn write can leave the length right and the bytes wrong, but only at the very end.
            let mut rest = [0; 1];
            if self.fill(&mut rest)? == 0 {
                return Ok(None);
            }
            return self.damage("a frame has a wrong checksum");
        }
        self.whole += (HEADER_BYTES + body.len()) as u64;
        Ok(Some((header, body)))
    }

    fn damage<T>(&self, what: &str) -> Result<Option<T>> {
        if self.ends_at_damage { Ok(None) } else { Err(damaged(&self.path, what)) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(read) => got += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path, error)),
            }
        }
        Ok(got)
    }
}

/// Returns the length of the whole frames of a file.
pub(super) fn whole_length(path: &Path) -> Result<u64> {
    let mut reader = FrameReader::open(path)?;
    // After a power loss the tail may hold anything; the caller knows how much must be whole.
    reader.ends_at_damage = true;
    while reader.next_body()?.is_some() {}
    Ok(reader.whole)
}

struct Header {
    magic: [u8; 4],
    rows: usize,
    raw_length: usize,
    body_length: usize,
    checksum: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            bytes.get(at..at + 4)?.try_into().ok().map(|four| u32::from_le_bytes(four) as usize)
        };
        let header = Self {
            magic: bytes.get(..4)?.try_into().ok()?,
            rows: number(4)?,
            raw_length: number(8)?,
            body_length: number(12)?,
            checksum: u64::from_le_bytes(bytes.get(20..28)?.try_into().ok()?),
        };
        let is_sane = [MAGIC, MAGIC_VERSIONED].contains(&header.magic)
            && number(16)? == checksum_of_header(bytes.get(..16)?) as usize
            && header.body_length <= BODY_BYTES_MAX
            && header.raw_length <= BODY_BYTES_MAX
            && header.rows * fixed_bytes(header.magic) <= header.raw_length;
        is_sane.then_some(header)
    }
}

fn decode(raw: &[u8], header: &Header) -> Option<Frame> {
    let rows = header.rows;
    let eight = |at: usize| raw.get(at..at + 8)?.try_into().ok();
    let mut entries = Vec::with_capacity(rows);
    let mut end = 0;
    for index in 0..rows {
        let four = raw.get(index * 4..index * 4 + 4)?.try_into().ok()?;
        end += u32::from_le_bytes(four) as usize;
        let hash = u64::from_le_bytes(eight(rows * 4 + index * 8)?);
        let expires_ms = i64::from_le_bytes(eight(rows * 12 + index * 8)?);
        entries.push((end, hash, expires_ms));
    }
    let fixed = fixed_bytes(header.magic);
    let versions: Vec<i64> = (0..if fixed > 20 { rows } else { 0 })
        .map(|index| Some(i64::from_le_bytes(eight(rows * 20 + index * 8)?)))
        .collect::<Option<_>>()?;
    let keys = raw.get(rows * fixed..)?.to_vec();
    (keys.len() == end).then_some(Frame { keys, entries, versions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sample(rows: u64) -> Frame {
        let mut frame = Frame::default();
        for row in 0..rows {
            frame.push(format!("build:{row}").as_bytes(), row * 7, i64::try_from(row).unwrap() - 1);
        }
        frame
    }

    fn read_all(path: &Path) -> Result<Vec<Frame>> {
        let mut reader = FrameReader::open(path)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_written_is_read_back_and_a_torn_tail_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ledger");
        let (first, second) = (sample(1000), sample(3));
        let one = first.clone().take_encoded().unwrap();
        let two = second.clone().take_encoded().unwrap();
        for cut in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, two.len() - 1] {
            let mut file = File::create(&path).unwrap();
            file.write_all(&one).unwrap();
            file.write_all(&two[..cut]).unwrap();
            assert_eq!(read_all(&path).unwrap(), vec![first.clone()], "cut at {cut}");
            assert_eq!(whole_length(&path).unwrap(), one.len() as u64);
        }
        std::fs::write(&path, [one, two].concat()).unwrap();
        assert_eq!(read_all(&path).unwrap(), vec![first, second]);
    }

    #[test]
    fn damage_before_the_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ledger");
        let one = sample(10).take_encoded().unwrap();
        for at in [0, 5, 9, 13, 17, 20, HEADER_BYTES + 2] {
            let mut bytes = [one.clone(), one.clone()].concat();
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            assert!(read_all(&path).is_err(), "a flipped byte at {at} went unnoticed");
            assert_eq!(whole_length(&path).unwrap(), 0, "damage at {at} counts as whole");
        }
    }

    #[test]
    fn versions_are_read_back_beside_frames_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ledger");
        let mut versioned = Frame::default();
        for (row, version) in [(1_u64, i64::MIN), (2, -1), (3, i64::MAX)] {
            versioned.push_version(format!("k{row}").as_bytes(), row, 0, version);
        }
        let plain = sample(2);
        let frames = [plain.clone(), versioned.clone()];
        let bytes = frames.clone().map(|mut frame| frame.take_encoded().unwrap()).concat();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_all(&path).unwrap(), frames);
        assert_eq!((versioned.version(1), plain.version(1)), (Some(-1), None));
        versioned.push(b"k4", 4, 0);
        assert!(versioned.take_encoded().is_err());
    }

    #[test]
    fn an_empty_batch_leaves_no_frame() {
        assert!(Frame::default().take_encoded().unwrap().is_empty());
    }
}
