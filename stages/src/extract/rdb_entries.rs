//! Entries of an RDB file, parsed where they lie. It shares nothing with what writes them.
//!
//! Invariant: whatever the bytes, it neither panics nor allocates beyond them; what it does not know is refused by its place.
//! Format: the documentation of RDB version 10 and of listpacks (`rdb.h`, `listpack.c` of Redis 7.0).

use crate::error::{Error, Kind, Result};
use itoa::Buffer as IntegerText;
use schemas::BoundRoute;
use schemas::layout::{StoredHash, string_value_hash};
use schemas::plan::Layout;

/// One entry of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// When it expires, in milliseconds since 1970; 0 when it never does.
    pub expires_ms: i64,
    /// Its value.
    pub value: FileValue<'a>,
}

/// The value of an entry, not parsed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileValue<'a> {
    /// A string.
    Text(&'a [u8]),
    /// A hash as so many pairs of strings.
    Pairs(u64, &'a [u8]),
    /// A hash as one listpack.
    Listpack(&'a [u8]),
}

/// What stands in front of the first entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileHead {
    /// The version of the format.
    pub version: u32,
    /// What the file says of itself.
    pub facts: Vec<(String, String)>,
    /// The database of the keys.
    pub database: u64,
    /// Keys that follow.
    pub keys: u64,
    /// Those of them that expire.
    pub expiring: u64,
}

/// Reads bytes of a file from a place on.
#[derive(Debug)]
pub struct FileBytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> FileBytes<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Reads what stands in front of the first entry, up to the sizes of the database.
    pub fn head(&mut self) -> Result<FileHead> {
        let mut head = FileHead::default();
        let magic = self.take(9)?;
        let version = str::from_utf8(&magic[5..]).ok().and_then(|digits| digits.parse().ok());
        let (b"REDIS", Some(version)) = (&magic[..5], version) else {
            return Err(self.unsound("no file of Redis"));
        };
        head.version = version;
        loop {
            match self.byte()? {
                0xfa => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let (name, value) = (text(self.string()?), text(self.string()?));
                    head.facts.push((name, value));
                }
                0xfe => head.database = self.length()?,
                0xfb => {
                    (head.keys, head.expiring) = (self.length()?, self.length()?);
                    return Ok(head);
                }
                _ => return Err(self.unsound("something else than a head")),
            }
        }
    }

    /// Reads the next entry; `None` where the bytes end in front of it.
    #[inline]
    pub fn entry(&mut self) -> Result<Option<FileEntry<'a>>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let mut kind = self.byte()?;
        let mut expires_ms = 0;
        if kind == 0xfc {
            let bytes = self.take(8)?.try_into().map_err(|_| self.unsound("no expiry"))?;
            expires_ms = i64::from_le_bytes(bytes);
            kind = self.byte()?;
        }
        let key = self.string()?;
        let value = match kind {
            0 => FileValue::Text(self.string()?),
            4 => {
                let pairs = self.length()?;
                let start = self.at;
                for _ in 0..pairs {
                    self.string()?;
                    self.string()?;
                }
                FileValue::Pairs(pairs, &self.bytes[start..self.at])
            }
            16 => FileValue::Listpack(self.string()?),
            _ => return Err(self.unsound("an entry of an unknown type")),
        };
        Ok(Some(FileEntry { key, expires_ms, value }))
    }

    /// A length: 6, 14, 32 or 64 bits, as its first bits say.
    #[inline]
    fn length(&mut self) -> Result<u64> {
        let first = self.byte()?;
        Ok(match first {
            0..0x40 => first.into(),
            0x40..0x80 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            0x80 => self.big_endian(4)?,
            0x81 => self.big_endian(8)?,
            _ => return Err(self.unsound("a length that is none")),
        })
    }

    fn big_endian(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    #[inline]
    fn string(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.length()?);
        let length = length.map_err(|_| self.unsound("a string that is too long"))?;
        self.take(length)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.unsound("an end in the middle"))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.unsound("an end in the middle"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    #[cold]
    fn unsound(&self, what: &str) -> Error {
        Error::new(Kind::Difference, format!("{what}, {} bytes behind", self.at))
    }
}

/// Sums values up as the ledger does; buffers are reused.
#[derive(Debug)]
pub struct ValueHasher<'a> {
    layout: Layout,
    pairs: StoredHash<'a>,
}

impl<'a> ValueHasher<'a> {
    /// Makes one for the entries of a route.
    pub fn new(bound: &'a BoundRoute) -> Self {
        Self { layout: bound.route.layout, pairs: StoredHash::new(bound) }
    }

    /// Returns the hash of a value; `None` where it is of another type than the route makes.
    pub fn hash(&mut self, value: FileValue<'_>) -> Result<Option<u64>> {
        let is_hash = self.layout == Layout::Hash;
        match value {
            FileValue::Text(text) => return Ok((!is_hash).then(|| string_value_hash(text))),
            _ if !is_hash => return Ok(None),
            FileValue::Pairs(pairs, bytes) => {
                self.pairs.begin();
                let mut bytes = FileBytes::new(bytes);
                for _ in 0..pairs {
                    self.pairs.push(bytes.string()?, bytes.string()?);
                }
            }
            FileValue::Listpack(bytes) => {
                self.pairs.begin();
                let mut elements = Listpack::open(bytes)?;
                let (mut name_text, mut value_text) = (IntegerText::new(), IntegerText::new());
                while let Some(name) = elements.next(&mut name_text)? {
                    let value = elements.next(&mut value_text)?;
                    let value = value.ok_or_else(|| elements.unsound("a field without a value"))?;
                    self.pairs.push(name, value);
                }
            }
        }
        Ok(Some(self.pairs.value_hash()))
    }
}

/// The elements of a listpack.
struct Listpack<'a> {
    bytes: FileBytes<'a>,
    left: usize,
}

impl<'a> Listpack<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut inside = FileBytes::new(bytes);
        let head = inside.take(6)?;
        let total = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let left = usize::from(u16::from_le_bytes([head[4], head[5]]));
        if total as usize != bytes.len() {
            return Err(inside.unsound("a listpack of another length"));
        }
        Ok(Self { bytes: inside, left })
    }

    /// The next element; an integer as the text that it prints as.
    #[inline]
    fn next<'t>(&mut self, text: &'t mut IntegerText) -> Result<Option<&'t [u8]>>
    where
        'a: 't,
    {
        if self.left == 0 {
            let is_end = self.bytes.byte()? == 0xff && self.bytes.at == self.bytes.bytes.len();
            return if is_end { Ok(None) } else { Err(self.unsound("a listpack without its end")) };
        }
        self.left -= 1;
        let start = self.bytes.at;
        let first = self.bytes.byte()?;
        let element = match first {
            0..0x80 => text.format(first).as_bytes(),
            0x80..0xc0 => self.bytes.take(usize::from(first & 0x3f))?,
            0xc0..0xe0 => {
                let bits = i64::from(first & 0x1f) << 8 | i64::from(self.bytes.byte()?);
                // 13 bits in two's complement.
                text.format(if bits >= 1 << 12 { bits - (1 << 13) } else { bits }).as_bytes()
            }
            0xe0..0xf0 => {
                let length = usize::from(first & 0xf) << 8 | usize::from(self.bytes.byte()?);
                self.bytes.take(length)?
            }
            0xf0 => {
                let length = self.bytes.take(4)?;
                let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
                self.bytes.take(length as usize)?
            }
            0xf1..0xf5 => {
                let width = [2, 3, 4, 8][usize::from(first - 0xf1)];
                let bytes = self.bytes.take(width)?;
                let bits = bytes.iter().rev().fold(0, |bits, byte| bits << 8 | i64::from(*byte));
                let unused = 64 - 8 * width;
                text.format(bits << unused >> unused).as_bytes()
            }
            _ => return Err(self.unsound("an element of no listpack")),
        };
        self.back_length(self.bytes.at - start)?;
        Ok(Some(element))
    }

    /// Behind each element stands its length once more, in groups of 7 bits, the most significant first.
    #[inline]
    fn back_length(&mut self, length: usize) -> Result<()> {
        let groups = match length {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            0x4000..0x20_0000 => 3,
            0x20_0000..0x1000_0000 => 4,
            _ => 5,
        };
        let told = self.bytes.take(groups)?;
        let told = told.iter().fold(0, |told, byte| told << 7 | usize::from(byte & 0x7f));
        if told == length { Ok(()) } else { Err(self.unsound("an element of another length")) }
    }

    #[cold]
    fn unsound(&self, what: &str) -> Error {
        self.bytes.unsound(what)
    }
}
