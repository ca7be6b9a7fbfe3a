//! `rekindle verify`: its flags, and how what it found is told.
//!
//! Invariant: a flag that means nothing beside the others is refused; what is removed is asked for by name.

use super::args::Shared;
use super::failure::{Failure, tell};
use super::help::EXIT_CODES;
use super::on_problem::ProblemFlags;
use super::signals::Signals;
use super::{evidence, leave_stopped_out, print, tell_errors, watch};
use crate::outcome::Exit;
use crate::rebuild::{self, Watcher};
use crate::verify::bigquery::{BigQueryOptions, verify_bigquery};
use crate::verify::redis::{RedisOptions, Repair, verify_redis};
use crate::verify::tier::{SAMPLE_DEFAULT, SAMPLE_MAX};
use crate::verify::{self, Ended, Options, Told};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::MultiProgress;
use schemas::Plan;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

const ABOUT_REDIS: &str = "Compares the rows of the routes with the keys that Redis holds";

const AFTER_REDIS: &str = "\
Tiers:
  count   is every row's key there, with its expiry? No value is looked at
  sample  count, and the values of N keys per route, spread evenly by the hash of the key;
          10,000 find damage of 0.03 % of the values or more with 95 % probability
  full    every key, value and expiry, and a SCAN for keys that no row explains
A key that differs is asked for again, at both ends, until neither moves.
Without --repair nothing is written; --repair writes what --repair --dry-run has shown.
Exit code 0 is pass; 4 is fail, or inconclusive where keys never stopped moving; 7 more rejects
than the plan allows.

";

const ABOUT_BIGQUERY: &str = "Compares the tables of BigQuery with their duplicate in Redis";

const AFTER_BIGQUERY: &str = "\
Tiers:
  count   rows of every table partition, and the length of every block; no value is looked at
  sample  count, and at least 20 table partitions (or as many as have N rows) read on both sides and compared by
          digest, and 300 blocks of the others checked; of rows that an application keeps, about N by their key
  full    every block and every row of both sides; what differs is named by table partition and by row_key
What BigQuery changed since the backup is no difference: it is compared as of the time of its copy.
What BigQuery has lost since is one (exit 4), as for a backup.
--repair copies damaged table partitions again from BigQuery, by a backup of their routes, which copies what is new or
changed as well. BigQuery is never written, nor are rows that an application keeps.
Verdict: pass is exit code 0; fail and inconclusive are 4.

";

/// What can be verified.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// Redis.
    #[command(about = ABOUT_REDIS, after_help = format!("{AFTER_REDIS}{EXIT_CODES}"))]
    Redis(VerifyRedis),
    /// BigQuery.
    #[command(about = ABOUT_BIGQUERY, after_help = format!("{AFTER_BIGQUERY}{EXIT_CODES}"))]
    Bigquery(VerifyBigquery),
}

impl Target {
    /// The command's name in summaries and evidence.
    fn command(&self) -> &'static str {
        match self {
            Self::Redis(_) => "verify redis",
            Self::Bigquery(_) => "verify bigquery",
        }
    }
}

/// Flags of every `verify`.
#[derive(Debug, Args)]
pub struct TierFlags {
    /// How much is compared: count, sample or full
    #[arg(long, value_name = "TIER", value_enum, default_value_t = TierWord::Sample, hide_possible_values = true)]
    pub tier: TierWord,
    /// Values per route that a sample compares, 1 to 100000 [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SAMPLE_MAX)))]
    pub sample: Option<u32>,
    /// Take the sample that this number stands for; every run takes another one by default
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How long a system may stay unreachable before the command gives up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = schemas::duration::parse)]
    pub retry_for: Duration,
}

/// A tier as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierWord {
    /// Existence.
    Count,
    /// Existence, and some values.
    Sample,
    /// Everything.
    Full,
}

/// Flags of `verify redis`.
#[derive(Debug, Args)]
pub struct VerifyRedis {
    /// Flags it shares with `verify bigquery`.
    #[command(flatten)]
    pub tier: TierFlags,
    /// How long an application may take between its write to the source and its write to Redis
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_settle)]
    pub settle: Duration,
    /// Write again what the last --repair --dry-run has found missing or different, and verify once more
    #[arg(long)]
    pub repair: bool,
    /// With --repair: find and show what would be written, and write nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// With --repair: also remove this unexplained key, or all with a prefix that ends in *; may be given several times
    #[arg(long, value_name = "KEY", requires = "repair")]
    pub remove_unexplained: Vec<String>,
    /// Take the target over from this run, which must be dead
    #[arg(long, value_name = "RUN_ID")]
    pub take_over: Option<String>,
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
}

/// Flags of `verify bigquery`.
#[derive(Debug, Args)]
pub struct VerifyBigquery {
    /// Flags it shares with `verify redis`.
    #[command(flatten)]
    pub tier: TierFlags,
    /// Copy again from BigQuery what the last --repair --dry-run has found damaged in Redis, and verify once more
    #[arg(long)]
    pub repair: bool,
    /// With --repair: find and show what would be copied again, and write nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
}

/// Parses a duration that may be given in milliseconds: applications write faster than plans are made.
pub(super) fn parse_settle(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms").map(str::parse) {
        Some(Ok(milliseconds)) => schemas::duration::bounded(Duration::from_millis(milliseconds)),
        Some(Err(_)) => Err("must be a whole number and a unit, for example \"500ms\"".to_owned()),
        None => schemas::duration::parse(text),
    }
}

impl TierFlags {
    /// Returns the tier, or why the flags contradict each other.
    fn tier(&self) -> Result<verify::Tier, String> {
        match (self.tier, self.sample) {
            (TierWord::Sample, sample) => {
                Ok(verify::Tier::Sample(sample.unwrap_or(SAMPLE_DEFAULT)))
            }
            (_, Some(_)) => Err("--sample goes with --tier sample only".to_owned()),
            (TierWord::Count, None) => Ok(verify::Tier::Count),
            (TierWord::Full, None) => Ok(verify::Tier::Full),
        }
    }

    fn options(&self, shared: &Shared, signals: &Signals) -> Result<Options, String> {
        if shared.deadline.is_some() || shared.lost_at.is_some() {
            return Err(
                "--deadline and --lost-at go with recoveries; verify has no objective".into()
            );
        }
        Ok(Options {
            state: shared.state.clone(),
            lanes: shared.lanes.start,
            routes: shared.routes.clone(),
            tier: self.tier()?,
            // The standard library seeds every `RandomState` at random; 32 bits are easier to type again.
            seed: self.seed.unwrap_or_else(|| RandomState::new().hash_one(()) >> 32),
            retry_for: self.retry_for,
            cancel: signals.cancel.clone(),
        })
    }
}

impl VerifyRedis {
    fn options(&self, shared: &Shared, signals: &Signals) -> Result<RedisOptions, String> {
        let verify = self.tier.options(shared, signals)?;
        if !self.remove_unexplained.is_empty() && verify.tier != verify::Tier::Full {
            return Err("--remove-unexplained needs --tier full, which looks for such keys".into());
        }
        Ok(RedisOptions {
            verify,
            settle: self.settle,
            repair: repair(self.repair, self.dry_run),
            remove_unexplained: self.remove_unexplained.clone(),
            take_over: self.take_over.clone(),
        })
    }
}

impl VerifyBigquery {
    fn options(&self, shared: &Shared, signals: &Signals) -> Result<BigQueryOptions, String> {
        let verify = self.tier.options(shared, signals)?;
        Ok(BigQueryOptions { verify, repair: repair(self.repair, self.dry_run) })
    }
}

fn repair(repair: bool, dry_run: bool) -> Repair {
    match (repair, dry_run) {
        (false, _) => Repair::No,
        (true, true) => Repair::DryRun,
        (true, false) => Repair::Yes,
    }
}

/// Verifies, and tells what was found.
pub(super) async fn verify(
    shared: &Shared,
    target: &Target,
    bars: MultiProgress,
    signals: &Signals,
) -> Exit {
    let plan = match evidence::plan_of(shared, target.command()) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let display = Arc::new(watch::Display::new(shared.progress, bars));
    let watcher: Arc<dyn Watcher> = Arc::<watch::Display>::clone(&display);
    let ended = match target {
        Target::Redis(flags) => match flags.options(shared, signals) {
            Ok(options) => Box::pin(verify_redis(&plan, options, watcher)).await,
            Err(message) => return refuse(message, shared),
        },
        Target::Bigquery(flags) => match flags.options(shared, signals) {
            Ok(options) => Box::pin(verify_bigquery(&plan, options, watcher)).await,
            Err(message) => return refuse(message, shared),
        },
    };
    display.end();
    tell_ended(ended, shared, (&plan, target.command()), signals)
}

fn refuse(message: String, shared: &Shared) -> Exit {
    shared.noted.problem(message.as_str());
    tell(&[Failure::new(Exit::Usage, message, Some("rekindle verify --help"))], shared.json);
    Exit::Usage
}

fn tell_ended(
    ended: Ended,
    shared: &Shared,
    (plan, command): (&Plan, &str),
    signals: &Signals,
) -> Exit {
    let Ended { told, errors } = ended;
    let mut exits: Vec<Exit> = errors.iter().map(|error| Exit::of_kind(error.kind())).collect();
    if signals.is_received() {
        exits.push(Exit::Interrupted);
    }
    let mut ended = rebuild::Ended { summary: None, exits, errors };
    leave_stopped_out(&mut ended, signals.is_received());
    let mut summary = None;
    if let Some(Told { verdict, json, text }) = told {
        ended.exits.push(verdict.exit());
        ended.exits.push(print(shared.json, &json, || text));
        summary = Some(json);
    }
    // Nothing told and no error would be a defect.
    let exit = signals.name(ended.exits.iter().copied().min().unwrap_or(Exit::Internal));
    if let Some(summary) = &summary {
        evidence::keep(shared, plan, summary, (exit, &ended.errors));
    } else {
        evidence::keep_refusal(shared, plan, command, (exit, &ended.errors));
    }
    if ended.errors.is_empty() { exit } else { tell_errors(&ended.errors, Some(exit), shared.json) }
}
