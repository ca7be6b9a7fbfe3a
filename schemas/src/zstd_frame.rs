//! zstd frames of blocks and ledgers.
//!
//! Invariant: each thread keeps one context per direction, because making one costs as much as a small frame; no frame
//! depends on another, nor on which thread made it.

use std::cell::RefCell;
use std::io::{self, Read};
use zstd::bulk::{Compressor, Decompressor};

/// Level 1 halves the time of level 3 for a few percent of space; keys compress about fourfold, hashes not at all.
const LEVEL: i32 = 1;
/// Room that is made at once for what a frame holds; one that is larger has to show by its bytes that it is.
const ROOM_PER_BYTE: usize = 256;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses bytes into one frame.
pub fn compress(raw: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(raw)
    })
}

/// Decompresses a frame that is said to hold `raw_bytes`; what it holds may be less, or one byte more.
pub fn decompress(frame: &[u8], raw_bytes: usize) -> io::Result<Vec<u8>> {
    if raw_bytes <= frame.len().saturating_mul(ROOM_PER_BYTE) {
        return DECOMPRESSOR.with_borrow_mut(|kept| {
            let decompressor = match kept {
                Some(decompressor) => decompressor,
                None => kept.insert(Decompressor::new()?),
            };
            decompressor.decompress(frame, raw_bytes)
        });
    }
    let mut raw = Vec::new();
    // One byte more than the header says tells that there are more.
    zstd::Decoder::new(frame)?.take(raw_bytes as u64 + 1).read_to_end(&mut raw)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_as_good_as_new_after_a_frame_that_was_damaged() {
        let raw: Vec<u8> = (0..100_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let frame = compress(&raw).unwrap();
        for at in 0..frame.len().min(200) {
            let mut damaged = frame.clone();
            damaged[at] ^= 0xff;
            // It has no checksum of its own, so damage may pass; what comes after it is read the same as ever.
            decompress(&damaged, raw.len()).ok();
            assert!(decompress(&frame[..at.max(1)], raw.len()).is_err());
            assert_eq!(decompress(&frame, raw.len()).unwrap(), raw, "after damage at {at}");
        }
        assert!(decompress(&frame, raw.len() - 1).is_err());
        assert_eq!(compress(&raw).unwrap(), frame);
    }
}
