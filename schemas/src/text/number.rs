//! Floating point numbers as text.
//!
//! Invariant: parsing the text gives the same bits back (every NaN counts as one value); the choice
//! between plain and exponent form is that of PostgreSQL 15 with `extra_float_digits = 1`
//! (`src/common/d2s.c` and `f2s.c`: plain while -4 <= exponent < `DBL_DIG`, `FLT_DIG` respectively).
//! Where the shortest text is half-way between two floats PostgreSQL prints one digit more; we do not.

use super::write_integer;

/// Exponents from here on are printed in exponent form (`DBL_DIG`).
const FLOAT8_PLAIN_EXPONENTS: i32 = 15;
/// Exponents from here on are printed in exponent form (`FLT_DIG`).
const FLOAT4_PLAIN_EXPONENTS: i32 = 6;

/// Appends a `float8` in its shortest round-trip form.
pub fn write_float8(value: f64, out: &mut Vec<u8>) {
    if write_special(value, out) {
        return;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked by the comparison that follows")]
    let whole = value as i64;
    #[expect(clippy::float_cmp, reason = "exact integers are wanted")]
    if whole != 0 && value.abs() < 1e15 && whole as f64 == value {
        write_integer(whole, out);
        return;
    }
    write_shortest(zmij::Buffer::new().format_finite(value), FLOAT8_PLAIN_EXPONENTS, out);
}

/// Appends a `float4` in its shortest round-trip form.
pub fn write_float4(value: f32, out: &mut Vec<u8>) {
    if write_special(f64::from(value), out) {
        return;
    }
    write_shortest(zmij::Buffer::new().format_finite(value), FLOAT4_PLAIN_EXPONENTS, out);
}

/// Appends zeros, NaN and infinities; returns whether the value was one of them.
fn write_special(value: f64, out: &mut Vec<u8>) -> bool {
    let text: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value.is_infinite() {
        if value > 0.0 { b"Infinity" } else { b"-Infinity" }
    } else if value == 0.0 {
        if value.is_sign_negative() { b"-0" } else { b"0" }
    } else {
        return false;
    };
    out.extend_from_slice(text);
    true
}

/// Lays the shortest digits of a non-zero finite number out as PostgreSQL does.
fn write_shortest(shortest: &str, plain_exponents: i32, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 32];
    let number = Decimal::of(shortest, &mut digits);
    if number.is_negative {
        out.push(b'-');
    }
    let (digits, exponent) = (number.digits, number.exponent);
    if !(-4..plain_exponents).contains(&exponent) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let exponent = exponent.unsigned_abs();
        if exponent < 10 {
            out.push(b'0');
        }
        write_integer(exponent, out);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend((1..exponent.unsigned_abs()).map(|_| b'0'));
        out.extend_from_slice(digits);
    } else {
        let whole = exponent.unsigned_abs() as usize + 1;
        if digits.len() <= whole {
            out.extend_from_slice(digits);
            out.extend((digits.len()..whole).map(|_| b'0'));
        } else {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// Significant digits without leading or trailing zeros: `d.ddd x 10^exponent`.
struct Decimal<'a> {
    is_negative: bool,
    digits: &'a [u8],
    exponent: i32,
}

impl<'a> Decimal<'a> {
    /// Reads `[-]digits[.digits][e[+-]digits]` of a non-zero number.
    fn of(text: &str, buffer: &'a mut [u8; 32]) -> Self {
        let (mut len, mut point, mut exponent) = (0, None, 0_i32);
        // The position of the first digit that is not zero, counted in digits from the left.
        let (mut seen, mut leading) = (0_i32, 0_i32);
        let mut bytes = text.as_bytes();
        let is_negative = bytes.first() == Some(&b'-');
        bytes = &bytes[usize::from(is_negative)..];
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    if len > 0 || *byte != b'0' {
                        buffer[len] = *byte;
                        len += 1;
                    } else {
                        leading += 1;
                    }
                    seen += 1;
                }
                b'.' => point = Some(seen),
                _ => {
                    exponent = text[usize::from(is_negative) + at + 1..].parse().unwrap_or(0);
                    break;
                }
            }
        }
        let exponent = exponent + point.unwrap_or(seen) - leading - 1;
        while len > 1 && buffer[len - 1] == b'0' {
            len -= 1;
        }
        Self { is_negative, digits: &buffer[..len], exponent }
    }
}
