//! What a key takes in Redis, derived from the encodings of Redis 7: for `plan`, which writes nothing, and where a server
//! does not tell.
//!
//! Invariant: pure; a test compares it with a real server. Sources: `object.c` (`objectComputeSize`), `sds.c`, `listpack.c`.

use stages::load::Sampled;

/// An entry of a table: key, value, next.
const TABLE_ENTRY: u64 = 24;
/// An object's head.
const OBJECT: u64 = 16;
/// A string up to here lies in its object's own allocation.
const EMBEDDED_MAX: usize = 44;
/// Elements and bytes of one up to which a collection is one listpack.
const LISTPACK_ELEMENTS_MAX: usize = 128;
const LISTPACK_BYTES_MAX: usize = 64;
/// Integers up to which a set is one array.
const INTSET_MAX: usize = 512;
/// Slots, table heads and the like of a collection that is no listpack.
const TABLE_HEAD: u64 = 80;
/// What each element of a sorted set takes in its skip list.
const SKIP_NODE: u64 = 40;

/// What the key takes, in bytes, with the table entry that holds it.
pub(super) fn derived(sample: &Sampled) -> Option<u64> {
    let first = sample.commands.first()?;
    let key = TABLE_ENTRY + string(first.get(1)?.len());
    let arguments = || sample.commands.iter().flat_map(|words| words.iter().skip(2));
    let lengths: Vec<usize> = arguments().map(Vec::len).collect();
    let value = match first.first()?.as_slice() {
        b"SET" => match first.get(2)?.len() {
            length @ 0..=EMBEDDED_MAX => allocated(OBJECT + 3 + length as u64 + 1),
            length => OBJECT + string(length),
        },
        b"HSET" => OBJECT + collection(&lengths, 2, 0),
        b"ZADD" => OBJECT + collection(&lengths, 2, SKIP_NODE),
        b"SADD" => OBJECT + set(&lengths, arguments()),
        // Chunks of a list are listpacks of 8 KiB; what stands around them is little.
        b"RPUSH" => OBJECT + TABLE_HEAD + listpack(&lengths),
        _ => return None,
    };
    Some(key + value)
}

fn collection(lengths: &[usize], per_element: usize, extra: u64) -> u64 {
    let elements = lengths.len() / per_element;
    let is_packed = elements <= LISTPACK_ELEMENTS_MAX
        && lengths.iter().all(|length| *length <= LISTPACK_BYTES_MAX);
    if is_packed { listpack(lengths) } else { table(lengths, elements as u64, extra) }
}

/// Sets of integers are sorted arrays; others are tables, before Redis 7.2 however small they are.
fn set<'a>(lengths: &[usize], mut members: impl Iterator<Item = &'a Vec<u8>>) -> u64 {
    let is_integer =
        |member: &Vec<u8>| str::from_utf8(member).is_ok_and(|m| m.parse::<i64>().is_ok());
    let count = lengths.len() as u64;
    if lengths.len() <= INTSET_MAX && members.all(is_integer) {
        return allocated(8 + 8 * count);
    }
    table(lengths, count, 0)
}

fn table(lengths: &[usize], elements: u64, extra: u64) -> u64 {
    let strings: u64 = lengths.iter().map(|length| string(*length)).sum();
    let slots = elements.next_power_of_two() * 8;
    TABLE_HEAD + slots + strings + elements * (TABLE_ENTRY + extra)
}

/// One allocation: a head, and each element with its own length before and behind it.
fn listpack(lengths: &[usize]) -> u64 {
    let element = |length: &usize| match *length {
        length @ 0..64 => length as u64 + 2,
        length => length as u64 + 4,
    };
    allocated(7 + lengths.iter().map(element).sum::<u64>())
}

/// A string with its head and final zero.
fn string(length: usize) -> u64 {
    let head = match length {
        0..32 => 1,
        32..256 => 3,
        256..65_536 => 5,
        _ => 9,
    };
    allocated(length as u64 + head + 1)
}

/// The size class of an allocation: four to a doubling (`jemalloc`), multiples of 8 below 128.
fn allocated(bytes: u64) -> u64 {
    if bytes <= 128 {
        return bytes.next_multiple_of(8).max(8);
    }
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixtures::servers::{Redis, RedisOptions};

    fn sample(words: &[&str]) -> Sampled {
        Sampled { commands: vec![words.iter().map(|word| word.as_bytes().to_vec()).collect()] }
    }

    #[test]
    fn what_is_derived_is_near_what_a_server_tells() {
        let redis = Redis::start(RedisOptions::default()).unwrap();
        let (long, longer) = ("v".repeat(100), "v".repeat(3_000));
        let many: Vec<String> = (0..200).map(|i| format!("member-{i}")).collect();
        let scored: Vec<String> =
            many.iter().enumerate().flat_map(|(i, m)| [i.to_string(), m.clone()]).collect();
        let of = |verb: &'static str, key: &'static str, rest: &[String]| {
            let rest = rest.iter().map(String::as_str);
            sample(&[verb, key].into_iter().chain(rest).collect::<Vec<_>>())
        };
        let samples = [
            sample(&["SET", "a:1", "x"]),
            sample(&["SET", "user:1000000", &long]),
            sample(&["SET", "json:1000000", &longer]),
            sample(&["HSET", "build:1", "status", "done", "repo_id", "12345", "author", "ann"]),
            sample(&["HSET", "build:2", "status", "done", "log", &long]),
            of("SADD", "s:small", &many[..20]),
            of("SADD", "s:large", &many),
            sample(&["SADD", "s:numbers", "1", "22", "333", "4444", "55555", "666666"]),
            of("ZADD", "z:small", &scored[..40]),
            of("ZADD", "z:large", &scored),
            of("RPUSH", "l:large", &many),
        ];
        let mut wrong = Vec::new();
        for sample in &samples {
            let words: Vec<&str> =
                sample.commands[0].iter().map(|word| str::from_utf8(word).unwrap()).collect();
            redis.cli(&words).unwrap();
            let told = redis.cli(&["MEMORY", "USAGE", words[1], "SAMPLES", "0"]).unwrap();
            let told: f64 = told.trim().parse().unwrap();
            let ratio = derived(sample).unwrap() as f64 / told;
            if !(0.75..1.5).contains(&ratio) {
                wrong.push(format!("{} {}: {ratio} of {told}", words[0], words[1]));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(derived(&sample(&["JSON.SET", "a", "$", "1"])), None);
    }
}
