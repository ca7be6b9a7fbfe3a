//! Files from the outside: every row comes back, and without the key nothing does.

use super::*;
use arrow::array::{ArrayRef, IntervalMonthDayNanoArray, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::IntervalMonthDayNano;

const WORD: &str = "a-word-that-nobody-else-writes";

fn key(digit: &str) -> EncryptKey {
    EncryptKey::parse(&digit.repeat(64)).unwrap()
}

/// Intervals at the top, in a list and in a struct; nulls; texts.
fn rows(count: usize) -> RecordBatch {
    let interval = |row: usize| {
        let number = i32::try_from(row).unwrap();
        (!row.is_multiple_of(3))
            .then(|| IntervalMonthDayNano::new(number, -number, i64::from(number) * 7))
    };
    let intervals =
        || IntervalMonthDayNanoArray::from((0..count).map(interval).collect::<Vec<_>>());
    let texts = (0..count).map(|row| (!row.is_multiple_of(4)).then(|| format!("{WORD} {row}")));
    let texts: ArrayRef = Arc::new(StringArray::from(texts.collect::<Vec<_>>()));
    let item = Arc::new(Field::new("item", INTERVAL, true));
    let one_each = OffsetBuffer::from_lengths(std::iter::repeat_n(1, count));
    let listed: ArrayRef = Arc::new(ListArray::new(item, one_each, Arc::new(intervals()), None));
    let member = Arc::new(Field::new("iv", INTERVAL, true));
    let inside: ArrayRef =
        Arc::new(StructArray::from(vec![(member, Arc::new(intervals()) as ArrayRef)]));
    let top: ArrayRef = Arc::new(intervals());
    RecordBatch::try_from_iter([
        ("top", top),
        ("listed", listed),
        ("inside", inside),
        ("text", texts),
    ])
    .unwrap()
}

fn file_of(rows: &RecordBatch, key: Option<&EncryptKey>) -> Bytes {
    let labels = [("rekindle.table", "d.t".to_owned())];
    let mut bodies = encode(std::slice::from_ref(rows), &labels, key).unwrap();
    assert_eq!(bodies.len(), 1);
    bodies.remove(0).bytes.into()
}

fn holds(file: &Bytes, word: &str) -> bool {
    file.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn every_row_comes_back_with_its_type_at_any_depth() {
    for (rows, key) in [(rows(1000), None), (rows(1000), Some(key("a"))), (rows(0), None)] {
        let file = file_of(&rows, key.as_ref());
        let (read, digest) = decode(file, key.as_ref()).unwrap();
        assert_eq!(read, rows);
        assert_eq!(digest, Some(block::digest(&rows).unwrap()));
    }
    // A part of a batch is as good as a whole one.
    let part = rows(1000).slice(17, 300);
    assert_eq!(decode(file_of(&part, None), None).unwrap().0, part);
}

#[test]
fn large_files_are_cut_and_no_row_is_lost() {
    let wide: Vec<String> = (0..300_000_u64)
        .map(|row| {
            format!(
                "{:032x}",
                u128::from(row).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
            )
        })
        .collect();
    let column: ArrayRef = Arc::new(StringArray::from(wide));
    let rows = RecordBatch::try_from_iter([("id", column)]).unwrap();
    let bodies = encode(std::slice::from_ref(&rows), &[], None).unwrap();
    assert!(bodies.len() > 1 && bodies.iter().all(|body| body.bytes.len() <= FILE_BYTES_MAX));
    let read: Vec<RecordBatch> =
        bodies.into_iter().map(|body| decode(body.bytes.into(), None).unwrap().0).collect();
    assert_eq!(concat_batches(rows.schema_ref(), &read).unwrap(), rows);
}

#[test]
fn without_its_key_a_file_tells_only_which_key_it_wants() {
    let (own, other) = (key("a"), key("b"));
    let file = file_of(&rows(500), Some(&own));
    assert!(!holds(&file, WORD) && holds(&file, &own.id_text()));
    assert!(!holds(&file, "text"), "the names of columns are in the footer, which is encrypted");
    assert_eq!(key_id(file.clone()).unwrap(), Some(own.id_text()));
    assert_eq!(key_id(file_of(&rows(5), None)).unwrap(), None);
    let refused = decode(file.clone(), Some(&other)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Config);
    let told = refused.to_string();
    assert!(told.contains(&own.id_text()) && told.contains(&other.id_text()), "{told}");
    let refused = decode(file, None).unwrap_err();
    assert_eq!(refused.kind(), Kind::Config);
    assert!(refused.to_string().contains("has no encrypt_key"), "{refused}");
}

#[test]
fn what_is_no_file_or_was_altered_is_a_difference() {
    let own = key("a");
    let mut altered = file_of(&rows(500), Some(&own)).to_vec();
    altered[100] ^= 1;
    for file in [Vec::new(), b"PAR1PAR1".to_vec(), b"....PARE".to_vec(), altered] {
        let refused = decode(file.into(), Some(&own)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Difference, "{refused}");
    }
}
