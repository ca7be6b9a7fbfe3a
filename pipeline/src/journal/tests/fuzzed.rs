//! Rows of a journal that somebody changed: a value of another kind is an error that names its column.

use crate::fuzzed::fuzz;
use crate::journal::row;
use fixtures::fuzz::Told;
use schemas::{Bounds, Position};
use sqlx::Connection;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// Columns of a partition whose texts and bytes are parsed; one line each in the corpus.
const PARSED: [&str; 5] = ["status", "position", "bounds", "digest_sum", "epoch"];
const REST: &str = "'p' as id, 'r' as route, 0 as rows, 0 as bytes, 0 as written, 0 as kept, 0 as folded, 0 as expired, \
                    0 as rejects, 7 as digest_count, 1 as rows_estimate, 2 as bytes_estimate, null as newest_us, \
                    3 as ordinal, null as first_snapshot, null as last_snapshot, 1 as attempts, null as error, \
                    4 as busy_ms, 5 as ledger_bytes";

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn a_row_of_a_journal_of_anybody() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut connection = tokio.block_on(SqliteConnection::connect("sqlite::memory:")).unwrap();
    let columns: Vec<String> = PARSED
        .iter()
        .enumerate()
        .map(|(number, name)| format!("?{} as {name}", number + 1))
        .collect();
    let sql = format!("select {}, {REST}", columns.join(", "));
    let corpus = [
        format!("done\n{}\n{}\n0123456789abcdef\n3", json(&Position::Start), json(&Bounds::Whole)),
        format!(
            "running\n{}\n{}\n0123456789abcdef\n0",
            json(&Position::Ctid { block: 7, offset: 2 }),
            json(&Bounds::Filter { condition: "a >= 1".into() })
        ),
    ];
    let corpus: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let words = ["\n", "\"Start\"", "{\"Ctid\":", "[[[[", "null", "-1", "9223372036854775808"];
    fuzz("a row of a journal", &corpus).words(&words).run(|input, _| {
        let mut lines = input.split(|byte| *byte == b'\n');
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql.as_str()));
        for name in PARSED {
            let value = lines.next().unwrap_or_default();
            let text = String::from_utf8_lossy(value).into_owned();
            query = match (name, text.parse::<i64>()) {
                ("digest_sum", _) => query.bind(value.to_vec()),
                ("epoch", Ok(number)) => query.bind(number),
                _ => query.bind(text),
            };
        }
        let row: SqliteRow = tokio.block_on(query.fetch_one(&mut connection)).unwrap();
        assert!(row.len() > PARSED.len());
        let read = row::partition(&row);
        if let Err(error) = &read {
            let said = error.to_string();
            assert!(PARSED.iter().any(|name| said.contains(name)), "no column is named: {said}");
        }
        Told::from(&read)
    });
}
