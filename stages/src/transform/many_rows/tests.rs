//! Commands byte for byte, and keys that do not depend on how their rows were cut into batches.

use super::*;
use crate::Kind;
use crate::batch::{Encoded, RawBatch};
use crate::error::Result;
use crate::transform::copy_binary::Lead;
use crate::transform::copy_binary::tests::{schema, tuple};
use crate::transform::{Attempt, Style, Transform};
use bytes::Bytes;
use proptest::prelude::*;
use schemas::plan::{
    Backup, Expiry, FieldSpec, Layout, Many, NullPolicy, OnCollision, OnConflict, Order, Origin,
    RejectsMax, Route, Score, System, Uses,
};
use schemas::{BoundRoute, ColumnType, KeyTemplate, Position};
use std::collections::BTreeMap;
use std::sync::Arc;

const NOW_MS: i64 = 1_000_000;

/// Key, member, score or value, expiry in microseconds since 1970.
type Row = (i32, Option<i32>, Option<i64>, Option<i64>);

struct Case {
    layout: Layout,
    null: NullPolicy,
    on_collision: Option<OnCollision>,
    has_expiry: bool,
}

impl Case {
    fn new(layout: Layout) -> Self {
        Self { layout, null: NullPolicy::Omit, on_collision: None, has_expiry: false }
    }

    fn bound(&self) -> Arc<BoundRoute> {
        let column = FieldSpec::Column { field: "s".into(), column: "s".into() };
        let route = Route {
            name: "r".into(),
            origin: Origin::Table {
                system: System::AlloyDb,
                schema: "public".into(),
                table: "t".into(),
            },
            split_by: None,
            filter: None,
            key: KeyTemplate::parse("k:{k}").unwrap(),
            layout: self.layout,
            columns: (self.layout == Layout::Hash).then(|| vec![column]),
            many: Some(Many {
                member: KeyTemplate::parse("m{m}").unwrap(),
                score: (self.layout == Layout::Zset)
                    .then(|| Score { column: "s".into(), unit: None }),
                order: (self.layout == Layout::List)
                    .then(|| Order { column: "s".into(), is_descending: false }),
            }),
            as_text: Vec::new(),
            version_by: None,
            catch_up: None,
            expiry: self.has_expiry.then(|| Expiry::At { column: "at".into() }),
            null: self.null,
            on_collision: self.on_collision.clone(),
            on_conflict: OnConflict::Replace,
            priority: 100,
            newest_by: None,
            rejects_max: RejectsMax::Rows(0),
            on_drift: schemas::drift::OnDrift::Fail,
            rejects_keep: None,
            uses: Uses { rebuild: true, backup: false },
            backup: Backup::default(),
        };
        let table = schema(&[
            ("k", ColumnType::Int4),
            ("m", ColumnType::Int4),
            ("s", ColumnType::Int8),
            ("at", ColumnType::TimestampTz),
        ]);
        Arc::new(BoundRoute::bind(&route, table).unwrap())
    }

    /// Sends the rows in batches of these sizes.
    fn batches(&self, style: Style, batches: &[&[Row]]) -> Result<Vec<Encoded>> {
        let rows = ManyRows::new(self.bound(), Lead::Key, style);
        let mut stitcher = rows.stitcher(&Attempt { name: "run:r/0:1", number: 0 }).unwrap();
        let mut sent = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let tuples: Vec<Vec<u8>> = batch.iter().map(|row| wire(*row)).collect();
            let is_last = index + 1 == batches.len();
            let raw = RawBatch::new(Bytes::from(tuples.concat()), batch.len(), is_last);
            sent.extend(stitcher.take(rows.apply(raw, NOW_MS)?.open.unwrap())?);
        }
        Ok(sent)
    }
}

/// As PostgreSQL sends it; its times count from 2000.
fn wire((key, member, score, at): Row) -> Vec<u8> {
    let at = at.map(|at| (at - 946_684_800_000_000).to_be_bytes());
    let (member, score) = (member.map(i32::to_be_bytes), score.map(i64::to_be_bytes));
    tuple(&[
        Some(key.to_string().as_bytes()),
        Some(&key.to_be_bytes()),
        member.as_ref().map(<[u8; 4]>::as_slice),
        score.as_ref().map(<[u8; 8]>::as_slice),
        at.as_ref().map(<[u8; 8]>::as_slice),
    ])
}

fn row(key: i32, member: i32, score: i64) -> Row {
    (key, Some(member), Some(score), None)
}

/// The words of every command, commands apart; the script of a finished key in one word.
fn words(sent: &[Encoded]) -> Vec<String> {
    let text: String =
        sent.iter().map(|encoded| String::from_utf8_lossy(&encoded.payload).into_owned()).collect();
    let text = text.replace(FINISH_SCRIPT, "FINISH");
    let mut lines: Vec<String> = Vec::new();
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        if line.starts_with('*') {
            lines.push(String::new());
        } else if !line.starts_with('$') {
            let command = lines.last_mut().unwrap();
            let space = if command.is_empty() { "" } else { " " };
            *command = format!("{command}{space}{line}");
        }
    }
    lines
}

#[test]
fn a_key_inside_a_batch_is_one_write() {
    let rows = [row(1, 1, 5), row(1, 2, 4), row(2, 1, 7)];
    let cases = [
        (Layout::Set, "SADD k:1 m1 m2", "SADD k:2 m1"),
        (Layout::Zset, "ZADD k:1 5 m1 4 m2", "ZADD k:2 7 m1"),
        (Layout::List, "RPUSH k:1 m1 m2", "RPUSH k:2 m1"),
        (Layout::Hash, "HSET k:1 m1 5 m2 4", "HSET k:2 m1 7"),
    ];
    for (layout, first, second) in cases {
        let case = Case::new(layout);
        let sent = case.batches(Style::Blank, &[&rows]).unwrap();
        assert_eq!(words(&sent), [first, second]);
        let sent = case.batches(Style::Exact, &[&rows]).unwrap();
        let exact = ["MULTI", "UNLINK k:1", first, "UNLINK k:2", second, "EXEC"];
        assert_eq!(words(&sent), exact);
        let sent = case.batches(Style::Keep, &[&rows]).unwrap();
        let keep = |command: &str| {
            let (verb, rest) = command.split_once(' ').unwrap();
            let (key, elements) = rest.split_once(' ').unwrap();
            format!("EVALSHA {KEEP_ELEMENTS_SHA1} 1 {key} {verb} 0 {elements}")
        };
        assert_eq!(words(&sent), [keep(first), keep(second)]);
    }
}

#[test]
fn a_key_across_batches_is_built_under_a_temporary_name() {
    let case = Case::new(Layout::List);
    let batches: [&[Row]; 4] =
        [&[row(1, 0, 0), row(2, 1, 0)], &[row(2, 2, 1)], &[row(2, 3, 2), row(3, 4, 0)], &[]];
    let sent = case.batches(Style::Exact, &batches).unwrap();
    let temporary = "rekindle:tmp:{3418}:run:r/0:1:0";
    let expire = format!("PEXPIRE {temporary} 3600000");
    let expected = [
        // The first batch writes its first key; its last one may go on.
        "MULTI",
        "UNLINK k:1",
        "RPUSH k:1 m0",
        "EXEC",
        "MULTI",
        &format!("UNLINK {temporary}"),
        &format!("RPUSH {temporary} m1"),
        &expire,
        "EXEC",
        "MULTI",
        &format!("RPUSH {temporary} m2"),
        &expire,
        "EXEC",
        "MULTI",
        &format!("RPUSH {temporary} m3"),
        &expire,
        "EXEC",
        &format!("EVAL FINISH 2 {temporary} k:2 LLEN 3 0 replace"),
        "MULTI",
        "UNLINK k:3",
        "RPUSH k:3 m4",
        "EXEC",
    ];
    let found: Vec<String> = words(&sent);
    let tag = found[5].split(['{', '}']).nth(1).unwrap().to_owned();
    let found: Vec<String> = found.iter().map(|line| line.replace(&tag, "3418")).collect();
    assert_eq!(found, expected);
    let noted: Vec<&Bytes> = sent.iter().flat_map(|encoded| &encoded.temporary).collect();
    assert_eq!(noted.len(), 1);
    // What is committed after a batch is whole keys: the rows of the open one count when it is finished.
    let key = |text: &str| Position::Key { text: text.into() };
    let settled: Vec<(Position, u64)> = sent
        .iter()
        .filter(|encoded| encoded.is_settled)
        .map(|encoded| (encoded.position.clone(), encoded.rows_read))
        .collect();
    assert_eq!(settled, [(key("1"), 1), (key("2"), 3), (Position::Start, 1)]);
}

#[test]
fn a_key_lives_as_long_as_its_last_row_and_expired_rows_are_no_elements() {
    let mut case = Case::new(Layout::Set);
    case.has_expiry = true;
    let at = |us: i64| Some(us);
    let rows: [Row; 6] = [
        (1, Some(1), None, at(1_000_001_000)),
        (1, Some(2), None, at(1_000_009_000)),
        (1, Some(3), None, at(1_000)),
        (2, Some(1), None, at(1_000_001_000)),
        (2, Some(2), None, None),
        (3, Some(1), None, at(1_000)),
    ];
    let sent = case.batches(Style::Blank, &[&rows]).unwrap();
    let expected = ["MULTI", "SADD k:1 m1 m2", "PEXPIREAT k:1 1000009", "EXEC", "SADD k:2 m1 m2"];
    let mut found = words(&sent);
    found.sort();
    let mut sorted = expected.to_vec();
    sorted.sort_unstable();
    assert_eq!(found, sorted);
    let expired: u64 = sent.iter().map(|encoded| encoded.expired).sum();
    assert_eq!((expired, sent.iter().map(|encoded| encoded.rows_read).sum::<u64>()), (2, 6));
}

#[test]
fn nulls_follow_the_policy() {
    let rows: [Row; 3] = [row(1, 1, 1), (1, None, Some(2), None), (1, Some(3), None, None)];
    let outcome = |null, layout| {
        let mut case = Case::new(layout);
        case.null = null;
        let sent = case.batches(Style::Blank, &[&rows]).unwrap();
        let reasons: Vec<String> = sent
            .iter()
            .filter_map(|encoded| encoded.rejected.as_ref())
            .flat_map(|rejected| rejected.reasons.clone())
            .collect();
        (words(&sent).join("; "), sent.iter().map(|encoded| encoded.left_out).sum(), reasons)
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(outcome(NullPolicy::Omit, Layout::Zset), ("ZADD k:1 1 m1".into(), 2, none.clone()));
    assert_eq!(outcome(NullPolicy::Omit, Layout::Hash), ("HSET k:1 m1 1".into(), 2, none));
    let refused = ["member column m is null", "score column s is null"].map(str::to_owned);
    let zset = outcome(NullPolicy::Error, Layout::Zset);
    assert_eq!(zset, ("ZADD k:1 1 m1".into(), 0, refused.to_vec()));
    let zset = outcome(NullPolicy::Empty, Layout::Zset);
    assert_eq!(zset, ("ZADD k:1 1 m1 2 m".into(), 0, refused[1..].to_vec()));
    // The empty value is a word of no characters.
    let hash = outcome(NullPolicy::Empty, Layout::Hash);
    assert_eq!(hash, ("HSET k:1 m1 1 m 2 m3".into(), 0, Vec::new()));
}

#[test]
fn a_member_with_two_scores_ends_the_run_unless_the_last_one_wins() {
    let rows = [row(1, 1, 1), row(1, 1, 2)];
    for batches in [vec![&rows[..]], vec![&rows[..1], &rows[1..]]] {
        let mut case = Case::new(Layout::Zset);
        let error = case.batches(Style::Exact, &batches).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert_eq!(error.to_string(), "route r: key k:1 has a member with two scores");
        case.on_collision = Some(OnCollision::Last { order_by: "s".into() });
        let sent = case.batches(Style::Exact, &batches).unwrap();
        let last = case.batches(Style::Exact, &[&rows[1..]]).unwrap();
        assert_eq!(keys(&sent), keys(&last));
        // An equal one is folded, whatever the policy.
        case.on_collision = None;
        let twice = [row(1, 1, 2), row(1, 1, 2)];
        assert_eq!(keys(&case.batches(Style::Exact, &[&twice]).unwrap()), keys(&last));
    }
}

/// Key to value hash, as the ledger has them.
fn keys(sent: &[Encoded]) -> BTreeMap<Vec<u8>, u64> {
    let entries = sent.iter().flat_map(Encoded::keyed);
    entries.map(|(key, entry)| (key.to_vec(), entry.value_hash)).collect()
}

proptest! {
    #[test]
    fn keys_counts_and_digest_do_not_depend_on_the_batches(
        mut rows in prop::collection::vec((0..5_i32, 0..4_i32, 0..3_i64), 0..40),
        cuts in prop::collection::vec(0..40_usize, 0..8),
        layout in prop::sample::select(vec![Layout::Set, Layout::Zset, Layout::List, Layout::Hash]),
        style in prop::sample::select(vec![Style::Blank, Style::Exact, Style::Keep]),
    ) {
        rows.sort_unstable();
        let rows: Vec<Row> = rows.into_iter().map(|(k, m, s)| row(k, m, s)).collect();
        let mut case = Case::new(layout);
        if matches!(layout, Layout::Zset | Layout::Hash) {
            case.on_collision = Some(OnCollision::Last { order_by: "s".into() });
        }
        let whole = case.batches(style, &[&rows]).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[Row]> = cuts.windows(2).map(|pair| &rows[pair[0]..pair[1]]).collect();
        let sent = case.batches(style, &pieces).unwrap();
        prop_assert_eq!(keys(&sent), keys(&whole));
        let sum = |of: &dyn Fn(&Encoded) -> u64, sent: &[Encoded]| sent.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(&|encoded| encoded.rows_read, &sent), rows.len() as u64);
        prop_assert_eq!(sum(&|encoded| encoded.carried, &sent), rows.len() as u64);
        prop_assert_eq!(sum(&|encoded| encoded.entries.len() as u64, &sent), keys(&sent).len() as u64);
        let digest = |sent: &[Encoded]| {
            let mut digest = schemas::Digest::default();
            for encoded in sent {
                digest += encoded.digest;
            }
            digest
        };
        prop_assert_eq!(digest(&sent), digest(&whole));
        // Every command is answered once, and every row is behind one unit.
        let commands = sent.iter().map(|encoded| words(std::slice::from_ref(encoded)).len() as u64);
        let replies = sum(&|encoded| encoded.units.iter().map(|unit| u64::from(unit.replies)).sum(), &sent);
        prop_assert_eq!(commands.sum::<u64>(), replies);
        for encoded in &sent {
            let rows: u64 = encoded.units.iter().map(|unit| u64::from(unit.rows)).sum();
            prop_assert_eq!(rows, encoded.carried);
        }
        // What is settled ends whole keys: nothing of a later key came before.
        let mut settled_to: Option<String> = None;
        for encoded in &sent {
            for (key, _) in encoded.keyed() {
                let key = String::from_utf8(key.to_vec()).unwrap().replace("k:", "");
                prop_assert!(settled_to.as_ref().is_none_or(|to| key > *to));
            }
            if let Position::Key { text } = &encoded.position {
                settled_to = Some(text.clone());
            }
        }
    }
}
