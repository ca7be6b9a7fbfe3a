//! How old AlloyDB's own backups are, as its Admin API tells, against the recovery point objective.
//!
//! Invariant: only a list that was read whole, or a backup that is young enough, is a verdict; whatever could not be asked
//! is unknown, never met.

use crate::evidence::Verdict;
use crate::lane::now_ms;
use crate::summarize::rfc3339;
use schemas::Plan;
use schemas::plan::{AlloyDb, Cluster};
use serde::Serialize;
use stages::connect::alloydb_admin::{self, Backup, Backups, ClusterFacts};
use stages::{Error, Kind, Result};
use std::time::Duration;

/// How long all questions together may take.
const ASK_MAX: Duration = Duration::from_secs(15);
/// The state of a backup that can be restored from.
const READY: &str = "READY";

/// How the backups of a cluster stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupAge {
    /// The cluster, as the plan names it.
    pub cluster: String,
    /// Whether the newest usable backup is within the objective.
    pub verdict: Verdict,
    /// The newest usable backup.
    pub newest: Option<String>,
    /// Of which state of the cluster it is, RFC 3339.
    pub data_as_of: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<f64>,
    /// The recovery point objective.
    pub rpo_seconds: u64,
    /// Usable backups of the cluster that are known.
    pub usable: usize,
    /// Locations that the service could not reach.
    pub unreachable: Vec<String>,
    /// The oldest state that continuous backup can restore, RFC 3339; absent where that is off or could not be asked.
    pub continuous_from: Option<String>,
    /// Why, in one line.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Asks about the cluster that the plan names; `None` where it names none.
pub async fn backup_age(plan: &Plan) -> Option<BackupAge> {
    let cluster = plan.alloydb.as_ref().and_then(|AlloyDb { backups, .. }| backups.as_ref())?;
    let rpo = plan.alloydb_objective.rpo;
    let asked = match tokio::time::timeout(ASK_MAX, ask(cluster)).await {
        Ok(asked) => asked,
        Err(_) => Err(Error::new(
            Kind::Timeout,
            format!("the admin API of alloydb did not answer in {} s", ASK_MAX.as_secs()),
        )
        .with_hint("see that the network lets this machine reach it, then: rekindle check")),
    };
    Some(match asked {
        Ok((backups, facts)) => judge(cluster, rpo, &backups, facts.as_ref(), now_ms()),
        Err(error) => unknown(cluster, rpo, &error),
    })
}

async fn ask(cluster: &Cluster) -> Result<(Backups, Option<ClusterFacts>)> {
    let admin = alloydb_admin::connect(cluster, ASK_MAX).await?;
    let (backups, facts) = tokio::join!(admin.backups(), admin.cluster());
    // A cluster that is lost has backups all the same, and some accounts may list but not look.
    let facts = facts.inspect_err(|error| tracing::info!(%error, "the cluster is not known")).ok();
    Ok((backups?, facts))
}

fn unknown(cluster: &Cluster, rpo: Duration, error: &Error) -> BackupAge {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    BackupAge {
        cluster: cluster.path(),
        verdict: Verdict::Unknown,
        newest: None,
        data_as_of: None,
        age_seconds: None,
        rpo_seconds: rpo.as_secs(),
        usable: 0,
        unreachable: Vec::new(),
        continuous_from: None,
        detail: format!("{error}{}", cause.unwrap_or_default()),
        fix: error.hint().map(str::to_owned),
    }
}

/// Whether a backup is one of this very cluster, as far as is known, and can be restored from.
fn is_usable(backup: &Backup, cluster: &Cluster, facts: Option<&ClusterFacts>) -> bool {
    let in_project = cluster.path_in_project();
    let is_named = backup.cluster_name == cluster.path()
        || backup.cluster_name.strip_suffix(&in_project).is_some_and(|rest| rest.ends_with('/'));
    let is_other = facts.is_some_and(|facts| {
        !facts.uid.is_empty() && !backup.cluster_uid.is_empty() && facts.uid != backup.cluster_uid
    });
    backup.state == READY && is_named && !is_other
}

fn created_ms(backup: &Backup) -> Option<i64> {
    let time: jiff::Timestamp = backup.create_time.as_ref()?.parse().ok()?;
    Some(time.as_millisecond())
}

fn judge(
    cluster: &Cluster,
    rpo: Duration,
    found: &Backups,
    facts: Option<&ClusterFacts>,
    now_ms: i64,
) -> BackupAge {
    let usable: Vec<(&Backup, i64)> = found
        .backups
        .iter()
        .filter(|backup| is_usable(backup, cluster, facts))
        .filter_map(|backup| Some((backup, created_ms(backup)?)))
        .collect();
    let newest = usable.iter().copied().max_by_key(|(_, at)| *at);
    let age = newest.map(|(_, at)| (now_ms - at).max(0) as f64 / 1000.0);
    let is_young = age.is_some_and(|age| age <= rpo.as_secs_f64());
    let verdict = match (is_young, found.unreachable.is_empty()) {
        (true, _) => Verdict::Met,
        (false, true) => Verdict::Missed,
        (false, false) => Verdict::Unknown,
    };
    let continuous = facts.and_then(|facts| facts.continuous_backup_info.as_ref());
    let continuous_from = continuous.and_then(|window| window.earliest_restorable_time.clone());
    let mut detail = match (newest, age) {
        (Some((backup, at)), Some(age)) => format!(
            "{} of {}, data as of {}, {:.1} h old, {} the RPO of {} s",
            short(&backup.name),
            short(&cluster.path()),
            rfc3339(at),
            age / 3600.0,
            if is_young { "within" } else { "older than" },
            rpo.as_secs()
        ),
        _ => format!(
            "no usable backup of {} among the {} that are listed",
            short(&cluster.path()),
            found.backups.len()
        ),
    };
    if !found.unreachable.is_empty() {
        let places = found.unreachable.join(", ");
        detail = format!(
            "{detail}; the service could not reach {places}, where there may be newer ones"
        );
    }
    if let Some(from) = &continuous_from {
        detail = format!("{detail}; continuous backup restores any state since {from}");
    }
    let fix = match verdict {
        Verdict::Met => None,
        Verdict::Missed => Some(
            "see the automated backup policy of the cluster, and take one: gcloud alloydb backups create".to_owned(),
        ),
        Verdict::Unknown => Some("ask again later: rekindle check".to_owned()),
    };
    BackupAge {
        cluster: cluster.path(),
        verdict,
        newest: newest.map(|(backup, _)| backup.name.clone()),
        data_as_of: newest.map(|(_, at)| rfc3339(at)),
        age_seconds: age,
        rpo_seconds: rpo.as_secs(),
        usable: usable.len(),
        unreachable: found.unreachable.clone(),
        continuous_from,
        detail,
        fix,
    }
}

/// The last part of a name such as `projects/P/locations/L/backups/B`.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const NOW_MS: i64 = 1_790_000_000_000;

    fn cluster() -> Cluster {
        Cluster { project: "p".into(), location: "l".into(), name: "c".into(), endpoint: None }
    }

    fn backup(name: &str, hours: i64) -> Backup {
        Backup {
            name: format!("projects/p/locations/l/backups/{name}"),
            create_time: Some(rfc3339(NOW_MS - hours * HOUR_MS)),
            create_completion_time: None,
            state: READY.into(),
            kind: "AUTOMATED".into(),
            cluster_name: cluster().path(),
            cluster_uid: "this".into(),
        }
    }

    fn judged(backups: Vec<Backup>, unreachable: &[&str], uid: Option<&str>) -> BackupAge {
        let unreachable = unreachable.iter().map(ToString::to_string).collect();
        let facts = uid.map(|uid| ClusterFacts { uid: uid.into(), continuous_backup_info: None });
        let day = Duration::from_hours(24);
        judge(&cluster(), day, &Backups { backups, unreachable }, facts.as_ref(), NOW_MS)
    }

    #[test]
    fn the_newest_usable_backup_decides() {
        let met =
            judged(vec![backup("old", 47), backup("new", 23), backup("older", 71)], &[], None);
        assert_eq!((met.verdict, met.usable), (Verdict::Met, 3));
        assert_eq!(met.newest.as_deref(), Some("projects/p/locations/l/backups/new"));
        assert_eq!(met.age_seconds, Some(23.0 * 3600.0));
        let missed = judged(vec![backup("a", 25)], &[], Some("this"));
        assert_eq!(missed.verdict, Verdict::Missed);
        assert!(
            missed.detail.contains("25.0 h old, older than the RPO of 86400 s"),
            "{}",
            missed.detail
        );
        assert!(missed.fix.is_some());
        assert_eq!(judged(Vec::new(), &[], None).verdict, Verdict::Missed);
    }

    #[test]
    fn what_cannot_be_restored_from_or_is_of_another_cluster_does_not_count() {
        let with = |change: fn(&mut Backup)| {
            let mut young = backup("young", 1);
            change(&mut young);
            judged(vec![young, backup("old", 30)], &[], Some("this"))
        };
        let changes: [fn(&mut Backup); 6] = [
            |backup| backup.state = "CREATING".into(),
            |backup| backup.state = "FAILED".into(),
            |backup| backup.cluster_name = "projects/p/locations/l/clusters/other".into(),
            |backup| backup.cluster_uid = "an earlier one".into(),
            |backup| backup.create_time = None,
            |backup| backup.create_time = Some("yesterday".into()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let age = with(change);
            assert_eq!((age.verdict, age.usable), (Verdict::Missed, 1), "{number}");
        }
        // The project may be written as its number, and a uid that is not known excludes nothing.
        let numbered = with(|backup| {
            backup.cluster_name = "projects/123456/locations/l/clusters/c".into();
            backup.cluster_uid = String::new();
        });
        assert_eq!((numbered.verdict, numbered.usable), (Verdict::Met, 2));
        // But a cluster whose name only ends alike is another one.
        let alike =
            with(|backup| backup.cluster_name = "projects/p/xlocations/l/clusters/c".into());
        assert_eq!(alike.verdict, Verdict::Missed);
    }

    #[test]
    fn what_could_not_be_reached_is_unknown_unless_something_young_is_known() {
        let places = ["projects/p/locations/l"];
        let met = judged(vec![backup("young", 1)], &places, None);
        assert_eq!((met.verdict, met.unreachable.len()), (Verdict::Met, 1));
        for backups in [Vec::new(), vec![backup("old", 25)]] {
            let age = judged(backups, &places, None);
            assert_eq!(age.verdict, Verdict::Unknown);
            assert!(
                age.detail.contains("could not reach projects/p/locations/l"),
                "{}",
                age.detail
            );
        }
    }
}
