//! Entries, their numbers and their stream, whatever the batches.

use super::*;
use crate::batch::RawBatch;
use crate::transform::copy_binary::Lead;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use proptest::prelude::*;
use schemas::layout::StoredHash;
use schemas::plan::Plan;
use schemas::{Column, ColumnType, Position, TableSchema};

type Row = (Option<i64>, Option<String>);

fn bound(null: &str) -> Arc<BoundRoute> {
    let text = format!(
        "[alloydb]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n[[route]]\nname = \"r\"\ntable = \"alloydb:t\"\n\
         key = \"log\"\ntype = \"stream\"\nuse = [\"rebuild\"]\nnull = \"{null}\"\n"
    );
    let plan = Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap();
    let column = |name: &str, column_type: ColumnType| Column {
        name: name.into(),
        source_type: column_type.name(),
        column_type,
        as_text: false,
    };
    let columns = vec![column("a", ColumnType::Int8), column("größe b", ColumnType::Text)];
    let schema = TableSchema { table: "t".into(), columns, unique_keys: Vec::new() };
    Arc::new(BoundRoute::bind(&plan.routes[0], schema).unwrap())
}

fn raw(rows: &[Row]) -> RawBatch {
    let batch = RecordBatch::try_from_iter([
        ("a", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()) as ArrayRef),
        ("größe b", Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>())),
    ])
    .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.flush().unwrap();
    RawBatch::new(Bytes::from(std::mem::take(writer.get_mut())), rows.len(), false)
}

fn sent(bound: &Arc<BoundRoute>, batches: &[&[Row]]) -> Vec<Encoded> {
    let rows = StreamRows::new(Arc::clone(bound), Decoder::ArrowIpc);
    let mut stitcher = rows.stitcher(&Attempt { name: "run:r/7:2", number: 3 }).unwrap();
    let mut sent = Vec::new();
    for batch in batches {
        let open = rows.apply(raw(batch), 0).unwrap().open.unwrap();
        sent.extend(stitcher.take(open).unwrap());
    }
    sent.extend(stitcher.end().unwrap());
    sent
}

/// The commands of a payload, each as its words.
fn commands(sent: &[Encoded]) -> Vec<Vec<String>> {
    let payload: Vec<u8> = sent.iter().flat_map(|encoded| encoded.payload.to_vec()).collect();
    let mut rest = &payload[..];
    let number = |rest: &mut &[u8]| {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let text = std::str::from_utf8(&rest[1..end]).unwrap().parse::<usize>().unwrap();
        *rest = &rest[end + 2..];
        text
    };
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let words = number(&mut rest);
        let mut command = Vec::with_capacity(words);
        for _ in 0..words {
            let length = number(&mut rest);
            command.push(String::from_utf8(rest[..length].to_vec()).unwrap());
            rest = &rest[length + 2..];
        }
        commands.push(command);
    }
    commands
}

fn row(a: i64, b: &str) -> Row {
    (Some(a), Some(b.to_owned()))
}

#[test]
fn a_stream_is_built_beside_its_key_and_put_in_its_place_whole() {
    let bound = bound("omit");
    let (one, two) = ([row(1, "x"), (None, None), (Some(2), None)], [row(3, "🚀")]);
    let sent = sent(&bound, &[&one, &two]);
    let found = commands(&sent);
    let temporary = found[1][1].clone();
    assert!(temporary.starts_with("rekindle:tmp:{") && temporary.ends_with("}:run:r/7:2:0"));
    let expected = [
        vec!["MULTI"],
        vec!["UNLINK", &temporary],
        vec!["XADD", &temporary, "1-0", "a", "1", "größe b", "x"],
        vec!["PEXPIRE", &temporary, "3600000"],
        vec!["EXEC"],
        vec!["XADD", &temporary, "2-0", "a", "2"],
        vec!["PEXPIRE", &temporary, "3600000"],
        vec!["XADD", &temporary, "3-0", "a", "3", "größe b", "🚀"],
        vec!["PEXPIRE", &temporary, "3600000"],
    ];
    assert_eq!(found[..9], expected);
    assert_eq!(sent[0].units[0].replies, 7);
    assert_eq!(found[9][0], "EVAL");
    assert_eq!(found[9][2..], ["2", &temporary, "log:3", "XLEN", "3", "0", "replace"]);
    assert_eq!(found.len(), 10);
    // Nothing is committed, and the key is not in the ledger, before the whole of it is on its way.
    let of = |encoded: &Encoded| {
        (encoded.is_settled, encoded.rows_read, encoded.carried, encoded.entries.len())
    };
    assert_eq!(
        sent.iter().map(of).collect::<Vec<_>>(),
        [(false, 3, 2, 0), (false, 1, 1, 0), (true, 0, 0, 1)]
    );
    assert_eq!((&sent[1].position, &sent[2].position), (&Position::Start, &Position::Unordered));
    assert_eq!((&sent[2].keys[..], sent[0].temporary.len()), (&b"log:3"[..], 1));
    let reasons = &sent[0].rejected.as_ref().unwrap().reasons;
    assert_eq!(reasons[..], ["every field is null, redis cannot hold an entry without fields"]);
}

#[test]
fn a_partition_without_entries_makes_no_stream() {
    let bound = bound("error");
    for batches in [vec![&[][..]], vec![&[(None, None)][..], &[]]] {
        let sent = sent(&bound, &batches);
        assert!(commands(&sent).is_empty());
        assert!(sent.last().unwrap().is_settled && sent.last().unwrap().entries.is_empty());
    }
    // A batch without rows between others, and one at the end, change nothing.
    let one = [row(1, "x")];
    let sent = sent(&bound, &[&[], &one, &[]]);
    assert_eq!(commands(&sent).len(), 7);
    assert_eq!(sent.last().unwrap().entries.len(), 1);
}

#[test]
fn tuples_are_hashed_as_their_entries_are_read() {
    let bound = bound("empty");
    let rows = [row(1, "x"), (Some(2), None), row(1, "x")];
    let found = StreamRows::new(Arc::clone(&bound), Decoder::ArrowIpc).hashes(&raw(&rows));
    let found = found.unwrap();
    let mut stored = StoredHash::new(&bound);
    let mut hashes = Vec::new();
    for pairs in [[("a", "1"), ("größe b", "x")], [("größe b", ""), ("a", "2")]] {
        stored.begin();
        for (name, value) in pairs {
            stored.push(name.as_bytes(), value.as_bytes());
        }
        hashes.push(stored.long_hash());
    }
    assert_eq!(found.hashes, [hashes[0], hashes[1], hashes[0]]);
    assert_eq!((found.rows, found.rejects), (3, 0));
    assert_eq!(Decoder::from(Lead::None), Decoder::CopyBinary(Lead::None));
}

fn any_row() -> impl Strategy<Value = Row> {
    (prop::option::of(any::<i64>()), prop::option::of(".{0,6}"))
}

proptest! {
    #[test]
    fn what_is_sent_reads_back_as_the_rows_however_they_are_cut(
        rows in prop::collection::vec(any_row(), 0..30),
        cuts in prop::collection::vec(0..30_usize, 0..6),
        null in prop::sample::select(vec!["omit", "empty", "error"]),
    ) {
        let bound = bound(null);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let batches: Vec<&[Row]> = cuts.windows(2).map(|pair| &rows[pair[0]..pair[1]]).collect();
        let sent = sent(&bound, &batches);
        let whole = super::tests::sent(&bound, &[&rows]);
        let entries: Vec<Vec<String>> =
            commands(&sent).into_iter().filter(|words| words[0] == "XADD").collect();
        // Every row that the policy takes is there once, in order, under the next number.
        let expected: Vec<Vec<(String, String)>> = rows.iter().filter_map(|(a, b)| {
            let cells = [("a", a.map(|a| a.to_string())), ("größe b", b.clone())];
            if null == "error" && cells.iter().any(|(_, cell)| cell.is_none()) {
                return None;
            }
            let fields: Vec<(String, String)> = cells
                .into_iter()
                .filter(|(_, cell)| null == "empty" || cell.is_some())
                .map(|(name, cell)| (name.to_owned(), cell.unwrap_or_default()))
                .collect();
            (!fields.is_empty()).then_some(fields)
        }).collect();
        let mut tally = Tally::default();
        let mut stored = StoredHash::new(&bound);
        for (number, (words, fields)) in entries.iter().zip(&expected).enumerate() {
            prop_assert_eq!(&words[2], &format!("{}-0", number + 1));
            let found: Vec<(String, String)> =
                words[3..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            prop_assert_eq!(&found, fields);
            stored.begin();
            for (name, value) in &found {
                stored.push(name.as_bytes(), value.as_bytes());
            }
            tally.push_entry(stored.value_hash());
        }
        prop_assert_eq!(entries.len(), expected.len());
        let written = sent.iter().flat_map(|encoded| &encoded.entries).collect::<Vec<_>>();
        prop_assert_eq!(written.len(), usize::from(!entries.is_empty()));
        prop_assert!(written.iter().all(|entry| entry.value_hash == tally.value_hash()));
        let sum = |sent: &[Encoded]| {
            let mut digest = Digest::default();
            for encoded in sent {
                digest += encoded.digest;
            }
            digest
        };
        prop_assert_eq!(sum(&sent), sum(&whole));
        for encoded in &sent {
            let replies: u64 = encoded.units.iter().map(|unit| u64::from(unit.replies)).sum();
            prop_assert_eq!(replies, commands(std::slice::from_ref(encoded)).len() as u64);
            let rejects = encoded.rejected.as_ref().map_or(0, |rejected| rejected.reasons.len());
            prop_assert_eq!(encoded.rows_read, encoded.carried + rejects as u64);
        }
    }
}
