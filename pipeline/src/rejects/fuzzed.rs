//! Files of rejected rows that somebody else wrote or changed.

use super::file::{self, RejectBatch};
use crate::fuzzed::fuzz_bytes;
use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use fixtures::fuzz::Told;
use stages::Kind;
use std::fs;
use std::sync::Arc;

fn rows(count: i64) -> RecordBatch {
    let texts = |text: &'static str| {
        Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("{text} {n}"))))
            as ArrayRef
    };
    let numbers = || (0..count).map(|n| (n % 3 > 0).then_some(n));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(numbers().collect::<Int64Array>())),
        (
            "many",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..count).map(|n| Some((0..n % 4).map(Some))),
            )),
        ),
        (file::REASON, texts("column a: out of range")),
        (file::ROUTE, texts("route")),
        (file::PARTITION, texts("route/1")),
        (file::PLAN, texts("fingerprint")),
        (file::RAW, Arc::new(numbers().map(|n| n.map(i64::to_le_bytes)).collect::<BinaryArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn a_reject_file_of_anybody() {
    let folder = fixtures::fuzz::folder();
    let path = folder.path().join("a.parquet");
    let corpus = [3, 100].map(|count| {
        file::write(&path, &rows(count)).unwrap();
        fs::read(&path).unwrap()
    });
    let words = ["PAR1", "_reason", "_route", "_plan"];
    // A panic that is caught reads symbols for its backtrace first.
    fuzz_bytes("a reject file", corpus.to_vec()).words(&words).heap(64 << 20, 1024).run(
        |input, _| {
            fs::write(&path, input).unwrap();
            let mut taken = 0;
            let read = file::read(&path, &mut |batch: RejectBatch| {
                let RejectBatch { rows, reasons, routes, plans } = batch;
                assert_eq!([reasons.len(), routes.len(), plans.len()], [rows.num_rows(); 3]);
                taken += rows.num_rows();
                assert!(taken < 1 << 20, "more rows than any such file holds");
                Ok(())
            });
            if let Err(error) = &read {
                assert_eq!(error.kind(), Kind::Internal, "{error}");
            }
            Told::from(&read)
        },
    );
}
