//! What Redis holds under given keys: asked in pipelined pages, parsed where the replies lie, reduced to hashes.
//!
//! Invariant: it only reads. A value hash is the one that the transform writes down for the same entry, and a key that
//! holds another type than its layout makes has none.

use super::redis_rows::{Commands, Replies, Reply};
use crate::error::{Error, Kind, Result};
use schemas::BoundRoute;
use schemas::layout::{DocumentHasher, StoredHash, string_value_hash};
use schemas::plan::Layout;
use schemas::version::Stored as StoredVersion;

/// Two clocks and a pipeline's travel time lie between a written and a read expiry.
pub const EXPIRY_TOLERANCE_MS: i64 = 2_000;

/// What is stored under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Missing,
    /// Something.
    There {
        /// Hash of the value; `None` where it has another type, or was not asked for.
        value: Option<u64>,
        /// Absolute expiry in ms since 1970 by the server's clock; 0 when it never expires.
        expires_ms: i64,
        /// What the value says of its version; nothing where the route compares none, or no value was asked for.
        version: StoredVersion,
    },
}

impl Stored {
    /// Whether both are the same entry: the same value, which tells the version too, and expiries as near as two
    /// readings of one expiry are.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Missing, Self::Missing) => true,
            (
                Self::There { value, expires_ms, .. },
                Self::There { value: other_value, expires_ms: other_ms, .. },
            ) => value == other_value && is_same_expiry(*expires_ms, *other_ms),
            _ => false,
        }
    }
}

/// Whether two expiries in ms, 0 being none, are the same as far as two clocks can tell.
pub fn is_same_expiry(one: i64, other: i64) -> bool {
    (one == 0) == (other == 0) && one.abs_diff(other) <= EXPIRY_TOLERANCE_MS.unsigned_abs()
}

/// What is asked of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Whether it is there, and when it expires.
    Existence,
    /// Its value too.
    Value,
}

/// Why entries of a layout cannot be read back; `None` where they can.
pub fn refusal(layout: Layout) -> Option<String> {
    // Made of many rows; their values are read by `Sink::stored`, or entry by entry.
    let is_many = matches!(layout, Layout::Set | Layout::Zset | Layout::List | Layout::Stream);
    let is_known = is_many || command_of(layout).is_some();
    (!is_known).then(|| format!("type {} is not verified yet", layout.word()))
}

fn command_of(layout: Layout) -> Option<&'static [u8]> {
    match layout {
        Layout::Hash => Some(b"HGETALL"),
        Layout::String | Layout::Json => Some(b"GET"),
        Layout::RedisJson => Some(b"JSON.GET"),
        _ => None,
    }
}

/// Writes the questions about keys of a route: one page of commands. Values of keys of many rows are not among them,
/// because a page has to be read into memory whole.
pub fn questions<'k>(
    bound: &BoundRoute,
    ask: Ask,
    keys: impl IntoIterator<Item = &'k [u8]>,
) -> Result<Commands> {
    let layout = bound.route.layout;
    let read = match (ask, command_of(layout)) {
        (Ask::Existence, _) => None,
        (Ask::Value, Some(read)) if !bound.is_many() => Some(read),
        (Ask::Value, _) => {
            let name = &bound.route.name;
            let message = format!("route {name}: a {} is not read by one command", layout.word());
            return Err(Error::new(Kind::Internal, message));
        }
    };
    let mut commands = Commands::default();
    commands.push(&[b"TIME"]);
    for key in keys {
        if let Some(read) = read {
            commands.push(&[read, key]);
        }
        commands.push(&[b"PTTL", key]);
    }
    Ok(commands)
}

/// Parses the answers to [`questions`] and hands each to `take` with its number and the server's time in ms.
pub fn answers(
    bound: &BoundRoute,
    ask: Ask,
    bytes: &[u8],
    mut take: impl FnMut(usize, Stored, i64) -> Result<()>,
) -> Result<()> {
    let mut replies = Replies::new(bytes);
    let now_ms = time(&mut replies)?;
    let mut hashes = (StoredHash::new(bound), DocumentHasher::default());
    let mut number = 0;
    while !replies.is_empty() {
        let (value, version) = match ask {
            Ask::Existence => None,
            Ask::Value => value_of(bound, &mut hashes, &mut replies)?,
        }
        .unzip();
        let version = version.unwrap_or(StoredVersion::Nothing);
        let Reply::Integer(ttl) = replies.token()? else { return Err(unexpected("PTTL")) };
        // -2: no such key; -1: no expiry (Redis command reference, PTTL).
        let stored = match ttl {
            -2 => Stored::Missing,
            -1 => Stored::There { value, expires_ms: 0, version },
            ttl => {
                let expires_ms = now_ms.saturating_add(ttl).max(1);
                Stored::There { value, expires_ms, version }
            }
        };
        take(number, stored, now_ms)?;
        number += 1;
    }
    Ok(())
}

/// Reads the reply of `TIME`: seconds and microseconds, as texts.
fn time(replies: &mut Replies<'_>) -> Result<i64> {
    let Reply::Array(2) = replies.token()? else { return Err(unexpected("TIME")) };
    let mut number = || -> Result<i64> {
        let Reply::Text(text) = replies.token()? else { return Err(unexpected("TIME")) };
        let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| unexpected("TIME"))
    };
    Ok(number()?.saturating_mul(1_000).saturating_add(number()? / 1_000))
}

/// Reads the hash and the version of one value; `None` where it is absent or of another type.
fn value_of(
    bound: &BoundRoute,
    (hashes, documents): &mut (StoredHash<'_>, DocumentHasher),
    replies: &mut Replies<'_>,
) -> Result<Option<(u64, StoredVersion)>> {
    Ok(match (bound.route.layout, replies.token()?) {
        (Layout::Hash, Reply::Array(elements)) => {
            hashes.begin();
            for _ in 0..elements / 2 {
                let (Reply::Text(name), Reply::Text(value)) = (replies.token()?, replies.token()?)
                else {
                    return Err(unexpected("HGETALL"));
                };
                hashes.push(name, value);
            }
            (elements > 0).then(|| (hashes.value_hash(), hashes.version()))
        }
        (Layout::String | Layout::Json, Reply::Text(text)) => {
            Some((string_value_hash(text), StoredVersion::in_json(bound, text)))
        }
        (Layout::RedisJson, Reply::Text(text)) => {
            documents.hash(text).map(|hash| (hash, StoredVersion::in_json(bound, text)))
        }
        // WRONGTYPE: an error that concerns the key; whoever asked has seen to the others.
        (_, Reply::Null | Reply::Error(_)) => None,
        _ => return Err(unexpected("a read")),
    })
}

fn unexpected(command: &str) -> Error {
    Error::new(Kind::Connection, format!("redis answered {command} with another kind of reply"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_compared_as_two_clocks_can() {
        assert!(is_same_expiry(0, 0) && is_same_expiry(10_000, 12_000) && is_same_expiry(5, 1));
        assert!(!is_same_expiry(0, 1_000) && !is_same_expiry(10_000, 12_001));
        assert!(!is_same_expiry(i64::MAX, i64::MIN));
        let version = StoredVersion::Nothing;
        let there = |value, expires_ms| Stored::There { value, expires_ms, version };
        assert!(there(Some(1), 5_000).is_same(&there(Some(1), 5_100)));
        assert!(!there(Some(1), 0).is_same(&there(None, 0)));
        assert!(!there(None, 0).is_same(&Stored::Missing));
    }
}
