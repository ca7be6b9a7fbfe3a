//! `rekindle bench`: measures, prints what it found, and keeps it as evidence.
//!
//! Invariant: the target of the plan is written to only where that was asked for.

use super::args::{Progress, Shared};
use super::failure::{self, Failure, tell};
use super::help::EXIT_CODES;
use super::signals::Signals;
use super::way::Way;
use super::{RETRY_FOR, evidence, plan_of, print, tell_errors};
use crate::bench::{Asked, System, bench as measure};
use crate::guard::Limits;
use crate::outcome::Exit;
use crate::rebuild::Options;
use clap::Args;
use std::path::PathBuf;

const AFTER: &str = "\
It reads parts of the plan's tables, spread evenly, and writes them by the very code of a rebuild into a Redis server of
its own on this machine, which is gone afterwards. The Redis of the plan is asked how full it is and nothing else, unless
--against names it as what to write to. What was measured is kept as evidence, and `rekindle plan` predicts from it. It
ends with 6 where the RTO would be missed, or where a limit of others (memory of Redis, quotas of BigQuery) would refuse
the whole.
`rekindle bench bigquery` backs parts of tables up into such a server and restores them into tables of its own in
staging_dataset, which are gone after every run: BigQuery bills what it reads and writes.

";

pub(super) fn after_help() -> String {
    format!("{AFTER}{EXIT_CODES}")
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Whose recovery: redis (rebuilds), or bigquery (backups and restores of routes of blocks)
    #[arg(value_name = "SYSTEM", value_enum, default_value_t = System::Redis, hide_possible_values = true)]
    pub system: System,
    /// Rows of all routes together, of bigquery those of each table, by size; of smaller tables a fifth, a half and all
    /// are measured
    #[arg(
        long,
        value_name = "N,N,N",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u64).range(1..),
        default_values_t = [200_000_u64, 500_000, 1_000_000]
    )]
    pub rows: Vec<u64>,
    /// How often each size is measured, 1 to 20
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub repeats: u8,
    /// Measure the largest size with so many lanes too, for example 1,2,4,8
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    pub try_lanes: Vec<u8>,
    /// Measure each route alone with half of its fields too, which tells time per row and time per byte apart
    #[arg(long)]
    pub widths: bool,
    /// Write into the plan's own Redis instead, under keys of the bench alone, which are removed after every run; refused
    /// where they would leave less than a fifth of its memory free
    #[arg(long, conflicts_with = "redis_server")]
    pub against: bool,
    /// The program of the server to write to [default: redis-server or valkey-server on the PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub redis_server: Option<PathBuf>,
    /// How hashes are written: auto, command (HSET) or restore (RESTORE); auto tries both at the start
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Way::Auto, hide_possible_values = true)]
    pub way: Way,
    /// How hard it may push.
    #[command(flatten)]
    pub limits: super::limits::LimitFlags,
}

impl Bench {
    /// A flag that was given and says nothing of backups and restores.
    fn not_for_bigquery(&self) -> Option<&'static str> {
        if self.system == System::Redis {
            return None;
        }
        if self.against {
            return Some("--against");
        }
        if self.widths {
            return Some("--widths");
        }
        let is_limited = self.limits.limits() != Limits::default();
        match (self.way, is_limited || self.limits.source_connections.is_some()) {
            (Way::Auto, false) => None,
            (Way::Auto, true) => Some("what limits how hard a run may push"),
            (Way::Command | Way::Restore, _) => Some("--way"),
        }
    }
}

pub(super) async fn bench(shared: &Shared, flags: &Bench, signals: &Signals) -> Exit {
    if shared.lost_at.is_some() {
        let message =
            "bench measures before there is a loss, so it starts no clock: --lost-at is not for it";
        let hint = "leave --lost-at out; --deadline is the time to compare with";
        tell(&[Failure::new(Exit::Usage, message, Some(hint))], shared.json);
        return Exit::Usage;
    }
    if let Some(flag) = flags.not_for_bigquery() {
        let message = format!("{flag} is for rebuilds, which bench bigquery makes none of");
        tell(&[Failure::new(Exit::Usage, message, Some("leave it out"))], shared.json);
        return Exit::Usage;
    }
    let plan = match plan_of(shared) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let options = Options {
        state: shared.state.clone(),
        lanes: flags.limits.lanes(shared.lanes),
        routes: shared.routes.clone(),
        deadline: shared.deadline,
        lost_at_ms: None,
        fresh: false,
        verify: true,
        retry_for: RETRY_FOR,
        outage: None,
        take_over: None,
        way: flags.way.choice(),
        cut_over: None,
        from_archive: false,
        to_rdb: None,
        share: None,
        limits: flags.limits.limits(),
        cancel: signals.cancel.clone(),
    };
    let asked = Asked {
        system: flags.system,
        rows: flags.rows.clone(),
        repeats: usize::from(flags.repeats),
        lanes: flags.try_lanes.iter().copied().map(usize::from).collect(),
        widths: flags.widths,
        against: flags.against,
        server: flags.redis_server.clone(),
    };
    let is_told = shared.progress != Progress::None;
    let told = |line: &str| {
        if is_told {
            failure::say(&format!("{line}\n"));
        }
    };
    let benched = Box::pin(measure(&plan, &options, &asked, &told)).await;
    let mut exit = benched.exits.iter().copied().min().unwrap_or(Exit::Internal);
    if let Some(report) = &benched.report {
        exit = exit.min(print(shared.json, report, || report.render()));
        evidence::keep(shared, &plan, report, (exit, &benched.errors));
    }
    let mut exit = signals.name(exit);
    if let Some(attempt) = &benched.attempt {
        exit = exit.min(print(shared.json, attempt, || attempt.render()));
        evidence::keep(shared, &plan, attempt, (exit, &benched.errors));
    }
    if benched.errors.is_empty() {
        return exit;
    }
    tell_errors(&benched.errors, Some(exit), shared.json)
}
