//! Documents of Redis' JSON module: what they hold of a JSON value, and the hash of what is given back.
//!
//! Invariant: a value is written only where every release of the module gives it back as the same value, after a restart
//! of its server too; whatever form that takes (spaces, escapes, order of members, `1.5` for `1.50`) has the same hash.

mod number;
#[cfg(test)]
mod tests;

use super::decode::Cursor;
use crate::text::write_json_string;
use number::Decimal;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Levels of objects and arrays that the module parses, the document itself included.
const DEPTH_MAX: usize = 127;

/// Seeds that keep kinds of values apart.
const WORD: u64 = 1;
const STRING: u64 = 2;
const NUMBER: u64 = 3;
const ARRAY: u64 = 4;
const MEMBER: u64 = 5;
const OBJECT: u64 = 6;

/// Why a document cannot hold a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHeld {
    /// A number that the module would change.
    Number,
    /// An object that names a member twice, of which the module keeps one.
    Twice,
    /// More levels than the module parses.
    Depth,
    /// Text that is not JSON, or a string that is not Unicode.
    Text,
}

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number that a document of redis would change (it holds whole numbers of 64 bits, and others of up to 15 digits); as_text carries it as a string, type \"json\" as it is",
            Self::Twice => "an object with two members of one name, of which a document of redis keeps one",
            Self::Depth => "more than 126 levels of objects and arrays, which a document of redis cannot hold",
            Self::Text => "no JSON, or a string that is not unicode",
        })
    }
}

/// Buffers for the documents of one batch; reused from row to row.
#[derive(Debug, Default)]
pub struct Documents {
    /// The value at hand, as its column writes it.
    pub(super) value: Vec<u8>,
    writer: Writer,
    hasher: DocumentHasher,
}

impl Documents {
    /// Appends the value at hand, which stands under a member of the document, in the form that is sent.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) -> Result<(), NotHeld> {
        self.writer.write(&self.value, out)
    }

    /// Returns the value hash of a document that was written.
    ///
    /// # Panics
    ///
    /// Where the text is no document that `RowValues::document` wrote.
    pub fn value_hash(&mut self, document: &[u8]) -> u64 {
        self.hasher.hash(document).expect("what was written is JSON")
    }
}

/// Hashes documents by what they say.
#[derive(Debug, Default)]
pub struct DocumentHasher {
    scratch: String,
    digits: Vec<u8>,
}

impl DocumentHasher {
    /// Returns the value hash of a document as Redis gives it back; `None` where it is none.
    pub fn hash(&mut self, text: &[u8]) -> Option<u64> {
        let mut cursor = Cursor::new(text).ok()?;
        let hash = self.value(&mut cursor, DEPTH_MAX)?;
        cursor.end().ok()?;
        Some(hash)
    }

    fn value(&mut self, cursor: &mut Cursor<'_>, levels: usize) -> Option<u64> {
        Some(match cursor.peek() {
            b'{' => self.object(cursor, levels.checked_sub(1)?)?,
            b'[' => self.array(cursor, levels.checked_sub(1)?)?,
            b'"' => {
                let text = cursor.string(&mut self.scratch).ok()?;
                xxh3_64_with_seed(text.as_bytes(), STRING)
            }
            b't' | b'f' | b'n' => xxh3_64_with_seed(word(cursor)?.as_bytes(), WORD),
            _ => {
                let number = Decimal::read(cursor.number().ok()?, &mut self.digits)?;
                number.hash(NUMBER)
            }
        })
    }

    /// A sum, because members have no order.
    fn object(&mut self, cursor: &mut Cursor<'_>, levels: usize) -> Option<u64> {
        cursor.expect(b'{').ok()?;
        let (mut sum, mut count) = (0_u64, 0_u64);
        while cursor.next(count == 0, b'}').ok()? {
            let name = xxh3_64(cursor.string(&mut self.scratch).ok()?.as_bytes());
            cursor.expect(b':').ok()?;
            sum = sum.wrapping_add(both(name, self.value(cursor, levels)?, MEMBER));
            count += 1;
        }
        Some(both(sum, count, OBJECT))
    }

    fn array(&mut self, cursor: &mut Cursor<'_>, levels: usize) -> Option<u64> {
        cursor.expect(b'[').ok()?;
        let (mut chain, mut count) = (0, 0_u64);
        while cursor.next(count == 0, b']').ok()? {
            chain = both(chain, self.value(cursor, levels)?, ARRAY);
            count += 1;
        }
        Some(both(chain, count, ARRAY))
    }
}

/// Hashes two hashes, in their order.
fn both(one: u64, other: u64, seed: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&one.to_le_bytes());
    bytes[8..].copy_from_slice(&other.to_le_bytes());
    xxh3_64_with_seed(&bytes, seed)
}

fn word(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    ["true", "false", "null"].into_iter().find(|word| cursor.eat_word(word))
}

/// Writes values that the module holds.
#[derive(Debug, Default)]
struct Writer {
    scratch: String,
    digits: Vec<u8>,
    /// Hashes of the names in the objects that are open.
    names: Vec<u64>,
}

impl Writer {
    fn write(&mut self, value: &[u8], out: &mut Vec<u8>) -> Result<(), NotHeld> {
        self.names.clear();
        let mut cursor = Cursor::new(value).map_err(not_json)?;
        // The document around it is a level too.
        self.value(&mut cursor, DEPTH_MAX - 1, out)?;
        cursor.end().map_err(not_json)
    }

    fn value(
        &mut self,
        cursor: &mut Cursor<'_>,
        levels: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NotHeld> {
        let within = || levels.checked_sub(1).ok_or(NotHeld::Depth);
        match cursor.peek() {
            b'{' => return self.object(cursor, within()?, out),
            b'[' => return self.array(cursor, within()?, out),
            b'"' => {
                let text = cursor.string(&mut self.scratch).map_err(not_json)?;
                write_json_string(text.as_bytes(), out);
            }
            b't' | b'f' | b'n' => {
                out.extend_from_slice(word(cursor).ok_or(NotHeld::Text)?.as_bytes());
            }
            _ => {
                let text = cursor.number().map_err(not_json)?;
                let number = Decimal::read(text, &mut self.digits).ok_or(NotHeld::Number)?;
                number.write(out).ok_or(NotHeld::Number)?;
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        cursor: &mut Cursor<'_>,
        levels: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NotHeld> {
        cursor.expect(b'{').map_err(not_json)?;
        out.push(b'{');
        let before = self.names.len();
        let mut is_first = true;
        while cursor.next(is_first, b'}').map_err(not_json)? {
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            let name = cursor.string(&mut self.scratch).map_err(not_json)?.as_bytes();
            self.names.push(xxh3_64(name));
            write_json_string(name, out);
            cursor.expect(b':').map_err(not_json)?;
            out.push(b':');
            self.value(cursor, levels, out)?;
        }
        out.push(b'}');
        let names = &mut self.names[before..];
        names.sort_unstable();
        let is_twice = names.windows(2).any(|pair| pair[0] == pair[1]);
        self.names.truncate(before);
        if is_twice { Err(NotHeld::Twice) } else { Ok(()) }
    }

    fn array(
        &mut self,
        cursor: &mut Cursor<'_>,
        levels: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NotHeld> {
        cursor.expect(b'[').map_err(not_json)?;
        out.push(b'[');
        let mut is_first = true;
        while cursor.next(is_first, b']').map_err(not_json)? {
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            self.value(cursor, levels, out)?;
        }
        out.push(b']');
        Ok(())
    }
}

fn not_json(_: &'static str) -> NotHeld {
    NotHeld::Text
}
