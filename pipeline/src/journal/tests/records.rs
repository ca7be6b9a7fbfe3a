//! Records: what goes in comes out, and partitions keep their epochs whatever happens to the cut.

use super::*;
use crate::checkpoint::{IllegalTransition, Status};
use crate::journal::{Begun, JournalError, RunStatus, ServerRecord, SnapshotRecord};

#[tokio::test]
async fn every_record_survives_a_reopening() {
    let folder = folder();
    let journal = open(&folder).await;
    let run = journal.create_run(new_run(), vec![new_route("z"), new_route("a")]).await.unwrap();
    let other = journal
        .create_run(NewRun { command: "backup bigquery".to_owned(), ..new_run() }, Vec::new())
        .await
        .unwrap();
    let snapshot = new_snapshot(&run);
    let id = journal.add_snapshot(&snapshot).await.unwrap();
    let mut routes = [route(&run, "z"), route(&run, "a")];
    routes[1] = RouteRecord {
        shape: Some(table_shape()),
        reconcile: true,
        caught_up: Some(id),
        dropped_keys: 5,
        completed_ms: Some(9),
        ..routes[1].clone()
    };
    journal.update_route(&routes[1]).await.unwrap();
    let server = |role: &str, identity: &str| ServerRecord {
        run_id: run.id.clone(),
        role: role.to_owned(),
        identity: identity.to_owned(),
    };
    for server in [server("target", "1"), server("source", "2"), server("target", "3")] {
        journal.put_server(&server).await.unwrap();
    }
    let cut = [
        partition("a", 0),
        Partition { bounds: Bounds::KeyNull, newest_us: None, ..partition("a", 1) },
    ];
    journal.add_partitions(&run.id, &cut, 40).await.unwrap();
    journal.close().await;

    let journal = open(&folder).await;
    assert_eq!(journal.run(&run.id).await.unwrap().as_ref(), Some(&run));
    assert_eq!(journal.latest_run("backup bigquery").await.unwrap(), Some(other));
    assert_eq!(journal.routes(&run.id).await.unwrap(), routes);
    assert_eq!(
        journal.servers(&run.id).await.unwrap(),
        [server("source", "2"), server("target", "3")]
    );
    let NewSnapshot { run_id, xmin, xmax, taken_us, lsn, identity } = snapshot;
    let record = SnapshotRecord { id, run_id, xmin, xmax, taken_us, lsn, identity };
    assert_eq!(journal.snapshots(&run.id).await.unwrap(), [record]);
    let stored = journal.partitions(&run.id).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.partition.clone()).collect::<Vec<_>>(), cut);
    assert_eq!(stored.iter().map(|record| record.ordinal).collect::<Vec<_>>(), [40, 41]);
    assert_eq!(
        (stored[0].status, stored[0].epoch, &stored[0].position),
        (Status::Pending, 0, &Position::Start)
    );
}

#[tokio::test]
async fn a_run_is_unfinished_until_it_is_done_or_given_up() {
    let folder = folder();
    let journal = open(&folder).await;
    let run = journal.create_run(new_run(), Vec::new()).await.unwrap();
    let expected = [
        (RunStatus::Running, true),
        (RunStatus::Interrupted, true),
        (RunStatus::Failed, true),
        (RunStatus::Done, false),
        (RunStatus::Abandoned, false),
    ];
    for (status, is_unfinished) in expected {
        journal.set_run_status(&run.id, status, Some(5), Some("{}")).await.unwrap();
        let found = journal.unfinished_run(&run.command).await.unwrap();
        assert_eq!(found.is_some(), is_unfinished, "{status:?}");
        let latest = journal.latest_run(&run.command).await.unwrap().unwrap();
        assert_eq!(
            (latest.status, latest.ended_ms, latest.summary.as_deref()),
            (status, Some(5), Some("{}"))
        );
    }
    journal.note_attempt(&run.id).await.unwrap();
    let resumed = journal.run(&run.id).await.unwrap().unwrap();
    assert_eq!((resumed.status, resumed.attempts, resumed.ended_ms), (RunStatus::Running, 2, None));
    let error = journal.note_attempt("no such run").await.unwrap_err();
    assert!(matches!(error, JournalError::Mismatch { .. }), "{error:?}");
    assert!(journal.unfinished_run("verify redis").await.unwrap().is_none());
}

#[tokio::test]
async fn an_attempt_raises_the_epoch_and_keeps_the_first_snapshot() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let id = partition("builds", 0).id;
    let first = journal.add_snapshot(&new_snapshot(&run)).await.unwrap();
    let second = journal.add_snapshot(&new_snapshot(&run)).await.unwrap();
    assert!(second > first);
    let begun = journal.begin(&run.id, &id, first).await.unwrap();
    assert_eq!(begun, Begun { epoch: 1, position: Position::Start, ledger_bytes: 0, rejects: 0 });
    journal.fail(&run.id, &id, 1, "cannot read").await.unwrap();
    assert_eq!(only(&journal, &run).await.error.as_deref(), Some("cannot read"));
    assert_eq!(journal.begin(&run.id, &id, second).await.unwrap().epoch, 2);
    let record = only(&journal, &run).await;
    assert_eq!((record.first_snapshot, record.last_snapshot), (Some(first), Some(second)));
    assert_eq!((record.status, record.epoch, record.attempts), (Status::Running, 2, 2));
    // The attempt before can no longer report anything.
    let error = journal.fail(&run.id, &id, 1, "late").await.unwrap_err();
    assert!(matches!(error, JournalError::Fenced { epoch: 1, .. }), "{error:?}");
    assert_eq!(only(&journal, &run).await, record);
}

#[tokio::test]
async fn a_failed_change_leaves_nothing_behind() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let cut = [partition("builds", 7), partition("builds", 0)];
    let error = journal.add_partitions(&run.id, &cut, 1).await.unwrap_err();
    assert!(
        matches!(&error, JournalError::Mismatch { name, .. } if name == "builds/0"),
        "{error:?}"
    );
    only(&journal, &run).await;
    let unknown = partition("builds", 9).id;
    let error = journal.begin(&run.id, &unknown, None).await.unwrap_err();
    assert!(matches!(error, JournalError::Mismatch { .. }), "{error:?}");
    // A partition of a route that was never recorded would be an orphan.
    let orphan = journal.add_partitions(&run.id, &[partition("nowhere", 0)], 1).await;
    assert!(matches!(orphan, Err(JournalError::Sql { .. })));
}

#[tokio::test]
async fn a_new_cut_and_a_reset_start_over_with_the_epoch_kept() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 2).await;
    let [zero, one] = [partition("builds", 0), partition("builds", 1)];
    let snapshot = journal.add_snapshot(&new_snapshot(&run)).await.unwrap();
    for _ in 0..3 {
        journal.begin(&run.id, &zero.id, snapshot).await.unwrap();
    }
    journal.reset_partitions(&run.id, "builds", std::slice::from_ref(&zero.id)).await.unwrap();
    assert_eq!(journal.partitions(&run.id).await.unwrap().remove(0).attempts, 3);
    journal.reset_partitions(&run.id, "builds", &[]).await.unwrap();
    let record = journal.partitions(&run.id).await.unwrap().remove(0);
    assert_eq!((record.status, record.epoch, record.attempts), (Status::Pending, 3, 0));
    assert_eq!(
        (record.first_snapshot, record.last_snapshot, record.counts),
        (None, None, Counts::default())
    );

    journal.void_partitions(&run.id, "builds").await.unwrap();
    assert!(journal.partitions(&run.id).await.unwrap().is_empty());
    let error = journal.begin(&run.id, &one.id, snapshot).await.unwrap_err();
    assert!(
        matches!(error, JournalError::Illegal { source: IllegalTransition::Status { .. }, .. }),
        "{error:?}"
    );
    let recut = Partition { bounds: Bounds::Whole, ..zero.clone() };
    journal.add_partitions(&run.id, std::slice::from_ref(&recut), 0).await.unwrap();
    let record = only(&journal, &run).await;
    assert_eq!((record.partition, record.status, record.epoch), (recut, Status::Pending, 3));
    assert_eq!(journal.begin(&run.id, &zero.id, snapshot).await.unwrap().epoch, 4);
    let void = journal.void_partitions_of(&run.id).await.unwrap();
    assert_eq!(void.into_iter().map(|record| record.partition.id).collect::<Vec<_>>(), [one.id]);
}
