//! The checksum of a file of rejected rows, in its footer: damage is found before the decoder of Parquet meets it.
//!
//! Invariant: XXH3-64 of the whole file with the digits of the checksum as zeros. Format: a key and value of the footer
//! (Parquet format, `FileMetaData.key_value_metadata`), whose value always has 16 hex digits.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::Xxh3;

/// Name of the key.
pub(super) const KEY: &str = "rekindle.xxh3";
/// What stands for the digits until they are known.
pub(super) const BLANK: &str = "0000000000000000";

/// The length of the footer, and the magic.
const TAIL_BYTES: usize = 8;
const MAGIC: &[u8] = b"PAR1";
/// A footer that is longer is none of ours.
const FOOTER_BYTES_MAX: u64 = 64 << 20;
/// Stands between key and digits in the compact protocol of Thrift: the next field is a string, and of 16 bytes.
const BETWEEN: [u8; 2] = [0x18, 16];
const PIECE_BYTES: usize = 64 << 10;

/// Puts the checksum into a file that was written with a blank one.
pub(super) fn close(file: &File) -> io::Result<()> {
    let place = place(file)?.ok_or(io::ErrorKind::InvalidData)?;
    let digits = format!("{:016x}", sum(file, place)?);
    file.write_all_at(digits.as_bytes(), place)
}

/// Whether a file has a checksum and is as it was closed.
pub(super) fn holds(file: &File) -> io::Result<bool> {
    let Some(place) = place(file)? else { return Ok(false) };
    let mut digits = [0; BLANK.len()];
    file.read_exact_at(&mut digits, place)?;
    Ok(digits == *format!("{:016x}", sum(file, place)?).as_bytes())
}

/// Where the digits are; `None` where there are none.
fn place(file: &File) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    let Some(tail_at) = length.checked_sub(TAIL_BYTES as u64) else { return Ok(None) };
    let mut tail = [0; TAIL_BYTES];
    file.read_exact_at(&mut tail, tail_at)?;
    let (footer_bytes, magic) = tail.split_at(4);
    let footer_bytes = u64::from(u32::from_le_bytes(footer_bytes.try_into().unwrap_or_default()));
    let footer_at = tail_at.checked_sub(footer_bytes).filter(|_| footer_bytes <= FOOTER_BYTES_MAX);
    let Some(footer_at) = footer_at.filter(|_| magic == MAGIC) else { return Ok(None) };
    let mut footer = vec![0; usize::try_from(footer_bytes).unwrap_or(0)];
    file.read_exact_at(&mut footer, footer_at)?;
    let marker = [KEY.as_bytes(), &BETWEEN].concat();
    let found =
        footer.windows(marker.len() + BLANK.len()).rposition(|bytes| bytes.starts_with(&marker));
    Ok(found.map(|at| footer_at + (at + marker.len()) as u64))
}

/// Sums up a file as if its digits were blank.
fn sum(file: &File, digits_at: u64) -> io::Result<u64> {
    let mut sum = Xxh3::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let read = match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(sum.digest()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for (offset, byte) in (at..).zip(&mut piece[..read]) {
            if (digits_at..digits_at + BLANK.len() as u64).contains(&offset) {
                *byte = b'0';
            }
        }
        sum.update(&piece[..read]);
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn every_altered_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["a", "b"]));
        let names = [file::REASON, file::ROUTE, file::PARTITION, file::PLAN];
        let columns = names.map(|name| (name, Arc::clone(&texts)));
        file::write(&path, &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let whole = fs::read(&path).unwrap();
        let holds = || holds(&File::open(&path).unwrap()).unwrap();
        assert!(holds());
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&path, &altered).unwrap();
            assert!(!holds(), "byte {at} of {}", whole.len());
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(!holds(), "cut to {length}");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(!holds());
        fs::write(&path, &whole).unwrap();
        assert!(holds());
    }
}
