//! Schedules against runs that there were, at made-up times.

use super::*;

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn record_of(cron: Option<&str>, recorded_at: &str) -> Record {
    Record {
        format: FORMAT,
        command: "backup bigquery".into(),
        cron: cron.map(str::to_owned),
        time_zone: Some("UTC".into()),
        line: None,
        recorded_at: recorded_at.into(),
        run_by: "tester".into(),
    }
}

fn stands(
    records: &[Record],
    runs: &[(&str, &str)],
    closed: &[(&str, &str)],
    now: &str,
) -> Option<Standing> {
    let spans = |spans: &[(&str, &str)]| -> Vec<(i64, i64)> {
        spans.iter().map(|(from, to)| (ms(from), ms(to))).collect()
    };
    let records: Vec<&Record> = records.iter().collect();
    standing(&records, &spans(runs), &spans(closed), ms(now)).unwrap()
}

/// Identity and number of times of everything that was missed.
fn missed(standing: &Standing) -> Vec<(String, usize)> {
    standing.missed.iter().map(|missed| (missed.id.clone(), missed.times)).collect()
}

fn daily() -> Vec<Record> {
    vec![record_of(Some("0 3 * * *"), "2026-11-25T12:00:00Z")]
}

#[test]
fn a_time_without_a_run_is_missed_once_its_grace_is_over() {
    let ran = [("2026-11-26T03:00:01Z", "2026-11-26T03:05:00Z")];
    let at = |now: &str| stands(&daily(), &ran, &[], now).unwrap();
    // Within the grace of the 27th nothing is missed yet.
    let early = at("2026-11-27T03:59:59Z");
    assert_eq!((missed(&early), early.is_behind), (vec![], false));
    assert_eq!(early.next_at.as_deref(), Some("2026-11-28T03:00:00Z"));
    let late = at("2026-11-27T04:00:00Z");
    assert_eq!(missed(&late), [("missed.20261127T0300Z".to_owned(), 1)]);
    assert!(late.is_behind);
    // Times in a row are one problem, whose name stays.
    let later = at("2026-11-29T12:00:00Z");
    assert_eq!(missed(&later), [("missed.20261127T0300Z".to_owned(), 3)]);
    assert_eq!(later.missed[0].last_at, "2026-11-29T03:00:00Z");
    assert!(
        later.line().contains("MISSED 3 times, the last at 2026-11-29T03:00:00Z"),
        "{}",
        later.line()
    );
}

#[test]
fn a_run_that_was_at_work_counts_however_it_began_and_ended() {
    for run in [
        // Begun before and still at work; begun at the last moment of the grace.
        ("2026-11-26T01:00:00Z", "2026-11-26T03:00:00Z"),
        ("2026-11-26T03:59:59Z", "2026-11-26T09:00:00Z"),
    ] {
        let standing = stands(&daily(), &[run], &[], "2026-11-26T12:00:00Z").unwrap();
        assert_eq!((missed(&standing), standing.is_behind), (vec![], false), "{run:?}");
    }
    // One that began after the grace does not make up for it, but nothing is behind any more.
    let late = [("2026-11-26T04:00:00Z", "2026-11-26T09:00:00Z")];
    let standing = stands(&daily(), &late, &[], "2026-11-26T12:00:00Z").unwrap();
    assert_eq!((standing.missed.len(), standing.is_behind), (1, false));
}

#[test]
fn what_is_closed_is_not_told_again_and_what_follows_has_a_name_of_its_own() {
    let closed = [("2026-11-26T03:00:00Z", "2026-11-27T03:00:00Z")];
    let standing = stands(&daily(), &[], &closed, "2026-11-27T12:00:00Z").unwrap();
    assert_eq!((missed(&standing), standing.is_behind), (vec![], false));
    let standing = stands(&daily(), &[], &closed, "2026-11-29T12:00:00Z").unwrap();
    assert_eq!(missed(&standing), [("missed.20261128T0300Z".to_owned(), 2)]);
    assert!(standing.is_behind);
}

#[test]
fn another_schedule_counts_from_where_it_was_recorded() {
    let mut records = daily();
    records.push(record_of(Some("0 */6 * * *"), "2026-11-26T12:00:00Z"));
    let standing = stands(&records, &[], &[], "2026-11-26T20:00:00Z").unwrap();
    assert_eq!(missed(&standing), [("missed.20261126T0300Z".to_owned(), 2)]);
    assert_eq!(standing.cron, "0 */6 * * *");
    // Taken back: what was missed stays, nothing new is expected.
    records.push(record_of(None, "2026-11-26T20:00:00Z"));
    let gone = stands(&records, &[], &[], "2026-12-26T20:00:00Z").unwrap();
    assert_eq!((gone.cron.as_str(), missed(&gone)[0].1, gone.is_behind), ("off", 2, false));
    let all = [("2026-11-26T03:00:00Z", "2026-11-26T18:00:00Z")];
    assert_eq!(stands(&records, &[], &all, "2026-12-26T20:00:00Z"), None);
}

#[test]
fn a_record_is_sealed_and_an_altered_one_refused() {
    let state = tempfile::tempdir().unwrap();
    let cron = Cron::parse("0 3 * * *").unwrap();
    assert_eq!(records(state.path()).unwrap(), []);
    let path = record(state.path(), "backup bigquery", Some(&cron), Some("a line")).unwrap();
    record(state.path(), "backup bigquery", None, None).unwrap();
    let found = records(state.path()).unwrap();
    let crons: Vec<Option<&str>> = found.iter().map(|record| record.cron.as_deref()).collect();
    assert_eq!(crons, [Some("0 3 * * *"), None]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("0 3", "0 4")).unwrap();
    let error = records(state.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Difference);
    assert!(error.to_string().contains("000001-backup-bigquery.json is not what"), "{error}");
}
