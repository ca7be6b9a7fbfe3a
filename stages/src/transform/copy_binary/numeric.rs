//! PostgreSQL's binary `numeric` as PostgreSQL's text.
//!
//! Invariant: the text is the one that `numeric_out` prints, trailing zeros of the scale included. The
//! format is that of `numeric_send` in `src/backend/utils/adt/numeric.c`: four int16 (digit count, weight
//! of the first digit in powers of 10000, sign, display scale), then the base-10000 digits.

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;
/// `NUMERIC_DSCALE_MASK`: the largest display scale.
const SCALE_MAX: u16 = 0x3fff;
/// `NUMERIC_WEIGHT_MAX` of the on-disk format is below the int16 range; the wire allows all of it.
const BASE: u16 = 10_000;

/// Appends the text of a value; on error `out` is as before.
pub(super) fn write_text(field: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const BROKEN: &str = "the numeric is malformed";
    let (header, digits) = field.split_first_chunk::<8>().ok_or(BROKEN)?;
    let [count_0, count_1, weight_0, weight_1, sign_0, sign_1, scale_0, scale_1] = *header;
    let count = u16::from_be_bytes([count_0, count_1]);
    let weight = i32::from(i16::from_be_bytes([weight_0, weight_1]));
    let scale = u16::from_be_bytes([scale_0, scale_1]);
    let (digits, rest) = digits.as_chunks::<2>();
    if digits.len() != usize::from(count) || !rest.is_empty() {
        return Err(BROKEN);
    }
    let is_negative = match u16::from_be_bytes([sign_0, sign_1]) {
        0 => false,
        NEGATIVE => true,
        special => {
            let text: &[u8] = match special {
                NAN => b"NaN",
                INFINITY => b"Infinity",
                NEGATIVE_INFINITY => b"-Infinity",
                _ => return Err(BROKEN),
            };
            out.extend_from_slice(text);
            return Ok(());
        }
    };
    if scale > SCALE_MAX || digits.iter().any(|digit| u16::from_be_bytes(*digit) >= BASE) {
        return Err(BROKEN);
    }
    // The digit with weight `w` stands at `weight - w`; those that are not sent are zero.
    let digit = |at: i32| {
        let sent = usize::try_from(at).ok().and_then(|at| digits.get(at));
        sent.map_or(0, |digit| u16::from_be_bytes(*digit))
    };
    if is_negative {
        out.push(b'-');
    }
    if weight < 0 {
        out.push(b'0');
    } else {
        let first = four_digits(digit(0));
        let leading = first.iter().take(3).take_while(|digit| **digit == b'0').count();
        out.extend_from_slice(&first[leading..]);
        for at in 1..=weight {
            out.extend_from_slice(&four_digits(digit(at)));
        }
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(scale);
        let mut at = weight + 1;
        while out.len() < end {
            out.extend_from_slice(&four_digits(digit(at)));
            at += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

#[inline]
fn four_digits(value: u16) -> [u8; 4] {
    let ascii = |digit: u16| digit.to_le_bytes()[0] + b'0';
    [ascii(value / 1000), ascii(value / 100 % 10), ascii(value / 10 % 10), ascii(value % 10)]
}
