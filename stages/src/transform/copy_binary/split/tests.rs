//! Parts are compared with what the decoder makes of them, and with a plain account of every tuple.

use super::*;
use bytes::Bytes;

/// A tuple: `ctid`, a flag, and two texts.
fn tuple(block: u32, offset: u16, flag: Option<bool>, a: Option<&str>, b: &str) -> Vec<u8> {
    let mut out = vec![0, 4, 0, 0, 0, 6];
    out.extend_from_slice(&block.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    match flag {
        Some(flag) => out.extend_from_slice(&[0, 0, 0, 1, u8::from(flag)]),
        None => out.extend_from_slice(&[0xff; 4]),
    }
    for text in [a, Some(b)] {
        match text {
            None => out.extend_from_slice(&[0xff; 4]),
            Some(text) => {
                out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
    out
}

fn raw(tuples: &[Vec<u8>], is_last: bool) -> RawBatch {
    RawBatch::new(Bytes::from(tuples.concat()), tuples.len(), is_last)
}

fn part(wanted: Option<usize>, columns: &[usize], after: Option<(u32, u16)>) -> Part {
    Part { wanted, columns: columns.to_vec(), after }
}

/// Block and line pointer of every tuple, and the texts of its fields.
fn shown(bytes: &[u8]) -> Vec<String> {
    let mut wire = Wire { bytes, at: 0 };
    let mut out = Vec::new();
    while wire.at < bytes.len() {
        let fields = wire.int16().unwrap();
        let mut line = Vec::new();
        for field in 0..fields {
            let value = wire.field().unwrap();
            line.push(match value {
                None => "null".to_owned(),
                Some(ctid) if field == 0 => format!("{}.{}", ctid[3], ctid[5]),
                Some(text) => String::from_utf8(text.to_vec()).unwrap(),
            });
        }
        out.push(line.join(" "));
    }
    out
}

#[test]
fn every_part_gets_what_a_read_of_its_own_would_send() {
    let parts = vec![
        part(None, &[2, 3], None),
        part(Some(1), &[3], None),
        part(None, &[3, 2], Some((0, 2))),
    ];
    let mut split = Split::new(4, parts, 1 << 20);
    let first = [tuple(0, 1, Some(true), Some("a1"), "b1"), tuple(0, 2, Some(false), None, "b2")];
    assert!(split.apply(&raw(&first, false)).unwrap().is_empty());
    let second = [tuple(0, 3, None, Some("a3"), ""), tuple(1, 1, Some(true), Some("a4"), "b4")];
    let taken = split.apply(&raw(&second, true)).unwrap();
    let lines: Vec<Vec<String>> = taken.iter().map(|t| shown(&t.batch.bytes)).collect();
    assert_eq!(lines[0], ["0.1 a1 b1", "0.2 null b2", "0.3 a3 ", "1.1 a4 b4"]);
    assert_eq!(lines[1], ["0.1 b1", "1.1 b4"]);
    assert_eq!(lines[2], ["0.3  a3", "1.1 b4 a4"]);
    let rows: Vec<usize> = taken.iter().map(|t| t.batch.rows).collect();
    assert_eq!(rows, [4, 2, 2]);
    assert!(taken.iter().all(|t| t.batch.is_last));
    let sent = (first.concat().len() + second.concat().len()) as u64;
    assert_eq!(taken.iter().map(|t| t.batch.bytes_read).sum::<u64>(), sent);
}

#[test]
fn a_part_hands_out_when_it_is_full_and_always_at_the_end() {
    let parts = vec![part(None, &[2, 3], None), part(Some(1), &[3], None)];
    let mut split = Split::new(4, parts, 64);
    let wide = "x".repeat(100);
    let tuples = [tuple(0, 1, Some(false), Some(&wide), "b")];
    let taken = split.apply(&raw(&tuples, false)).unwrap();
    assert_eq!(taken.iter().map(|t| (t.part, t.batch.is_last)).collect::<Vec<_>>(), [(0, false)]);
    let taken = split.apply(&raw(&[], true)).unwrap();
    let last: Vec<_> = taken.iter().map(|t| (t.part, t.batch.rows, t.batch.is_last)).collect();
    assert_eq!(last, [(0, 0, true), (1, 0, true)]);
}

#[test]
fn headers_and_trailers_are_left_out_and_broken_tuples_are_refused() {
    let mut split = Split::new(4, vec![part(None, &[2], None)], 1 << 20);
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend(tuple(0, 1, None, Some("a"), "b"));
    bytes.extend([0xff, 0xff]);
    let taken = split.apply(&RawBatch::new(bytes.clone().into(), 1, true)).unwrap();
    assert_eq!(shown(&taken[0].batch.bytes), ["0.1 a"]);
    for end in 20..bytes.len() - 2 {
        let cut = Bytes::copy_from_slice(&bytes[..end]);
        assert!(split.apply(&RawBatch::new(cut, 1, true)).is_err(), "{end}");
    }
    assert!(split.apply(&RawBatch::new(bytes.into(), 2, true)).is_err());
    let mut narrow = Split::new(3, vec![part(None, &[2], None)], 1 << 20);
    assert!(narrow.apply(&raw(&[tuple(0, 1, None, None, "b")], true)).is_err());
}
