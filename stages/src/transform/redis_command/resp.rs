//! RESP2, the request side: arrays of bulk strings.
//!
//! Invariant: lengths are decimal without leading zeros, as Redis demands
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

/// The command that begins a transaction.
pub(crate) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// The command that ends one.
pub(crate) const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Appends the head of a command of `count` arguments.
#[inline]
pub(crate) fn write_array(count: usize, out: &mut Vec<u8>) {
    write_head(b'*', count, out);
}

/// Appends one argument.
#[inline]
pub(crate) fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    write_head(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends one argument that is a number.
pub(crate) fn write_integer(value: i64, out: &mut Vec<u8>) {
    let mut buffer = [0; 20];
    let mut at = digits(value.unsigned_abs(), &mut buffer);
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    write_bulk(&buffer[at..], out);
}

/// Short lengths are written as one fixed-size piece.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "each digit is below 10")]
fn write_head(kind: u8, count: usize, out: &mut Vec<u8>) {
    let digit = |value: usize| b'0' + (value % 10) as u8;
    match count {
        0..10 => out.extend_from_slice(&[kind, digit(count), b'\r', b'\n']),
        10..100 => {
            out.extend_from_slice(&[kind, digit(count / 10), digit(count), b'\r', b'\n']);
        }
        100..1000 => out.extend_from_slice(&[
            kind,
            digit(count / 100),
            digit(count / 10),
            digit(count),
            b'\r',
            b'\n',
        ]),
        _ => {
            let mut buffer = [0; 20];
            let at = digits(count as u64, &mut buffer);
            out.push(kind);
            out.extend_from_slice(&buffer[at..]);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Puts the decimal digits at the end of the buffer and returns where they start.
fn digits(mut value: u64, buffer: &mut [u8; 20]) -> usize {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return at;
        }
    }
}
