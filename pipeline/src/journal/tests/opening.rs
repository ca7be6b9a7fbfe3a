//! Opening: who may, what is refused, and that a refused file stays as it was.

use super::*;
use crate::journal::{JournalError, RunStatus};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("journal.sqlite")
}

async fn tamper(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn assert_refused_as_corrupt(folder: &TempDir) {
    let before = fs::read(file(folder)).unwrap();
    let error = Journal::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
    let error = Journal::open_read_only(folder.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
    assert_eq!(fs::read(file(folder)).unwrap(), before, "a refused file must not be touched");
}

#[tokio::test]
async fn a_second_writer_is_told_who_holds_the_folder() {
    let folder = folder();
    let journal = open(&folder).await;
    let error = Journal::open(folder.path()).await.unwrap_err();
    let JournalError::Locked { pid, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().ends_with(&format!("in use by process {}", std::process::id())));

    journal.close().await;
    open(&folder).await.close().await;
}

#[tokio::test]
async fn a_reader_needs_no_lock_and_may_not_write() {
    let folder = folder();
    assert!(Journal::open_read_only(folder.path()).await.unwrap().is_none());
    assert!(Journal::open_read_only(&folder.path().join("absent")).await.unwrap().is_none());

    let (journal, run) = prepared(&folder, 1).await;
    let reader = Journal::open_read_only(folder.path()).await.unwrap().unwrap();
    assert_eq!(reader.latest_run(&run.command).await.unwrap().unwrap(), run);
    // What is written later is seen too.
    journal.set_run_status(&run.id, RunStatus::Failed, Some(1), None).await.unwrap();
    assert_eq!(reader.run(&run.id).await.unwrap().unwrap().status, RunStatus::Failed);
    let error = reader.note_attempt(&run.id).await.unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    let parent = folder();
    let state_dir = parent.path().join("state");
    let journal = Journal::open(&state_dir).await.unwrap();
    journal.create_run(new_run(), Vec::new()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state_dir), 0o700);
    let entries: Vec<_> =
        fs::read_dir(&state_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() >= 3, "{entries:?}");
    for path in entries {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused() {
    let folder = folder();
    open(&folder).await.close().await;
    tamper(&file(&folder), "UPDATE format SET format = 2, written_by = '9.0.0'").await;
    let before = fs::read(file(&folder)).unwrap();
    let error = Journal::open(folder.path()).await.unwrap_err();
    assert!(
        matches!(&error, JournalError::Newer { found: 2, known: 1, written_by, .. } if written_by == "9.0.0")
    );
    let error = Journal::open_read_only(folder.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Newer { .. }));
    assert_eq!(fs::read(file(&folder)).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_refused_and_left_alone() {
    for content in [Vec::new(), b"garbage".to_vec(), vec![0xA5; 20_000]] {
        let folder = folder();
        fs::write(file(&folder), content).unwrap();
        assert_refused_as_corrupt(&folder).await;
    }
    let folder = folder();
    let options = SqliteConnectOptions::new().filename(file(&folder)).create_if_missing(true);
    options.connect().await.unwrap().close().await.unwrap();
    tamper(&file(&folder), "CREATE TABLE other (x)").await;
    assert_refused_as_corrupt(&folder).await;
}

#[tokio::test]
async fn a_truncated_journal_is_refused_and_left_alone() {
    for keep in [0.0, 0.01, 0.3, 0.9] {
        let folder = folder();
        let (journal, _) = prepared(&folder, 500).await;
        journal.close().await;
        let length = fs::metadata(file(&folder)).unwrap().len();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a fraction of a length"
        )]
        let kept = (length as f64 * keep) as u64;
        fs::OpenOptions::new().write(true).open(file(&folder)).unwrap().set_len(kept).unwrap();
        assert_refused_as_corrupt(&folder).await;
    }
}

#[tokio::test]
async fn a_log_without_its_journal_is_not_replayed_into_a_new_one() {
    let folder = folder();
    fs::write(folder.path().join("journal.sqlite-wal"), b"x").unwrap();
    let error = Journal::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
    assert!(!file(&folder).exists());
}

#[tokio::test]
async fn a_journal_that_was_never_completed_is_built_anew() {
    let folder = folder();
    for leftover in ["journal.sqlite.new", "journal.sqlite.new-wal"] {
        fs::write(folder.path().join(leftover), b"half").unwrap();
    }
    let journal = open(&folder).await;
    assert!(journal.latest_run("rebuild redis").await.unwrap().is_none());
}

#[tokio::test]
async fn a_row_that_does_not_parse_is_damage() {
    for sql in [
        "UPDATE partition SET position = '{\"at\":\"nowhere\"}'",
        "UPDATE partition SET status = 'busy'",
        "UPDATE partition SET rows = -1",
        "UPDATE partition SET bounds = ''",
    ] {
        let folder = folder();
        let (journal, run) = prepared(&folder, 1).await;
        journal.close().await;
        tamper(&file(&folder), sql).await;
        let journal = open(&folder).await;
        let error = journal.partitions(&run.id).await.unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "{sql}: {error:?}");
    }
}

/// The files as a crash would leave them: the log is not folded into the journal, nothing is closed.
fn crashed(folder: &TempDir) -> TempDir {
    let copy = super::folder();
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn after_a_crash_the_committed_is_there_and_the_rest_is_not() {
    let folder = folder();
    let (journal, run) = prepared(&folder, 3).await;
    let mut open_transaction = journal.write("test").await.unwrap();
    sqlx::query("UPDATE partition SET status = 'done'")
        .execute(&mut *open_transaction)
        .await
        .unwrap();
    let copy = crashed(&folder);
    drop(open_transaction);

    let reader = Journal::open_read_only(copy.path()).await.unwrap().unwrap();
    assert_eq!(
        reader.partitions(&run.id).await.unwrap(),
        journal.partitions(&run.id).await.unwrap()
    );
    reader.close().await;
    let survivor = open(&copy).await;
    assert_eq!(
        survivor.partitions(&run.id).await.unwrap(),
        journal.partitions(&run.id).await.unwrap()
    );
}
