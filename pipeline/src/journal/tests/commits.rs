//! Group commits: progress only when durable, fences, gaps, failures that reach everybody.

use super::*;
use crate::checkpoint::{IllegalTransition, Status};
use crate::journal::{BeforeCommit, CommitHandle, Committer, JournalError, Result};
use futures::FutureExt;
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::task::JoinHandle;

/// So long that only a finish or a flush commits.
const NEVER: Duration = Duration::from_hours(1);

fn start(
    journal: &Journal,
    run: &RunRecord,
    interval: Duration,
) -> (CommitHandle, JoinHandle<Result<()>>) {
    start_with(journal, run, interval, Arc::new(|_| Ok(())))
}

fn start_with(
    journal: &Journal,
    run: &RunRecord,
    interval: Duration,
    before: BeforeCommit,
) -> (CommitHandle, JoinHandle<Result<()>>) {
    Committer::start(journal.clone(), run.id.clone(), interval, before)
}

#[tokio::test]
async fn commits_are_merged_and_finish_makes_them_durable() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    let epoch = journal.begin(&run.id, &zero.id, None).await.unwrap().epoch;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let before: BeforeCommit = Arc::new(move |partitions| {
        log.lock().unwrap().push(partitions.to_vec());
        Ok(())
    });
    let (handle, task) = start_with(&journal, &run, NEVER, before);
    assert_eq!(handle.commit_cost(), None);
    for block in 0..5 {
        handle.commit(delta(&zero, epoch, block, block + 1)).await.unwrap();
    }
    assert_eq!(
        only(&journal, &run).await.position,
        Position::Start,
        "nothing is claimed before it is durable"
    );
    handle.finish(&zero.id, epoch, 77).await.unwrap();

    let record = only(&journal, &run).await;
    assert_eq!((record.status, &record.position, record.busy_ms), (Status::Done, &at(5), 77));
    assert_eq!(record.ledger_bytes, 40);
    let expected = (0..5).try_fold(Counts::default(), |sum, _| sum.checked_add(counts(10)));
    assert_eq!(Some(record.counts), expected);
    assert_eq!(*seen.lock().unwrap(), [vec![zero.id.clone()]]);
    assert_eq!(handle.commits(), 1);
    assert!(handle.commit_cost().unwrap() > Duration::ZERO);
    drop(handle);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn lanes_share_a_transaction() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 20).await;
    let (handle, task) = start(&journal, &run, NEVER);
    for ordinal in 0..20 {
        let partition = partition("builds", ordinal);
        let epoch = journal.begin(&run.id, &partition.id, None).await.unwrap().epoch;
        handle.commit(delta(&partition, epoch, 0, 3)).await.unwrap();
    }
    handle.flush().await.unwrap();
    assert_eq!(handle.commits(), 1);
    assert!(
        journal.partitions(&run.id).await.unwrap().iter().all(|record| record.position == at(3))
    );
    drop(handle);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_interval_commits_without_being_asked() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    let epoch = journal.begin(&run.id, &zero.id, None).await.unwrap().epoch;
    let (called, calls) = mpsc::channel();
    let before: BeforeCommit = Arc::new(move |_| called.send(()).map_err(io::Error::other));
    let (handle, task) = start_with(&journal, &run, NEVER, before);
    handle.set_interval(Duration::from_millis(1));
    handle.commit(delta(&zero, epoch, 0, 1)).await.unwrap();
    tokio::task::spawn_blocking(move || calls.recv()).await.unwrap().unwrap();
    drop(handle);
    // The task may have been about to write: its end says that it has.
    task.await.unwrap().unwrap();
    assert_eq!(only(&journal, &run).await.position, at(1));
}

#[tokio::test]
async fn what_is_pending_is_committed_when_the_last_handle_goes() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    let epoch = journal.begin(&run.id, &zero.id, None).await.unwrap().epoch;
    let (handle, task) = start(&journal, &run, NEVER);
    let clone = handle.clone();
    drop(handle);
    clone.commit(delta(&zero, epoch, 0, 1)).await.unwrap();
    drop(clone);
    task.await.unwrap().unwrap();
    assert_eq!(only(&journal, &run).await.position, at(1));
}

#[tokio::test]
async fn an_attempt_that_lost_its_partition_changes_nothing() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 2).await;
    let [zero, one] = [partition("builds", 0), partition("builds", 1)];
    let old = journal.begin(&run.id, &zero.id, None).await.unwrap().epoch;
    let other = journal.begin(&run.id, &one.id, None).await.unwrap().epoch;
    let (handle, _task) = start(&journal, &run, NEVER);
    handle.commit(delta(&zero, old, 0, 1)).await.unwrap();
    let new = journal.begin(&run.id, &zero.id, None).await.unwrap().epoch;
    // The new attempt and the other partition commit in the very transaction that fences the old one.
    handle.commit(delta(&zero, new, 0, 4)).await.unwrap();
    handle.commit(delta(&one, other, 0, 2)).await.unwrap();
    handle.flush().await.unwrap();
    let records = journal.partitions(&run.id).await.unwrap();
    assert_eq!((records[0].epoch, &records[0].position, records[0].counts.rows), (new, &at(4), 10));
    assert_eq!(records[1].position, at(2));

    let error = handle.commit(delta(&zero, old, 1, 2)).await.unwrap_err();
    assert!(
        matches!(&error, JournalError::Fenced { partition, epoch } if *partition == zero.id && *epoch == old)
    );
    let error = handle.finish(&zero.id, old, 1).await.unwrap_err();
    assert!(matches!(error, JournalError::Fenced { .. }), "{error:?}");
    assert_eq!(journal.partitions(&run.id).await.unwrap(), records);
    handle.finish(&zero.id, new, 1).await.unwrap();
    handle.finish(&one.id, other, 1).await.unwrap();
}

#[tokio::test]
async fn spans_that_do_not_touch_are_refused() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 2).await;
    let [zero, one] = [partition("builds", 0), partition("builds", 1)];
    for partition in [&zero, &one] {
        journal.begin(&run.id, &partition.id, None).await.unwrap();
    }
    let is_gap = |result: Result<()>| {
        matches!(result, Err(JournalError::Illegal { source: IllegalTransition::Gap { .. }, .. }))
    };
    let (handle, _task) = start(&journal, &run, NEVER);
    handle.commit(delta(&zero, 1, 0, 1)).await.unwrap();
    assert!(is_gap(handle.commit(delta(&zero, 1, 2, 3)).await), "against what is pending");
    assert!(is_gap(handle.commit(delta(&zero, 1, 1, 2)).await), "and for good");
    handle.commit(delta(&one, 1, 5, 6)).await.unwrap();
    handle.flush().await.unwrap();
    assert!(is_gap(handle.finish(&one.id, 1, 0).await), "against what is durable");
    let records = journal.partitions(&run.id).await.unwrap();
    assert_eq!((&records[0].position, &records[1].position), (&at(1), &Position::Start));
    // A new attempt is not held to the mistakes of the one before.
    let begun = journal.begin(&run.id, &zero.id, None).await.unwrap();
    assert_eq!((begun.position, begun.ledger_bytes), (at(1), 8));
    handle.commit(delta(&zero, begun.epoch, 1, 2)).await.unwrap();
    handle.finish(&zero.id, begun.epoch, 0).await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_gives_up_keeps_what_it_achieved() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    journal.begin(&run.id, &zero.id, None).await.unwrap();
    let (handle, _task) = start(&journal, &run, NEVER);
    handle.commit(delta(&zero, 1, 0, 3)).await.unwrap();
    handle.fail(&zero.id, 1, "source went away").await.unwrap();
    let record = only(&journal, &run).await;
    assert_eq!((record.status, &record.position), (Status::Failed, &at(3)));
    assert_eq!(record.error.as_deref(), Some("source went away"));
    assert_eq!(journal.begin(&run.id, &zero.id, None).await.unwrap().position, at(3));
    handle.finish(&zero.id, 2, 0).await.unwrap();
    assert_eq!(only(&journal, &run).await.error, None);
}

#[tokio::test]
async fn unordered_rows_are_read_again_by_the_next_attempt() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    let (handle, _task) = start(&journal, &run, NEVER);
    for epoch in 1..3 {
        let begun = journal.begin(&run.id, &zero.id, None).await.unwrap();
        assert_eq!((begun.epoch, &begun.position), (epoch, &Position::Start));
        handle
            .commit(Delta { to: Position::Unordered, ..delta(&zero, epoch, 0, 1) })
            .await
            .unwrap();
        handle.flush().await.unwrap();
    }
    let record = only(&journal, &run).await;
    assert_eq!((record.position, record.counts), (Position::Unordered, counts(10)));
}

#[tokio::test]
async fn a_failing_journal_stops_every_lane() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 2).await;
    let [zero, one] = [partition("builds", 0), partition("builds", 1)];
    for partition in [&zero, &one] {
        journal.begin(&run.id, &partition.id, None).await.unwrap();
    }
    let (handle, task) = start(&journal, &run, NEVER);
    handle.commit(delta(&zero, 1, 0, 1)).await.unwrap();
    // Too large a position for the pages that are left stands for a full disk.
    sqlx::query("PRAGMA max_page_count = 1").execute(journal.pool()).await.unwrap();
    let to = Position::Key { text: "x".repeat(100_000) };
    handle.commit(Delta { to, ..delta(&one, 1, 0, 1) }).await.unwrap();
    let error = handle.finish(&zero.id, 1, 0).await.unwrap_err();
    let JournalError::Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(handle.commit(delta(&one, 1, 1, 2)).await, Err(JournalError::Io { .. })));
    assert!(matches!(handle.flush().await, Err(JournalError::Io { .. })));
    assert!(matches!(task.await.unwrap(), Err(JournalError::Io { .. })));
    let records = journal.partitions(&run.id).await.unwrap();
    assert!(
        records
            .iter()
            .all(|record| record.position == Position::Start && record.status == Status::Running)
    );
    assert_eq!(handle.commits(), 0);
}

#[tokio::test]
async fn nothing_is_committed_when_what_it_depends_on_is_not_durable() {
    let hooks: [BeforeCommit; 2] = [
        Arc::new(|_| Err(io::ErrorKind::StorageFull.into())),
        Arc::new(|_| panic!("a bug in the hook")),
    ];
    for before in hooks {
        let folder = folder();
        let (journal, run) = prepared(&folder, 1).await;
        let zero = partition("builds", 0);
        journal.begin(&run.id, &zero.id, None).await.unwrap();
        let (handle, task) = start_with(&journal, &run, NEVER, before);
        handle.commit(delta(&zero, 1, 0, 1)).await.unwrap();
        assert!(matches!(
            handle.finish(&zero.id, 1, 0).await,
            Err(JournalError::BeforeCommit { .. })
        ));
        assert!(matches!(task.await.unwrap(), Err(JournalError::BeforeCommit { .. })));
        assert_eq!(only(&journal, &run).await.position, Position::Start);
    }
}

#[tokio::test]
async fn an_aborted_committer_leaves_nobody_waiting() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let (handle, task) = start(&journal, &run, NEVER);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(matches!(handle.flush().await, Err(JournalError::Ended)));
    assert!(matches!(
        handle.commit(delta(&partition("builds", 0), 1, 0, 1)).await,
        Err(JournalError::Ended)
    ));
}

#[tokio::test]
async fn lanes_wait_while_a_commit_is_late() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 1).await;
    let zero = partition("builds", 0);
    journal.begin(&run.id, &zero.id, None).await.unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    // The disk hangs until the other end is dropped.
    let before: BeforeCommit = Arc::new(move |_| {
        held.lock().unwrap().recv().ok();
        Ok(())
    });
    let (handle, task) = start_with(&journal, &run, Duration::from_millis(1), before);
    let mut block = 0;
    let mut commit = |from: u32| {
        block = from + 1;
        let handle = handle.clone();
        let delta = delta(&zero, 1, from, from + 1);
        async move { handle.commit(delta).await }.boxed()
    };
    let mut from = 0;
    let waiting = loop {
        let mut next = commit(from);
        from += 1;
        match next.as_mut().now_or_never() {
            Some(result) => result.unwrap(),
            None => break next,
        }
        tokio::task::yield_now().await;
    };
    drop(release);
    waiting.await.unwrap();
    handle.finish(&zero.id, 1, 0).await.unwrap();
    assert_eq!(only(&journal, &run).await.position, at(block));
    drop(handle);
    task.await.unwrap().unwrap();
}
