//! Commands of every style byte for byte, and the accounting of rows around them.

mod documents;
mod keys_alone;
mod newest;
mod refused;
mod restored;

use super::*;
use crate::Kind;
use crate::batch::Unit;
use crate::transform::copy_binary::Lead;
use crate::transform::copy_binary::tests::{schema, tuple};
use bytes::Bytes;
use schemas::drift::OnDrift;
use schemas::plan::{
    Backup, Expiry, FieldSpec, Layout, NullPolicy, OnConflict, Origin, RejectsMax, Route, System,
    Uses,
};
use schemas::{ColumnType, KeyTemplate, Position, layout};

const NOW_MS: i64 = 1_000_000;

struct Case {
    key: &'static str,
    layout: Layout,
    columns: Option<Vec<FieldSpec>>,
    has_expiry: bool,
    null: NullPolicy,
}

impl Case {
    fn new(layout: Layout) -> Self {
        let columns = Some(vec![column("name"), constant("v", "1")]);
        Self { key: "k:{id}", layout, columns, has_expiry: false, null: NullPolicy::Omit }
    }

    fn bound(self) -> Arc<BoundRoute> {
        let route = Route {
            name: "r".into(),
            origin: Origin::Table {
                system: System::AlloyDb,
                schema: "public".into(),
                table: "t".into(),
            },
            split_by: None,
            filter: None,
            key: KeyTemplate::parse(self.key).unwrap(),
            layout: self.layout,
            columns: self.columns,
            many: None,
            as_text: Vec::new(),
            expiry: self.has_expiry.then(|| Expiry::At { column: "at".into() }),
            null: self.null,
            on_collision: None,
            on_conflict: OnConflict::Replace,
            version_by: None,
            catch_up: None,
            priority: 100,
            newest_by: None,
            rejects_max: RejectsMax::Rows(0),
            on_drift: OnDrift::Fail,
            rejects_keep: None,
            uses: Uses { rebuild: true, backup: false },
            backup: Backup::default(),
        };
        let table = schema(&[
            ("id", ColumnType::Int4),
            ("name", ColumnType::Text),
            ("at", ColumnType::TimestampTz),
        ]);
        Arc::new(BoundRoute::bind(&route, table).unwrap())
    }

    fn apply(self, style: Style, rows: &[Vec<u8>]) -> Encoded {
        apply(self.bound(), Lead::None, style, rows, true)
    }
}

fn column(name: &str) -> FieldSpec {
    FieldSpec::Column { field: name.into(), column: name.into() }
}

fn constant(field: &str, value: &str) -> FieldSpec {
    FieldSpec::Constant { field: field.into(), value: value.into() }
}

fn raw(rows: &[Vec<u8>], is_last: bool) -> RawBatch {
    RawBatch::new(Bytes::from(rows.concat()), rows.len(), is_last)
}

fn apply(
    bound: Arc<BoundRoute>,
    lead: Lead,
    style: Style,
    rows: &[Vec<u8>],
    is_last: bool,
) -> Encoded {
    let encoded = RedisCommands::new(bound, lead, style, Way::Command)
        .apply(raw(rows, is_last), NOW_MS)
        .unwrap();
    let rejected = encoded.rejected.as_ref().map_or(0, |rejected| rejected.reasons.len() as u64);
    assert_eq!(encoded.rows_read, encoded.entries.len() as u64 + encoded.expired + rejected);
    assert_eq!(encoded.bytes_read, rows.concat().len() as u64);
    encoded
}

/// Microseconds since 2000, as the wire has them, of a time in milliseconds since 1970.
fn wire_us(ms: i64) -> [u8; 8] {
    (ms * 1000 - 946_684_800_000_000).to_be_bytes()
}

fn row(id: i32, name: Option<&str>, at_ms: Option<i64>) -> Vec<u8> {
    let at = at_ms.map(wire_us);
    tuple(&[Some(&id.to_be_bytes()), name.map(str::as_bytes), at.as_ref().map(<[u8; 8]>::as_slice)])
}

/// Writes commands given as lines of words in RESP2.
fn resp(commands: &[&str]) -> String {
    let bulk = |word: &str| format!("${}\r\n{word}\r\n", word.len());
    let one = |command: &&str| {
        let words: Vec<String> = command.split(' ').map(bulk).collect();
        format!("*{}\r\n{}", words.len(), words.concat())
    };
    commands.iter().map(one).collect()
}

fn payload(encoded: &Encoded) -> String {
    String::from_utf8(encoded.payload.to_vec()).unwrap()
}

#[test]
fn strings_and_json_are_set() {
    let mut case = Case::new(Layout::String);
    case.columns = Some(vec![column("name")]);
    case.has_expiry = true;
    let rows = [row(1, Some("a"), None), row(22, Some("bb"), Some(NOW_MS + 1))];
    let bound = case.bound();
    for style in [Style::Blank, Style::Exact] {
        let encoded = apply(Arc::clone(&bound), Lead::None, style, &rows, true);
        assert_eq!(payload(&encoded), resp(&["SET k:1 a", "SET k:22 bb PXAT 1000001"]));
        assert!(encoded.units.is_empty() && !encoded.may_keep);
    }
    let encoded = apply(bound, Lead::None, Style::Keep, &rows, true);
    assert_eq!(payload(&encoded), resp(&["SET k:1 a NX", "SET k:22 bb NX PXAT 1000001"]));
    assert!(encoded.may_keep);
    let keyed: Vec<(&[u8], u64, i64)> =
        encoded.keyed().map(|(key, entry)| (key, entry.value_hash, entry.expires_ms)).collect();
    let hash = layout::string_value_hash;
    assert_eq!(keyed, [(&b"k:1"[..], hash(b"a"), 0), (b"k:22", hash(b"bb"), NOW_MS + 1)]);

    let encoded = Case::new(Layout::Json).apply(Style::Keep, &[row(1, Some("x"), None)]);
    assert_eq!(payload(&encoded), resp(&[r#"SET k:1 {"name":"x","v":"1"} NX"#]));
}

#[test]
fn strings_and_json_that_never_expire_are_set_in_groups() {
    let group = |ids: std::ops::Range<i32>| {
        let pair = |id: i32| format!(" k:{id} {{\"name\":\"x\",\"v\":\"1\"}}");
        format!("MSET{}", ids.map(pair).collect::<String>())
    };
    for (count, sizes) in
        [(0, &[][..]), (1, &[1]), (9, &[9]), (64, &[64]), (65, &[64, 1]), (150, &[64, 64, 22])]
    {
        let rows: Vec<Vec<u8>> = (0..count).map(|id| row(id, Some("x"), None)).collect();
        for style in [Style::Blank, Style::Exact] {
            let encoded = Case::new(Layout::Json).apply(style, &rows);
            let mut first = 0;
            let mut expected = Vec::new();
            for size in sizes {
                expected.push(group(first..first + size));
                first += size;
            }
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            assert_eq!(payload(&encoded), resp(&expected), "{count} rows");
            let units =
                sizes.iter().map(|size| Unit { rows: size.unsigned_abs(), folded: 0, replies: 1 });
            assert_eq!(encoded.units, units.collect::<Vec<_>>());
        }
    }
}

#[test]
fn hashes_into_an_empty_keyspace_are_plain_hsets() {
    let rows = [row(1, Some("a"), None), row(2, None, None)];
    let encoded = Case::new(Layout::Hash).apply(Style::Blank, &rows);
    assert_eq!(payload(&encoded), resp(&["HSET k:1 name a v 1", "HSET k:2 v 1"]));
    assert!(encoded.units.is_empty());
}

#[test]
fn hashes_with_an_expiry_are_transactions() {
    let mut case = Case::new(Layout::Hash);
    case.has_expiry = true;
    let rows = [row(1, Some("a"), Some(NOW_MS + 5)), row(2, Some("b"), None)];
    let encoded = case.apply(Style::Blank, &rows);
    let expected =
        ["MULTI", "HSET k:1 name a v 1", "PEXPIREAT k:1 1000005", "HSET k:2 name b v 1", "EXEC"];
    assert_eq!(payload(&encoded), resp(&expected));
    assert_eq!(encoded.units, [Unit { rows: 2, folded: 0, replies: 5 }]);
}

#[test]
fn exact_hashes_are_deleted_first_in_the_same_transaction() {
    let rows: Vec<Vec<u8>> = (0..65).map(|id| row(id, Some("a"), None)).collect();
    let encoded = Case::new(Layout::Hash).apply(Style::Exact, &rows);
    let commands = |id: i32| [format!("DEL k:{id}"), format!("HSET k:{id} name a v 1")];
    let mut expected = vec!["MULTI".to_owned()];
    expected.extend((0..64).flat_map(commands));
    expected.extend(["EXEC".to_owned(), "MULTI".to_owned()]);
    expected.extend(commands(64));
    expected.push("EXEC".to_owned());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(payload(&encoded), resp(&expected));
    let units =
        [Unit { rows: 64, folded: 0, replies: 130 }, Unit { rows: 1, folded: 0, replies: 4 }];
    assert_eq!(encoded.units, units);
}

#[test]
fn kept_hashes_go_through_the_script() {
    let mut case = Case::new(Layout::Hash);
    case.has_expiry = true;
    let bound = case.bound();
    let rows = [row(1, Some("a"), None), row(2, None, Some(NOW_MS + 1))];
    let encoded = apply(bound, Lead::None, Style::Keep, &rows, true);
    let expected = [
        format!("EVALSHA {KEEP_HASH_SHA1} 1 k:1 0 name a v 1"),
        format!("EVALSHA {KEEP_HASH_SHA1} 1 k:2 1000001 v 1"),
    ];
    assert_eq!(payload(&encoded), resp(&[&expected[0], &expected[1]]));
    assert!(encoded.units.is_empty() && encoded.may_keep);
}

#[test]
fn lengths_are_decimal_at_every_width() {
    let mut out = Vec::new();
    for length in [0, 9, 10, 99, 100, 999, 1000, 123_456] {
        out.clear();
        resp::write_bulk(&vec![b'x'; length], &mut out);
        assert!(out.starts_with(format!("${length}\r\nx").trim_end_matches('x').as_bytes()));
        assert_eq!(out.len(), length.to_string().len() + 5 + length);
    }
    out.clear();
    resp::write_integer(i64::MIN, &mut out);
    assert_eq!(out, b"$20\r\n-9223372036854775808\r\n");
}

#[test]
fn expired_rows_are_skipped_and_counted() {
    let mut case = Case::new(Layout::Hash);
    case.has_expiry = true;
    let infinity = tuple(&[Some(&[0, 0, 0, 4]), None, Some(&i64::MAX.to_be_bytes())]);
    let past = tuple(&[Some(&[0, 0, 0, 5]), None, Some(&i64::MIN.to_be_bytes())]);
    let rows = [
        row(1, Some("a"), Some(NOW_MS)),
        row(2, Some("a"), Some(NOW_MS - 1)),
        row(3, Some("a"), Some(NOW_MS + 1)),
        infinity,
        past,
    ];
    let encoded = case.apply(Style::Blank, &rows);
    assert_eq!(encoded.expired, 3);
    assert_eq!(encoded.keys, "k:3k:4");
    assert_eq!(encoded.entries[1].expires_ms, 0);
    assert_eq!(encoded.digest.count, 5, "expired rows are in the digest");
}

#[test]
fn rejects_keep_their_row_their_bytes_and_their_reason() {
    let mut case = Case::new(Layout::Hash);
    case.columns = Some(vec![column("at")]);
    case.key = "k:{name}:{id}";
    let rows = [
        row(1, Some("ok"), Some(0)),
        row(2, None, Some(0)),
        row(3, Some("a:b"), Some(0)),
        tuple(&[Some(&[0; 4]), Some(b"\xff"), None]),
        row(5, Some("ok"), None),
        row(6, Some("ok"), Some(0)),
    ];
    let encoded = case.apply(Style::Blank, &rows);
    assert_eq!(encoded.keys, "k:ok:1k:ok:6");
    assert_eq!(encoded.digest.count, 5, "a row that could not be decoded is not in the digest");
    let rejected = encoded.rejected.unwrap();
    assert_eq!(
        rejected.reasons,
        [
            "key column name is null",
            "key column name contains \":\", the text that follows it in the key; use {name|urlencode}",
            "column name: the text is not valid UTF-8",
            "every field is null, redis cannot hold an empty hash",
        ]
    );
    assert_eq!(rejected.raw, rows[1..5].iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(rejected.rows.num_rows(), 4);
}

#[test]
fn a_null_is_an_error_where_the_route_says_so() {
    let mut case = Case::new(Layout::Hash);
    case.null = NullPolicy::Error;
    let encoded = case.apply(Style::Exact, &[row(1, None, None)]);
    assert_eq!(encoded.rejected.as_ref().unwrap().reasons, ["column name is null"]);
    assert!(encoded.payload.is_empty() && encoded.units.is_empty());
    let mut case = Case::new(Layout::Hash);
    case.null = NullPolicy::Empty;
    let encoded = case.apply(Style::Blank, &[row(1, None, None)]);
    assert_eq!(
        payload(&encoded),
        "*6\r\n$4\r\nHSET\r\n$3\r\nk:1\r\n$4\r\nname\r\n$0\r\n\r\n$1\r\nv\r\n$1\r\n1\r\n"
    );
}

#[test]
fn the_position_covers_complete_values_only() {
    let bound = Case::new(Layout::Hash).bound();
    let keyed = |leads: &[Option<&str>], is_last| {
        let rows: Vec<Vec<u8>> = leads
            .iter()
            .map(|lead| tuple(&[lead.map(str::as_bytes), Some(&[0; 4]), Some(b"n"), None]))
            .collect();
        apply(Arc::clone(&bound), Lead::Key, Style::Blank, &rows, is_last).position
    };
    let key = |text: &str| Position::Key { text: text.into() };
    assert_eq!(keyed(&[Some("a"), Some("b")], false), key("a"));
    assert_eq!(keyed(&[Some("a"), Some("b")], true), key("b"));
    assert_eq!(keyed(&[Some("b"), Some("b")], false), Position::Start);
    assert_eq!(keyed(&[None], true), Position::Unordered);
    assert_eq!(keyed(&[], true), Position::Start);

    let rows = [tuple(&[Some(&[0, 0, 0, 3, 0, 2]), Some(&[0; 4]), None, None])];
    let encoded = apply(Arc::clone(&bound), Lead::Ctid, Style::Blank, &rows, false);
    assert_eq!(encoded.position, Position::Ctid { block: 3, offset: 2 });
    let encoded = apply(bound, Lead::None, Style::Blank, &[], true);
    assert_eq!(encoded.position, Position::Unordered);
}

#[test]
fn the_value_hash_is_that_of_what_redis_gives_back() {
    let bound = Case::new(Layout::Hash).bound();
    let rows = [row(1, Some("a"), None)];
    let encoded = apply(Arc::clone(&bound), Lead::None, Style::Blank, &rows, true);
    let answer: [(&[u8], &[u8]); 2] = [(b"v", b"1"), (b"name", b"a")];
    assert_eq!(encoded.entries[0].value_hash, layout::hash_value_hash(&bound, answer));
}

#[test]
fn a_batch_whose_row_count_is_wrong_is_refused() {
    let commands =
        RedisCommands::new(Case::new(Layout::Hash).bound(), Lead::None, Style::Blank, Way::Command);
    let mut batch = raw(&[row(1, None, None)], true);
    batch.rows = 2;
    assert_eq!(commands.apply(batch, NOW_MS).unwrap_err().kind(), Kind::Internal);
}
