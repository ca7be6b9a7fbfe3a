//! The one way to read arrow IPC messages that somebody else wrote, and to put together those that are written.
//!
//! Invariant: a length that cannot be true is refused before anything is allocated for it, and what the arrow reader
//! asserts instead of reporting is an error. Format: the Arrow columnar format, "Serialization and IPC".

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{RecordBatch as BatchMessage, root_as_message};
use arrow::record_batch::RecordBatch;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Stands before the length of a message since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// No byte of an LZ4 frame stands for more (LZ4 block format: a byte adds at most 255 to a match).
const LZ4_RATIO_MAX: usize = 255;

/// Returns the bytes that an encoder gives in pieces.
pub fn joined(pieces: &[Buffer]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pieces.iter().map(Buffer::len).sum());
    for piece in pieces {
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// Decodes up to the next batch. After an error the decoder is of no more use.
pub fn next(
    decoder: &mut StreamDecoder,
    buffer: &mut Buffer,
) -> Result<Option<RecordBatch>, ArrowError> {
    refuse_lies(buffer)?;
    catch_unwind(AssertUnwindSafe(|| decoder.decode(buffer))).unwrap_or_else(|_| {
        Err(ArrowError::IpcError("the lengths of a message contradict each other".to_owned()))
    })
}

/// Looks at the compressed buffers of whole messages; what is not whole or no message is left to the decoder.
fn refuse_lies(mut bytes: &[u8]) -> Result<(), ArrowError> {
    while let Some((metadata, rest)) = metadata(bytes) {
        let Ok(message) = root_as_message(metadata) else { break };
        let body = usize::try_from(message.bodyLength()).ok();
        let Some((body, rest)) = body.and_then(|length| rest.split_at_checked(length)) else {
            break;
        };
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        for batch in message.header_as_record_batch().into_iter().chain(dictionary) {
            refuse_lies_of(&batch, body)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// Returns the metadata of the first message, and what follows it.
fn metadata(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&CONTINUATION).unwrap_or(bytes);
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length > 0)?;
    rest.split_at_checked(length)
}

/// In front of a compressed buffer stands how long it is uncompressed; -1 says that it is not compressed.
fn refuse_lies_of(batch: &BatchMessage<'_>, body: &[u8]) -> Result<(), ArrowError> {
    if batch.compression().is_none() {
        return Ok(());
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let place =
            usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let stored = place.and_then(|(offset, length)| body.get(offset..)?.get(..length));
        let Some((told, stored)) = stored.and_then(<[u8]>::split_first_chunk) else { continue };
        let most = stored.len().saturating_mul(LZ4_RATIO_MAX);
        if usize::try_from(i64::from_le_bytes(*told)).is_ok_and(|told| told > most) {
            let message = "a compressed buffer says that it is larger than it can be";
            return Err(ArrowError::IpcError(message.to_owned()));
        }
    }
    Ok(())
}
