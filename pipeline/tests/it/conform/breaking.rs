//! What a source says when its system fails it: the kind of the error decides what a run does.
//!
//! Invariant: every line fails in every way that its system can.

use super::list::Line;
use super::reading::drain;
use crate::systems::{Systems, Wired};
use futures::future::join_all;
use rekindle::route::RouteRun;
use schemas::{Partition, Position};
use stages::extract::Columns;
use stages::{Kind, Result};

/// Breaks the systems in one way after the other; nothing works any more in the end.
pub(super) fn errors_have_their_kind(
    systems: &mut Systems,
    wired: &Wired,
    lines: &[(&Line, Partition)],
) {
    let kinds = |systems: &Systems, is_bigquery: bool| -> Vec<Kind> {
        let reads = lines
            .iter()
            .filter(|(line, _)| line.is_bigquery() == is_bigquery)
            .map(|(line, partition)| read(wired.route(line.name), partition));
        let outcomes = systems.cloud.tokio.block_on(join_all(reads));
        outcomes.into_iter().map(|outcome| outcome.unwrap_err().kind()).collect()
    };
    let all = |kinds: Vec<Kind>, kind: Kind, what: &str| {
        assert!(kinds.iter().all(|found| *found == kind), "{what}: {kinds:?}");
    };
    a_session_that_is_killed_may_be_tried_again(systems, wired, lines);
    systems.sql(
        "revoke pg_read_all_data from rekindle; alter table heap owner to postgres; alter view seen owner to postgres; \
         alter table parts owner to postgres; alter table parts_0 owner to postgres; alter table parts_1 owner to postgres",
    );
    all(kinds(systems, false), Kind::Auth, "without the right to read");
    systems.sql("grant pg_read_all_data to rekindle; drop view seen; drop table heap, parts");
    all(kinds(systems, false), Kind::Schema, "without the table");
    systems.postgres.stop(fixtures::servers::StopMode::Fast).unwrap();
    all(kinds(systems, false), Kind::Connection, "without a server");

    systems.cloud.fault("CreateReadSession", "deny", 0, 3);
    all(kinds(systems, true), Kind::Auth, "denied");
    systems.cloud.fault("CreateReadSession", "unavailable", 0, 1_000);
    all(kinds(systems, true), Kind::Unavailable, "not available");
    systems.cloud.no_faults();
    systems.cloud.delete_table();
    let told = kinds(systems, true);
    println!("without its table: {told:?}");
    systems.cloud.bigquery.kill().unwrap();
    let told = kinds(systems, true);
    assert!(told.iter().all(|kind| kind.is_transient()), "{told:?}");
}

async fn read(route: &RouteRun, partition: &Partition) -> Result<()> {
    let session = route.source.open().await?;
    drain(session.read(partition, &Position::Start, Columns::All)).await.map(drop)
}

/// A backend that an administrator ended says so; the next session works.
fn a_session_that_is_killed_may_be_tried_again(
    systems: &Systems,
    wired: &Wired,
    lines: &[(&Line, Partition)],
) {
    for (line, partition) in lines.iter().filter(|(line, _)| !line.is_bigquery()) {
        let route = wired.route(line.name);
        let session = systems.cloud.tokio.block_on(route.source.open()).unwrap();
        systems.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rekindle'",
        );
        let outcome = systems.cloud.tokio.block_on(async {
            drain(session.read(partition, &Position::Start, Columns::All)).await
        });
        let error = outcome.unwrap_err();
        assert!(error.kind().is_transient(), "{}: {error}", line.name);
        let again = systems.cloud.tokio.block_on(read(route, partition));
        assert!(again.is_ok(), "{}: {again:?}", line.name);
    }
}
