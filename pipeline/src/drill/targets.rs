//! The systems of a drill, connected: the scratch targets, and what serves beside them.
//!
//! Invariant: this only looks. A target that is a production server, or holds what no drill left there, is refused here,
//! before anything is touched.

use super::Asked;
use super::dataset::ScratchDataset;
use super::work::{Restore, Work};
use crate::backup::rows::keys_of;
use crate::rebuild::{Options, patiently};
use crate::wiring::{self, CONNECT_TIMEOUT};
use schemas::Plan;
use stages::connect::bigquery::BigQuery;
use stages::connect::redis::Endpoint;
use stages::load::TargetState;
use stages::load::redis::scratch::Scratch;
use stages::{Error, Kind, Result};

/// The scratch targets that this drill uses.
pub(super) struct Targets {
    pub(super) redis: Option<ScratchRedis>,
    pub(super) dataset: Option<ScratchDataset>,
}

/// The scratch Redis.
pub(super) struct ScratchRedis {
    pub(super) client: Scratch,
    /// Whether it is production that is emptied, as was confirmed twice.
    pub(super) is_production: bool,
}

/// A server that serves, and what it is called.
struct Serving {
    what: &'static str,
    address: String,
    state: TargetState,
}

fn client(url: &str) -> Result<Scratch> {
    Scratch::new(Endpoint::parse(url, CONNECT_TIMEOUT)?)
}

impl Targets {
    /// Looks at everything.
    pub(super) async fn find(
        plan: &Plan,
        work: &Work,
        options: &Options,
        asked: &Asked,
    ) -> Result<Self> {
        let redis = match &work.rebuild {
            Some(rebuild) => {
                let url = rebuild.plan.redis.as_ref().map_or("", |url| url.0.as_str());
                Some(find_redis(plan, url, options, asked).await?)
            }
            None => None,
        };
        let dataset = match &work.restore {
            Some(restore) => Some(find_dataset(restore, options).await?),
            None => None,
        };
        Ok(Self { redis, dataset })
    }
}

async fn find_redis(
    plan: &Plan,
    url: &str,
    options: &Options,
    asked: &Asked,
) -> Result<ScratchRedis> {
    let client = client(url)?;
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let state = patiently(retry_for, cancel, || client.state()).await?;
    let mut is_production = false;
    for serving in serving(plan, options).await? {
        let is_same = is_same_server(client.address(), &state, &serving)?;
        if !is_same {
            continue;
        }
        let is_target = serving.what == "[redis]" && serving.address == client.address();
        if !(asked.in_production && is_target) {
            return Err(refuse_serving(client.address(), &serving, asked));
        }
        is_production = true;
    }
    if asked.in_production {
        confirm(&client, is_production, asked)?;
        return Ok(ScratchRedis { client, is_production });
    }
    if state.entries > 0 && patiently(retry_for, cancel, || client.mark()).await?.is_none() {
        let message = format!(
            "redis at {} holds {} keys, and no drill left them there",
            client.address(),
            state.entries
        );
        return Err(Error::new(Kind::Config, message)
            .with_hint("name another scratch in [drill], or empty this one yourself: FLUSHDB"));
    }
    Ok(ScratchRedis { client, is_production })
}

/// The Redis servers of the plan; a drill runs while they serve, so one that is away is no reason to go on.
async fn serving(plan: &Plan, options: &Options) -> Result<Vec<Serving>> {
    let duplicate = plan.duplicate.as_ref().map(|section| &section.url);
    let mut found = Vec::new();
    // The duplicate first: a target that is both must not be taken for the cache alone.
    for (what, url) in [("[redis.duplicate]", duplicate), ("[redis]", plan.redis.as_ref())] {
        let Some(url) = url else { continue };
        let client = client(&url.0)?;
        let state = patiently(options.retry_for, &options.cancel, || client.state()).await?;
        found.push(Serving { what, address: client.address().to_owned(), state });
    }
    Ok(found)
}

/// Whether two are one server, a replica of it, or the same address: databases of one server share memory and fate.
fn is_same_server(address: &str, state: &TargetState, serving: &Serving) -> Result<bool> {
    let server =
        |address: &str| address.rsplit_once('/').map_or("", |(server, _)| server).to_owned();
    if server(address) == server(&serving.address) {
        return Ok(true);
    }
    let ids = [&state.process_id, &serving.state.process_id, &state.history_id];
    if ids.iter().any(|id| id.is_empty()) || serving.state.history_id.is_empty() {
        let message = format!(
            "redis at {address} or {} of the plan does not tell its run_id and master_replid, so nobody knows that they are two servers",
            serving.what
        );
        return Err(Error::new(Kind::Config, message)
            .with_hint("allow INFO to both users, or name another scratch in [drill]"));
    }
    Ok(state.process_id == serving.state.process_id || state.history_id == serving.state.history_id)
}

fn refuse_serving(address: &str, serving: &Serving, asked: &Asked) -> Error {
    let message = format!(
        "redis at {address} of [drill] is the server of {} ({}), or a replica of it: a drill empties it",
        serving.what, serving.address
    );
    let hint = if asked.in_production {
        "only the database of [redis] itself can be lost in production; name its url in [drill]"
    } else {
        "name another server in [drill]"
    };
    Error::new(Kind::Config, message).with_hint(hint)
}

/// The name of the target has to be typed exactly.
fn confirm(client: &Scratch, is_production: bool, asked: &Asked) -> Result<()> {
    let address = client.address();
    if !is_production {
        let message =
            format!("--in-production: redis at {address} of [drill] is not that of [redis]");
        return Err(Error::new(Kind::Config, message)
            .with_hint("leave --in-production away: a scratch needs no confirmation"));
    }
    if asked.confirm.as_deref() == Some(address) {
        return Ok(());
    }
    let message =
        format!("--confirm does not name the redis that would be emptied, which is {address}");
    Err(Error::new(Kind::Config, message).with_hint("type it exactly, or drill in a scratch"))
}

async fn find_dataset(restore: &Restore, options: &Options) -> Result<ScratchDataset> {
    let (retry_for, cancel) = (options.retry_for, &options.cancel);
    let connect = || wiring::connect_backup_source(&restore.plan);
    let bigquery = patiently(retry_for, cancel, connect).await?;
    has_backups(restore, options).await?;
    let location = location(&bigquery, restore, options).await?;
    let find = || ScratchDataset::find(bigquery.clone(), &restore.dataset, &location);
    patiently(retry_for, cancel, find).await
}

/// Without the record of a complete backup there is nothing to restore from.
async fn has_backups(restore: &Restore, options: &Options) -> Result<()> {
    let (duplicate, _) = wiring::make_duplicate(&restore.plan)?;
    for route in &restore.routes {
        let key = keys_of(route).run();
        let found = patiently(options.retry_for, &options.cancel, || duplicate.get(&key)).await?;
        if found.is_none() {
            let message = format!(
                "route {} has no complete backup in redis at {}",
                route.name,
                duplicate.address()
            );
            return Err(Error::new(Kind::Config, message)
                .with_hint("make one first: rekindle backup bigquery"));
        }
    }
    Ok(())
}

/// Where the tables are, as long as they are; else where the plan says.
async fn location(bigquery: &BigQuery, restore: &Restore, options: &Options) -> Result<String> {
    let datasets = restore.routes.iter().filter_map(super::work::table_of);
    for (dataset, _) in datasets {
        let find = || bigquery.dataset(dataset);
        let found = patiently(options.retry_for, &options.cancel, find).await?;
        if let Some(facts) = found {
            return Ok(facts.location);
        }
    }
    bigquery.location().map(str::to_owned).ok_or_else(|| {
        Error::new(
            Kind::Config,
            "no dataset of the plan is there to tell where the scratch belongs",
        )
        .with_hint("say it: location in [bigquery]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(process: &str, history: &str) -> TargetState {
        TargetState {
            process_id: process.to_owned(),
            history_id: history.to_owned(),
            version: "redis 7.0.0".to_owned(),
            entries: 0,
            used_bytes: 0,
            limit_bytes: None,
            eviction: "noeviction".to_owned(),
            evicted: 0,
            refusal: None,
        }
    }

    #[test]
    fn one_server_is_known_by_address_process_or_history() {
        let serving =
            |address: &str, state| Serving { what: "[redis]", address: address.into(), state };
        let is_same = |address: &str, other: TargetState| {
            is_same_server("drill:6379/1", &state("p", "h"), &serving(address, other)).unwrap()
        };
        assert!(is_same("drill:6379/0", state("q", "i")), "another database of one server");
        assert!(is_same("cache:6379/0", state("p", "i")), "another name of one process");
        assert!(is_same("cache:6379/0", state("q", "h")), "a replica");
        assert!(!is_same("cache:6379/0", state("q", "i")));
    }

    #[test]
    fn who_does_not_tell_who_it_is_is_refused() {
        let serving =
            Serving { what: "[redis]", address: "cache:1/0".into(), state: state("", "") };
        let error = is_same_server("drill:1/0", &state("p", "h"), &serving).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
    }
}
