//! Entries of no table, for trying out what a target takes and what is cheaper for it.
//!
//! Invariant: both ways write the same keys with the same fields, so that their times can be compared.

use super::dump::{DumpEncoder, ListpackLimits};
use super::{Way, resp};
use bytes::Bytes;

/// What the trial keys begin with.
pub const TRIAL_PREFIX: &str = "rekindle:trial:";
/// How long a trial key that went by `RESTORE` stays, should nobody remove it.
const TRIAL_TTL_MS: i64 = 60_000;

/// A trial entry: its key and its fields.
pub type TrialEntry = (String, Vec<(&'static str, Vec<u8>)>);

/// Six fields like those of a row: two numbers, a word, two times and a checksum.
fn typical(number: usize) -> TrialEntry {
    let fields = [
        ("owner_id", number.to_string()),
        ("status", "succeeded".to_owned()),
        ("started_at", format!("2026-01-31T04:05:06.{:06}Z", number % 1_000_000)),
        ("finished_at", format!("2026-01-31T05:06:07.{:06}Z", number % 1_000_000)),
        ("checksum", format!("{number:040x}")),
        ("bytes", (number * 7919).to_string()),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    (format!("{TRIAL_PREFIX}{number}"), fields)
}

/// Entries that reach every branch of the payload: each width of integer, texts at each limit, bytes, emptiness,
/// and one hash that is beyond the limits.
pub fn trial_edges(limits: ListpackLimits) -> Vec<TrialEntry> {
    let numbers =
        ["0", "127", "-1", "4096", "-32769", "8388608", "-2147483649", "007", "1e3", "-0"];
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let numbers = names.into_iter().zip(numbers.map(|text| text.as_bytes().to_vec())).collect();
    let longest = limits.bounded().value_bytes_max;
    let texts = vec![
        ("1", Vec::new()),
        ("utf8", "żółć 🔥".as_bytes().to_vec()),
        ("bytes", vec![0, 10, 13, 255]),
        ("longest", vec![b'x'; longest]),
    ];
    let beyond = vec![("short", b"1".to_vec()), ("long", vec![b'y'; longest + 1])];
    let keys = ["numbers", "texts", "beyond"].map(|name| format!("{TRIAL_PREFIX}{name}"));
    keys.into_iter().zip([numbers, texts, beyond]).collect()
}

/// Returns `count` typical entries.
pub fn trial_entries(count: usize) -> Vec<TrialEntry> {
    (0..count).map(typical).collect()
}

/// Encodes entries in one way; every entry is one command with one reply.
pub fn trial_payload(entries: &[TrialEntry], way: Way) -> Bytes {
    let mut out = Vec::with_capacity(entries.len() * 512);
    let mut dump = Vec::new();
    for (key, fields) in entries {
        match way {
            Way::Command => {
                resp::write_array(2 + 2 * fields.len(), &mut out);
                resp::write_bulk(b"HSET", &mut out);
                resp::write_bulk(key.as_bytes(), &mut out);
                for (name, value) in fields {
                    resp::write_bulk(name.as_bytes(), &mut out);
                    resp::write_bulk(value, &mut out);
                }
            }
            Way::Restore(limits) => {
                let names = fields.iter().map(|(name, _)| name.as_bytes());
                let encoder = DumpEncoder::new(limits, names);
                let values = fields.iter().enumerate().map(|(at, (_, value))| (at, &value[..]));
                let start = encoder.write(values, &mut dump);
                resp::write_array(5, &mut out);
                resp::write_bulk(b"RESTORE", &mut out);
                resp::write_bulk(key.as_bytes(), &mut out);
                resp::write_integer(TRIAL_TTL_MS, &mut out);
                resp::write_bulk(&dump[start..], &mut out);
                resp::write_bulk(b"REPLACE", &mut out);
            }
        }
    }
    Bytes::from(out)
}

/// Encodes the removal of entries, in one command each.
pub fn trial_removal(entries: &[TrialEntry]) -> Bytes {
    let mut out = Vec::with_capacity(entries.len() * 64);
    for (key, _) in entries {
        resp::write_array(2, &mut out);
        resp::write_bulk(b"DEL", &mut out);
        resp::write_bulk(key.as_bytes(), &mut out);
    }
    Bytes::from(out)
}
