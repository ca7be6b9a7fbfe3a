//! Which fields of a hash differ, for the few keys that a report names.
//!
//! Invariant: names only; a value is compared and forgotten.

use super::ends::Ends;
use super::rows::find;
use crate::cpu::CpuPool;
use crate::route::RouteRun;
use stages::Result;
use stages::extract::redis_rows::{Commands, Held, Replies, Reply};
use stages::transform::Style;
use std::collections::{BTreeMap, BTreeSet};

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the names of the fields that differ between the row of a key and what Redis holds; none where either end has
/// no fields by now.
pub(super) async fn differing(
    ends: &Ends,
    cpu: &CpuPool,
    route: &RouteRun,
    key: &str,
) -> Result<Vec<String>> {
    let rows = find(cpu, route, &[key.as_bytes()], true).await?;
    let Some(row) = rows.raw.get(key.as_bytes()) else { return Ok(Vec::new()) };
    let raw = stages::RawBatch::new(row.raw.bytes.clone(), 1, true);
    let transform = (route.transform)(&row.bounds, Style::Blank);
    let encoded = transform.apply(raw, 0)?;
    let mut commands = Commands::default();
    commands.read(Held::Hashes, key.as_bytes());
    let answer = ends.reader().ask(&commands).await?;
    let (Some(expected), Some(stored)) = (written(&encoded.payload)?, held(&answer)?) else {
        return Ok(Vec::new());
    };
    let names: BTreeSet<&Vec<u8>> = expected.keys().chain(stored.keys()).collect();
    let differs = |name: &&&Vec<u8>| expected.get(**name) != stored.get(**name);
    let name = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
    Ok(names.iter().filter(differs).map(|found| name(found)).collect())
}

/// The fields that the `HSET` among some commands writes; commands and replies are framed alike.
fn written(payload: &[u8]) -> Result<Option<Fields>> {
    let mut commands = Replies::new(payload);
    while !commands.is_empty() {
        let mut command = Replies::new(commands.whole()?);
        let Reply::Array(words) = command.token()? else { return Ok(None) };
        if command.token()? == Reply::Text(b"HSET") {
            command.skip()?;
            return pairs(&mut command, words.saturating_sub(2) / 2);
        }
    }
    Ok(None)
}

/// The fields of a reply of `HGETALL`; another type has none.
fn held(answer: &[u8]) -> Result<Option<Fields>> {
    let mut replies = Replies::new(answer);
    match replies.token()? {
        Reply::Array(elements) => pairs(&mut replies, elements / 2),
        _ => Ok(None),
    }
}

fn pairs(replies: &mut Replies<'_>, count: usize) -> Result<Option<Fields>> {
    let mut fields = Fields::new();
    for _ in 0..count {
        let (Reply::Text(name), Reply::Text(value)) = (replies.token()?, replies.token()?) else {
            return Ok(None);
        };
        fields.insert(name.to_vec(), value.to_vec());
    }
    Ok(Some(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_among_the_commands_of_a_transaction() {
        let payload = b"*1\r\n$5\r\nMULTI\r\n*4\r\n$4\r\nHSET\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\n1\r\n\
            *3\r\n$9\r\nPEXPIREAT\r\n$1\r\nk\r\n$1\r\n9\r\n*1\r\n$4\r\nEXEC\r\n";
        let one = Fields::from([(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(written(payload).unwrap(), Some(one.clone()));
        assert_eq!(held(b"*2\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap(), Some(one));
        assert_eq!(held(b"-WRONGTYPE x\r\n").unwrap(), None);
        assert_eq!(written(b"*1\r\n$5\r\nMULTI\r\n").unwrap(), None);
    }
}
