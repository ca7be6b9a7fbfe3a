//! What stands before and behind the entries of an RDB file. Format: `rdb.c` of Redis 7.0 (`rdbSaveRio`).
//!
//! Invariant: a header is as long with the final numbers as with none, so the entries behind it can be written first.

/// Version of the format: Redis 7.0; later servers read it too, as does Valkey, and older ones refuse it.
pub(super) const VERSION: u16 = 10;
/// `RDB_OPCODE_AUX`, `_RESIZEDB`, `_SELECTDB`, `_EOF`.
const AUX: u8 = 0xfa;
const RESIZEDB: u8 = 0xfb;
const SELECTDB: u8 = 0xfe;
const EOF: u8 = 0xff;
/// A length of 64 bits follows, big-endian.
const LENGTH_64: u8 = 0x81;
const LENGTH_32: u8 = 0x80;

/// What a header says.
#[derive(Debug, Clone)]
pub(super) struct Header<'a> {
    /// The run that made the file.
    pub(super) run_id: &'a str,
    /// Seconds since 1970 that the file is said to be of.
    pub(super) created_s: i64,
    /// The database of the keys.
    pub(super) database: u32,
    /// Keys that follow, and those of them that expire.
    pub(super) keys: u64,
    pub(super) expiring: u64,
}

impl Header<'_> {
    /// Returns the bytes; their number depends on the run and the database alone.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = format!("REDIS{VERSION:04}").into_bytes();
        let created = format!("{:010}", self.created_s.clamp(0, 9_999_999_999));
        let facts = [
            ("redis-ver", "7.0.0"),
            ("redis-bits", "64"),
            ("ctime", &created),
            ("rekindle-run", self.run_id),
        ];
        for (name, value) in facts {
            out.push(AUX);
            write_short(name, &mut out);
            write_short(value, &mut out);
        }
        out.push(SELECTDB);
        out.push(LENGTH_32);
        out.extend_from_slice(&self.database.to_be_bytes());
        out.push(RESIZEDB);
        for number in [self.keys, self.expiring] {
            out.push(LENGTH_64);
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }
}

/// A string of at most 63 bytes: its length in 6 bits, and its bytes.
fn write_short(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() < 64);
    out.extend(u8::try_from(text.len()));
    out.extend_from_slice(text.as_bytes());
}

/// What stands behind the entries, before the checksum.
pub(super) fn end() -> [u8; 1] {
    [EOF]
}
