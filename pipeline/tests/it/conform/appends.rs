//! The promises of what a restore writes by: write streams of a table, and the connections that append to them.
//!
//! Of the promises of `Sink` two have no meaning here: nothing replaces or keeps what was there (a stream only appends, and
//! a table that has rows is refused before), and a target carries no mark (a stream belongs to whoever knows its name).
//!
//! Invariant: what is in the table is asked by SQL; what was acknowledged is in it once, after a commit and not before.

use super::some_turns;
use crate::cloud::Cloud;
use crate::systems::is_soak;
use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use fixtures::servers::RedisOptions;
use stages::Kind;
use stages::connect::bigquery::BigQuery;
use stages::load::bigquery::{
    AppendFailure, Appender, CommitAnswer, IN_FLIGHT_BYTES_MAX, Piece, StreamState, WriteTable,
};
use stages::transform::arrow_rows::{cut, schema_message};
use std::sync::Arc;

/// Rows of a piece.
const ROWS: u64 = 500;

fn pieces_wanted() -> u64 {
    if is_soak() { 200 } else { 12 }
}

fn schema() -> SchemaRef {
    let ts = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", ts, true),
    ]))
}

/// Rows `from..from + rows` as one piece.
fn piece(from: u64, rows: u64) -> Piece {
    let ids = (from..from + rows).map(|id| i64::try_from(id).unwrap());
    let names = (from..from + rows).map(|id| format!("{id} {}", "x".repeat(1_000)));
    let rows_of = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(ids)),
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(
                TimestampMicrosecondArray::from(vec![None; usize::try_from(rows).unwrap()])
                    .with_timezone("UTC"),
            ),
        ],
    );
    let mut messages = cut(&rows_of.unwrap(), usize::MAX).unwrap();
    assert_eq!(messages.len(), 1);
    Piece { offset: from, rows, message: messages.remove(0).bytes }
}

struct Bench<'a> {
    cloud: &'a Cloud,
    table: WriteTable,
    schema: Bytes,
}

#[test]
fn a_stream_of_a_restore_keeps_the_promises_of_a_sink() {
    let mut cloud = Cloud::new(RedisOptions::default(), "");
    cloud.table("{}");
    let handle = cloud.tokio.handle().clone();
    let _inside = handle.enter();
    let bigquery = handle.block_on(connected(&cloud));
    let table = WriteTable::new(&bigquery, "d", "t");
    {
        let bench = Bench { cloud: &cloud, table: table.clone(), schema: message() };
        for rows in [0, 1, ROWS] {
            bench.rows_are_in_the_table_after_a_commit_and_once(rows);
        }
        bench.what_is_sent_again_is_there_once();
        bench.holes_and_ends_are_told();
        bench.a_broken_connection_goes_on_where_it_stopped();
        bench.a_dropped_appender_goes_on_where_it_stopped();
        bench.what_is_on_its_way_is_bounded();
        bench.a_commit_whose_answer_is_lost_is_found();
        bench.refusals_have_their_kind();
    }
    handle.block_on(async {
        let stream = table.create_stream().await.unwrap();
        let mut appender = table.append(&stream, message());
        appender.push(piece(0, 1)).await.unwrap();
        cloud.bigquery.kill().unwrap();
        let ended = loop {
            if let Err(failure) = appender.push(piece(1, 1)).await {
                break failure;
            }
        };
        assert!(is_transient(&ended), "{ended:?}");
        assert!(table.finalize(&stream).await.unwrap_err().kind().is_transient());
        assert!(table.state(&stream).await.unwrap_err().kind().is_transient());
        assert!(table.create_stream().await.unwrap_err().kind().is_transient());
    });
}

async fn connected(cloud: &Cloud) -> BigQuery {
    let text = std::fs::read_to_string(cloud.folder.path().join("rekindle.toml")).unwrap();
    let text = format!("{text}{}", crate::cloud::ROUTE);
    let plan =
        schemas::Plan::parse(&text, &|_| None, &|_| Err(std::io::Error::other("no file"))).unwrap();
    let section = plan.bigquery.as_ref().unwrap();
    stages::connect::bigquery::connect(section, rekindle::wiring::CONNECT_TIMEOUT).await.unwrap()
}

fn message() -> Bytes {
    schema_message(&schema()).unwrap()
}

/// Sends so many pieces and waits for every answer.
async fn send_all(mut appender: Appender, pieces: u64) -> Option<u64> {
    for number in 0..pieces {
        appender.push(piece(number * ROWS, ROWS)).await.unwrap();
    }
    appender.finish().await.unwrap()
}

fn is_transient(failure: &AppendFailure) -> bool {
    matches!(failure, AppendFailure::Failed(error) if error.kind().is_transient())
}

impl Bench<'_> {
    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.cloud.tokio.block_on(work)
    }

    /// The ids that are in the table, sorted.
    fn ids(&self) -> Vec<u64> {
        let lines = self.cloud.sql("SELECT id FROM d.t");
        let mut ids: Vec<u64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    fn empty(&self) {
        self.cloud.sql("DELETE FROM d.t WHERE TRUE");
    }

    fn append(&self, stream: &str) -> Appender {
        self.table.append(stream, self.schema.clone())
    }

    async fn end(&self, stream: &str, rows: u64) {
        assert_eq!(self.table.finalize(stream).await.unwrap(), Some(rows));
        assert_eq!(self.table.finalize(stream).await.unwrap(), Some(rows), "safe to repeat");
        assert_eq!(self.table.state(stream).await.unwrap(), StreamState::Pending);
        let answer = self.table.commit(&[stream.to_owned()]).await.unwrap();
        assert_eq!(answer, CommitAnswer::Committed);
    }

    fn rows_are_in_the_table_after_a_commit_and_once(&self, rows: u64) {
        self.empty();
        let stream = self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            let mut appender = self.append(&stream);
            assert_eq!(appender.acknowledged(), None);
            if rows > 0 {
                appender.push(piece(0, rows)).await.unwrap();
            }
            let acknowledged = appender.finish().await.unwrap();
            assert_eq!(acknowledged, (rows > 0).then_some(rows));
            stream
        });
        assert_eq!(self.ids(), [0_u64; 0], "nothing is there before the commit");
        self.block_on(self.end(&stream, rows));
        assert_eq!(self.ids(), (0..rows).collect::<Vec<_>>());
        let again = self.block_on(self.table.commit(std::slice::from_ref(&stream))).unwrap();
        assert!(matches!(again, CommitAnswer::Unclear(_)), "{again:?}");
        assert_eq!(self.block_on(self.table.state(&stream)).unwrap(), StreamState::Committed);
        assert_eq!(self.ids().len() as u64, rows, "committed twice, there once");
    }

    fn what_is_sent_again_is_there_once(&self) {
        self.empty();
        self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            for _ in 0..3 {
                let sent = send_all(self.append(&stream), 3).await;
                assert_eq!(sent, Some(3 * ROWS));
            }
            self.end(&stream, 3 * ROWS).await;
        });
        assert_eq!(self.ids(), (0..3 * ROWS).collect::<Vec<_>>());
    }

    fn holes_and_ends_are_told(&self) {
        self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            let failure = |outcome: Result<Option<u64>, AppendFailure>| outcome.unwrap_err();
            let send = async |stream: &str, from: u64| {
                let mut appender = self.append(stream);
                appender.push(piece(from, 1)).await?;
                appender.finish().await
            };
            assert!(matches!(failure(send(&stream, 5).await), AppendFailure::Beyond));
            send(&stream, 0).await.unwrap();
            self.end(&stream, 1).await;
            assert!(matches!(failure(send(&stream, 1).await), AppendFailure::Closed));
            let nobody = format!("{stream}0");
            assert!(matches!(failure(send(&nobody, 0).await), AppendFailure::Gone));
            assert_eq!(self.table.finalize(&nobody).await.unwrap(), None);
            assert_eq!(self.table.state(&nobody).await.unwrap(), StreamState::Gone);
        });
    }

    /// Sends pieces until they are all acknowledged, on a new connection after each failure; returns how many failed.
    async fn persist(&self, stream: &str, pieces: u64) -> u64 {
        let (mut acknowledged, mut failures) = (0, 0);
        while acknowledged < pieces * ROWS {
            let mut appender = self.append(stream);
            let outcome = async {
                for number in acknowledged / ROWS..pieces {
                    appender.push(piece(number * ROWS, ROWS)).await?;
                    acknowledged = appender.acknowledged().unwrap_or(0).max(acknowledged);
                }
                Ok::<_, AppendFailure>(())
            };
            let outcome = outcome.await;
            match outcome {
                Ok(()) => match appender.finish().await {
                    Ok(end) => acknowledged = end.unwrap_or(0).max(acknowledged),
                    Err(failure) => {
                        assert!(is_transient(&failure), "{failure:?}");
                        failures += 1;
                    }
                },
                Err(failure) => {
                    assert!(is_transient(&failure), "{failure:?}");
                    failures += 1;
                }
            }
        }
        failures
    }

    fn a_broken_connection_goes_on_where_it_stopped(&self) {
        for fault in ["unavailable", "drop_before_apply", "drop_after_apply"] {
            self.empty();
            self.cloud.fault("AppendRows", fault, 3, 2);
            let pieces = pieces_wanted();
            let failures = self.block_on(async {
                let stream = self.table.create_stream().await.unwrap();
                let failures = self.persist(&stream, pieces).await;
                self.end(&stream, pieces * ROWS).await;
                failures
            });
            self.cloud.no_faults();
            assert!(failures > 0, "{fault}: nothing failed");
            assert!(self.ids() == (0..pieces * ROWS).collect::<Vec<_>>(), "{fault}");
        }
    }

    fn a_dropped_appender_goes_on_where_it_stopped(&self) {
        self.empty();
        self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            for turns in (0..8).map(|power| 1 << power) {
                let sending = send_all(self.append(&stream), 4);
                some_turns(Box::pin(sending), turns).await;
            }
            assert_eq!(self.persist(&stream, 4).await, 0);
            self.end(&stream, 4 * ROWS).await;
        });
        assert_eq!(self.ids(), (0..4 * ROWS).collect::<Vec<_>>());
    }

    /// Behind answers that are held, no more is sent than may be on its way.
    fn what_is_on_its_way_is_bounded(&self) {
        self.cloud.fault("AppendRows", "delay_ms:3600000", 0, 1);
        self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            let mut appender = self.append(&stream);
            let large = piece(0, 6_000);
            let bytes = large.message.len();
            let mut taken = 0;
            let pushing = async {
                loop {
                    let offset = taken * 6_000;
                    appender.push(Piece { offset, ..large.clone() }).await.unwrap();
                    taken += 1;
                }
            };
            some_turns(Box::pin(pushing), 2_000).await;
            let most = (IN_FLIGHT_BYTES_MAX / bytes) as u64;
            assert_eq!(taken, most, "of {bytes} bytes each");
        });
        self.cloud.no_faults();
    }

    fn a_commit_whose_answer_is_lost_is_found(&self) {
        for (fault, state) in [
            ("drop_before_apply", StreamState::Pending),
            ("drop_after_apply", StreamState::Committed),
        ] {
            self.empty();
            self.block_on(async {
                let stream = self.table.create_stream().await.unwrap();
                self.persist(&stream, 1).await;
                assert_eq!(self.table.finalize(&stream).await.unwrap(), Some(ROWS));
                let streams = [stream.clone()];
                self.fault_once("BatchCommitWriteStreams", fault).await;
                let error = self.table.commit(&streams).await.unwrap_err();
                assert!(error.kind().is_transient(), "{error}");
                assert_eq!(self.table.state(&stream).await.unwrap(), state, "{fault}");
                if state == StreamState::Pending {
                    let answer = self.table.commit(&streams).await.unwrap();
                    assert_eq!(answer, CommitAnswer::Committed);
                }
            });
            assert_eq!(self.ids().len() as u64, ROWS, "{fault}");
        }
    }

    async fn fault_once(&self, method: &str, kind: &str) {
        let url = format!("{}/stand-in/faults", self.cloud.bigquery.rest_url());
        let fault = serde_json::json!({"method": method, "kind": kind, "after": 0, "times": 1});
        let told = reqwest::Client::new().post(url).json(&fault).send().await.unwrap();
        assert!(told.status().is_success());
    }

    /// A row that does not fit is named by its place; what is denied says so.
    fn refusals_have_their_kind(&self) {
        self.block_on(async {
            let stream = self.table.create_stream().await.unwrap();
            let other = Arc::new(Schema::new(vec![Field::new("nobody", DataType::Int64, true)]));
            let ids = Arc::new(Int64Array::from(vec![1, 2]));
            let rows = RecordBatch::try_new(Arc::clone(&other), vec![ids]).unwrap();
            let message = cut(&rows, usize::MAX).unwrap().remove(0).bytes;
            let mut appender = self.table.append(&stream, schema_message(&other).unwrap());
            appender.push(Piece { offset: 0, rows: 2, message }).await.unwrap();
            let failure = appender.finish().await.unwrap_err();
            let AppendFailure::Failed(error) = failure else { panic!("{failure:?}") };
            assert_eq!(error.kind(), Kind::Schema, "{error}");
            for (method, what) in [("CreateWriteStream", 0), ("FinalizeWriteStream", 1)] {
                self.fault_once(method, "deny").await;
                let error = match what {
                    0 => self.table.create_stream().await.map(drop).unwrap_err(),
                    _ => self.table.finalize(&stream).await.map(drop).unwrap_err(),
                };
                assert_eq!(error.kind(), Kind::Auth, "{method}: {error}");
            }
        });
    }
}
