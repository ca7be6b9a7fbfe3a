//! Restores in the journal: stages move as they may, streams and jobs are there before they are used.

use super::{folder, new_run, open};
use crate::journal::{JobRecord, JournalError, RestoreRecord};
use crate::restore::stage::{JobStage, StreamStage, TableStage};

fn record(run_id: &str) -> RestoreRecord {
    RestoreRecord {
        run_id: run_id.to_owned(),
        route: "logs".into(),
        choice: "{}".into(),
        stage: TableStage::Planned,
        staging: "t_1".into(),
        attempt: 1,
        findings: "{}".into(),
    }
}

#[tokio::test]
async fn a_restore_moves_stage_by_stage_and_starts_over_with_all_streams() {
    let folder = folder();
    let journal = open(&folder).await;
    let run = journal.create_run(new_run(), Vec::new()).await.unwrap();
    let mut restore = record(&run.id);
    let names = ["20261101".to_owned(), "__NULL__".to_owned()];
    journal.put_restore(&restore, &names).await.unwrap();
    journal.step_restore(&mut restore, TableStage::Staged).await.unwrap();
    assert!(journal.step_restore(&mut restore, TableStage::Published).await.is_err());
    let mut streams = journal.streams(&run.id, "logs").await.unwrap();
    assert_eq!(streams.len(), 2);
    streams[0].stream = Some("s/1".into());
    (streams[0].status, streams[0].acknowledged) = (StreamStage::Open, 7);
    journal.put_streams(&streams[..1]).await.unwrap();
    journal.close().await;
    let journal = open(&folder).await;
    assert_eq!(journal.streams(&run.id, "logs").await.unwrap(), streams);
    assert_eq!(journal.restores(&run.id).await.unwrap(), [restore.clone()]);
    (restore.stage, restore.attempt) = (TableStage::Planned, 2);
    journal.put_restore(&restore, &names).await.unwrap();
    let streams = journal.streams(&run.id, "logs").await.unwrap();
    assert!(streams.iter().all(|stream| stream.status == StreamStage::Planned));
}

#[tokio::test]
async fn a_stream_skips_no_stage_and_one_of_another_restore_is_refused() {
    let folder = folder();
    let journal = open(&folder).await;
    let run = journal.create_run(new_run(), Vec::new()).await.unwrap();
    journal.put_restore(&record(&run.id), &["p".to_owned()]).await.unwrap();
    let mut streams = journal.streams(&run.id, "logs").await.unwrap();
    streams[0].status = StreamStage::Committed;
    let error = journal.put_streams(&streams).await.unwrap_err();
    assert!(matches!(error, JournalError::Mismatch { .. }), "{error:?}");
    streams[0].table_partition = "other".into();
    assert!(journal.put_streams(&streams).await.is_err());
}

#[tokio::test]
async fn a_job_is_replaced_by_the_next_one_for_its_purpose() {
    let folder = folder();
    let journal = open(&folder).await;
    let run = journal.create_run(new_run(), Vec::new()).await.unwrap();
    journal.put_restore(&record(&run.id), &[]).await.unwrap();
    assert_eq!(journal.job(&run.id, "logs", "publish").await.unwrap(), None);
    let mut job = JobRecord {
        run_id: run.id.clone(),
        route: "logs".into(),
        purpose: "publish".into(),
        attempt: 1,
        job_id: "j1".into(),
        status: JobStage::Asked,
        answer: None,
    };
    journal.put_job(&job).await.unwrap();
    (job.attempt, job.job_id, job.status) = (2, "j2".into(), JobStage::Done);
    job.answer = Some("{}".into());
    journal.put_job(&job).await.unwrap();
    assert_eq!(journal.job(&run.id, "logs", "publish").await.unwrap(), Some(job));
}
