//! Rebuilds from the archive that are killed, resumed, or find an archive that is younger or too old by then.
//!
//! Invariant: a run reads one complete backup of a table, or starts over; what it may read is decided by the journal.

use crate::archive::{backup, run, section};
use crate::archive_rebuild::{
    FROM_ARCHIVE, ROUTES, WORDS, archived, flush, in_redis, keys, lose_bigquery, rebuild,
    rebuild_archived,
};
use crate::cloud::Cloud;
use crate::crash::{assert_held, settle};
use crate::world::{Ran, wait_until};
use serde_json::json;
use stages::failpoint::{Point, VARIABLE};

/// Leaves a rebuild of one route that was killed when its first partition was done.
fn leave_unfinished(cloud: &Cloud, more: &[&str]) {
    let words = [&WORDS[..], &["--lanes", "1", "--route", "hot"], more].concat();
    let killed =
        cloud.command(&words).env(VARIABLE, Point::PartitionFinished.name()).output().unwrap();
    assert_eq!(killed.status.code(), None, "{}", Ran::of(&killed).stderr);
    settle(cloud.redis.port());
}

#[test]
fn a_killed_rebuild_goes_on_from_the_archive_only() {
    let (cloud, _) = archived(ROUTES);
    let hot = |more: &[&str]| rebuild(&cloud, &[&["--route", "hot"], more].concat());
    hot(&[]).expect(0);
    let before = in_redis(&cloud);
    flush(&cloud);
    // GIVEN a run from the archive that was killed in the middle
    leave_unfinished(&cloud, &FROM_ARCHIVE);
    let some = keys(&cloud);
    assert!(some > 1 && some < 470, "{some}");
    // WHEN it is resumed without the archive THEN it is refused, whether BigQuery is there or not
    let told = ["reads route hot from the archive", "rekindle rebuild redis --from archive"];
    hot(&[]).expect(2).says(&told);
    lose_bigquery(&cloud);
    hot(&[]).expect(2).says(&told);
    // AND with it, what is done is not read again
    let summary = hot(&FROM_ARCHIVE).expect(0).summary();
    assert_eq!((&summary["resumed"], &summary["rows"]), (&json!(1), &json!(470)));
    assert_held(&in_redis(&cloud), &before);
}

#[test]
fn a_run_that_reads_bigquery_does_not_go_on_from_the_archive() {
    let (cloud, _) = archived(ROUTES);
    leave_unfinished(&cloud, &[]);
    let hot = ["--route", "hot"];
    let told = ["begun without --from archive", "--from archive --fresh"];
    rebuild_archived(&cloud, &hot).expect(2).says(&told);
    let summary = rebuild_archived(&cloud, &["--route", "hot", "--fresh"]).expect(0).summary();
    assert_eq!(summary["rows"], 470);
    assert_eq!(keys(&cloud), 470);
}

#[test]
fn a_backup_in_between_starts_the_routes_over_and_nothing_of_both_is_mixed() {
    let (cloud, _) = archived(ROUTES);
    leave_unfinished(&cloud, &FROM_ARCHIVE);
    // WHEN rows change and are archived before it is resumed
    cloud.sql("UPDATE d.t SET name = 'changed' WHERE id >= 2000 AND id < 2050");
    cloud.insert(3, 3_500..3_550);
    backup(&cloud, &[]).expect(0);
    let summary = rebuild_archived(&cloud, &["--route", "hot"]).expect(0).summary();
    // THEN Redis holds the later state, as BigQuery would give it
    let found = in_redis(&cloud);
    assert_eq!(summary["archive"][0]["data_as_of"], summary["data_as_of"]);
    flush(&cloud);
    rebuild(&cloud, &["--route", "hot"]).expect(0);
    assert_held(&found, &in_redis(&cloud));
    assert!(found["hot:2000"].contains(&"name=changed".to_owned()));
}

#[test]
fn an_archive_that_is_too_old_for_the_objective_is_exit_6_and_the_data_is_there() {
    let (cloud, folder) = archived(ROUTES);
    let objective = "[objectives]\nredis = { rto = \"24h\", rpo = \"1s\" }\n";
    cloud.plan(&format!("{objective}{}{ROUTES}", section(&folder, "")));
    wait_until("an age of a second", || {
        let status = run(&cloud, &["status", "--json"]).summary();
        status["archives"][0]["age_seconds"].as_f64() > Some(1.0)
    });
    let summary = rebuild_archived(&cloud, &["--route", "hot"]).expect(6).summary();
    assert_eq!((&summary["within_rpo"], &summary["status"]), (&json!(false), &json!("done")));
    assert!(summary["rpo_seconds"].as_f64() > Some(1.0), "{summary}");
    assert_eq!(keys(&cloud), 470);
}
