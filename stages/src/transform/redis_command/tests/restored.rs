//! Hashes that go by `RESTORE`, and those among them that do not.
//!
//! Invariant: payloads are compared with what `DUMP` of a server answers, byte by byte.

use super::*;

#[test]
fn hashes_by_restore_are_one_command_of_one_reply() {
    let mut case = Case::new(Layout::Hash);
    case.has_expiry = true;
    let bound = case.bound();
    let way = Way::Restore(ListpackLimits { fields_max: 2, value_bytes_max: 5 });
    let rows = [row(1, Some("ab"), None), row(2, Some("longer"), Some(NOW_MS + 7))];
    let encode = |style| {
        let commands = RedisCommands::new(Arc::clone(&bound), Lead::None, style, way);
        commands.apply(raw(&rows, true), NOW_MS).unwrap()
    };
    // GIVEN what DUMP of Redis 7.0.15 answers for the hash `name ab v 1`, and `name longer v 1` as pairs
    let listpack = b"\x10\x16\x16\0\0\0\x04\0\x84name\x05\x82ab\x03\x81v\x02\x01\x01\xff\x0a\0";
    let pairs = b"\x04\x02\x04name\x06longer\x01v\x011\x0a\0";
    let sealed = |body: &[u8]| {
        let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(body);
        [body, &sum.to_le_bytes()].concat()
    };
    let command = |words: &[&[u8]]| {
        let mut out = Vec::new();
        resp::write_array(words.len(), &mut out);
        for word in words {
            resp::write_bulk(word, &mut out);
        }
        out
    };
    let (listpack, pairs) = (sealed(listpack), sealed(pairs));
    for style in [Style::Blank, Style::Exact] {
        let encoded = encode(style);
        let expected = [
            command(&[b"RESTORE", b"k:1", b"0", &listpack, b"REPLACE"]),
            command(&[b"RESTORE", b"k:2", b"1000007", &pairs, b"REPLACE", b"ABSTTL"]),
        ];
        assert_eq!(encoded.payload, expected.concat());
        assert!(encoded.units.is_empty() && !encoded.may_keep);
    }
    // AND a key that is to be kept is not replaced.
    let encoded = encode(Style::Keep);
    let expected = [
        command(&[b"RESTORE", b"k:1", b"0", &listpack]),
        command(&[b"RESTORE", b"k:2", b"1000007", &pairs, b"ABSTTL"]),
    ];
    assert_eq!(encoded.payload, expected.concat());
    assert!(encoded.may_keep);
}

#[test]
fn what_is_too_long_for_a_listpack_goes_by_hset_where_nothing_is_replaced_kept_or_expires() {
    let mut case = Case::new(Layout::Hash);
    case.has_expiry = true;
    let bound = case.bound();
    let long = row(2, Some("longer"), None);
    let encode = |(fields_max, value_bytes_max): (usize, usize), style, row: &[u8]| {
        let way = Way::Restore(ListpackLimits { fields_max, value_bytes_max });
        let commands = RedisCommands::new(Arc::clone(&bound), Lead::None, style, way);
        let rows = [self::row(1, Some("ab"), None), row.to_vec(), self::row(3, Some("c"), None)];
        commands.apply(raw(&rows, true), NOW_MS).unwrap()
    };
    let commands = |encoded: &Encoded| {
        let sent = String::from_utf8_lossy(&encoded.payload).into_owned();
        ["RESTORE\r\n", "HSET\r\n", "MULTI\r\n"].map(|verb| sent.matches(verb).count())
    };
    let encoded = encode((2, 5), Style::Blank, &long);
    assert_eq!(commands(&encoded), [2, 1, 0]);
    let sent = String::from_utf8_lossy(&encoded.payload).into_owned();
    assert!(sent.contains(&resp(&["HSET k:2 name longer v 1"])), "{sent}");
    assert!(encoded.units.is_empty() && encoded.carried == 3);
    // AND what a name is too long for as well.
    assert_eq!(commands(&encode((2, 3), Style::Blank, &row(2, Some("b"), None))), [0, 3, 0]);
    // BUT not where there may be something under the key, it expires, or it only has too many fields.
    for style in [Style::Exact, Style::Keep] {
        assert_eq!(commands(&encode((2, 5), style, &long)), [3, 0, 0]);
    }
    let expiring = row(2, Some("longer"), Some(NOW_MS + 7));
    assert_eq!(commands(&encode((2, 5), Style::Blank, &expiring)), [3, 0, 0]);
    assert_eq!(commands(&encode((1, 64), Style::Blank, &long)), [3, 0, 0]);
}
