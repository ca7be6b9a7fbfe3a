//! The command line: commands, flags, their defaults and bounds, and the help texts.
//!
//! Invariant: a flag is either honoured or refused; commands that are not built are refused by name and not shown.

use super::help::{ABOUT, ABOUT_REDIS, AFTER_REBUILD, EXAMPLES, EXIT_CODES};
use super::on_problem::{Noted, ProblemFlags};
pub use super::watch::Progress;
use super::way::Way;
use crate::plan::lost::Losses;
use crate::tuning::Lanes;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What `--version` says: of a program that can be killed at its boundaries, that too.
const VERSION: &str = if stages::failpoint::IS_COMPILED_IN {
    concat!(env!("CARGO_PKG_VERSION"), " (with failpoints)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "rekindle",
    version = VERSION,
    about = ABOUT,
    after_help = format!("{EXAMPLES}{EXIT_CODES}"),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a first plan from the schemas of live systems; never overwrites one
    #[command(after_help = EXIT_CODES)]
    Init(super::init::Init),
    /// Connects everywhere and tells, control by control, what is ready: OK, FAILED or UNKNOWN
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Tells what a run would do: partitions, rows, memory and time against the RTO; writes nothing
    #[command(after_help = EXIT_CODES)]
    Plan(PlanFlags),
    /// Rebuilds a system from its sources, or resumes the unfinished rebuild
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Rebuild {
        /// Which system.
        #[command(subcommand)]
        target: Target,
    },
    /// Prints the JSON Schema of the plan file, for editors
    Schema,
    /// Tells how the last run stands, also while it is at work
    #[command(after_help = EXIT_CODES)]
    Status(ProblemFlags),
    /// Backs a system up, only what is new or changed since the last time
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Backup {
        /// Which system.
        #[command(subcommand)]
        source: super::backup::Source,
    },
    /// Restores a system from what was kept of it, or resumes the unfinished restore
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Restore {
        /// Which system.
        #[command(subcommand)]
        target: super::restore::Target,
    },
    /// Compares both ends of the routes: what is missing, different or unexplained; pass, fail or inconclusive
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Verify {
        /// Which system.
        #[command(subcommand)]
        target: super::verify::Target,
    },
    /// Tells what rows could not be carried, and sends them through their routes again
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Rejects {
        /// What to do with them.
        #[command(subcommand)]
        command: super::rejects::Rejects,
    },
    /// Shows, exports or forgets what runs left in the state folder
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    State {
        /// What to do with it.
        #[command(subcommand)]
        command: super::state::State,
    },
    /// Reviews what runs left: problems first, who looked at them, and who closed which
    #[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Log {
        /// What to do with it.
        #[command(subcommand)]
        command: super::log::Log,
    },
    /// Lists the evidence of runs, or renders it as a report, after a look at its seals
    #[command(after_help = super::report::after_help())]
    Report(super::report::Report),
    /// Measures recoveries of parts of the tables, and predicts the whole against the RTO
    #[command(after_help = super::bench::after_help())]
    Bench(super::bench::Bench),
    /// Tests a recovery in scratch targets: loses, recovers, proves, measures, and takes them down
    #[command(after_help = super::drill::after_help())]
    Drill(super::drill::Drill),
    /// Known, not built yet.
    #[command(hide = true, disable_help_flag = true)]
    Demo(Rest),
}

impl Command {
    /// Returns the name of a command that is known but not built.
    pub fn not_built(&self) -> Option<&'static str> {
        match self {
            Self::Demo(_) => Some("demo"),
            Self::Init(_)
            | Self::Check(_)
            | Self::Plan(_)
            | Self::Rebuild { .. }
            | Self::Backup { .. }
            | Self::Restore { .. }
            | Self::Verify { .. }
            | Self::Rejects { .. }
            | Self::State { .. }
            | Self::Log { .. }
            | Self::Report(_)
            | Self::Bench(_)
            | Self::Drill(_)
            | Self::Schema
            | Self::Status(_) => None,
        }
    }
}

/// What can be rebuilt.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// Redis.
    #[command(about = ABOUT_REDIS, after_help = format!("{AFTER_REBUILD}{EXIT_CODES}"))]
    Redis(RebuildRedis),
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Exit with 2 when something could not be found out
    #[arg(long)]
    pub strict: bool,
    /// Scan the keys of a Redis in use, slowly, and tell which of them the plan explains
    #[arg(long)]
    pub coverage: bool,
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
}

/// Flags of `rebuild redis`.
#[derive(Debug, Args)]
pub struct RebuildRedis {
    /// What to run after a problem.
    #[command(flatten)]
    pub problem: ProblemFlags,
    /// Flags it shares with `plan`.
    #[command(flatten)]
    pub run: RunFlags,
    /// Take the target over from this run, which must be dead
    #[arg(long, value_name = "RUN_ID", conflicts_with = "cut_over")]
    pub take_over: Option<String>,
    /// Whether it writes files.
    #[command(flatten)]
    pub rdb: super::rdb::RdbFlags,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
pub struct PlanFlags {
    /// Flags it shares with `rebuild redis`.
    #[command(flatten)]
    pub run: RunFlags,
    /// Show N rows of each route as they are, 1 to 1000, and the exact commands they become
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sample: Option<u16>,
    /// What if these were lost: redis, bigquery, alloydb, redis.cache, redis.duplicate, several with a comma between. Tells
    /// for every dataset what survives, the order of recovery, and what nothing brings back (then exit 6); asks no system
    #[arg(long, value_name = "SYSTEMS", value_parser = Losses::parse, conflicts_with = "sample")]
    pub lost: Option<Losses>,
}

/// Flags of `plan` and `rebuild redis`.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// Read tables of BigQuery from the archive of the plan, as of its last complete backup; BigQuery is not asked
    #[arg(long, value_name = "PLACE", value_parser = ["archive"], hide_possible_values = true)]
    pub from: Option<String>,
    /// Start over instead of resuming the unfinished run
    #[arg(long)]
    pub fresh: bool,
    /// Do not read the target back; the run then ends as unverified, never as done
    #[arg(long)]
    pub no_verify: bool,
    /// How long a system may stay unreachable before the run gives up [default: 2m; once rows were carried, a 24th of what
    /// the RTO leaves, from 2m to 1h]
    #[arg(long, value_name = "DURATION", value_parser = schemas::duration::parse)]
    pub retry_for: Option<Duration>,
    /// How hashes are written: auto, command (HSET) or restore (RESTORE); auto tries both at the start. Values beyond the
    /// server's listpacks that never expire go to an empty Redis by HSET whatever is asked for
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Way::Auto, hide_possible_values = true)]
    pub way: Way,
    /// Build in the empty database DB of the same server, and swap it with the one of the plan when it is proven
    #[arg(long, value_name = "DB", conflicts_with = "no_verify")]
    pub cut_over: Option<u32>,
    /// How hard it may push.
    #[command(flatten)]
    pub limits: super::limits::LimitFlags,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Shared {
    /// The plan file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "REKINDLE_PLAN",
        hide_env_values = true,
        default_value = "rekindle.toml",
        help_heading = "Shared options"
    )]
    pub plan: PathBuf,
    /// Folder of the journal; never on a system that is being recovered
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "REKINDLE_STATE",
        hide_env_values = true,
        default_value = ".rekindle",
        help_heading = "Shared options"
    )]
    pub state: PathBuf,
    /// Only this route of the plan; may be given several times
    #[arg(long = "route", global = true, value_name = "NAME", help_heading = "Shared options")]
    pub routes: Vec<String>,
    /// Partitions on their way at once, 1 to 64, or auto: as the machine has cores, and more while that is faster
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value = "auto",
        value_parser = parse_lanes,
        help_heading = "Shared options"
    )]
    pub lanes: Lanes,
    /// Replaces the RTO of the plan for this run, for example 24h
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        value_parser = schemas::duration::parse,
        help_heading = "Shared options"
    )]
    pub deadline: Option<Duration>,
    /// When the data was lost (RFC 3339); the RTO clock starts there [default: the first start of the run]
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = parse_past,
        help_heading = "Shared options"
    )]
    pub lost_at: Option<jiff::Timestamp>,
    /// Print one JSON object on stdout instead of text
    #[arg(long, global = true, help_heading = "Shared options")]
    pub json: bool,
    /// How to show progress on stderr; auto is bar on a terminal and log elsewhere
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        value_enum,
        default_value_t = Progress::Auto,
        hide_possible_values = true,
        help = "How to show progress on stderr: auto, bar, log or none; auto is bar on a terminal, else log",
        help_heading = "Shared options"
    )]
    pub progress: Progress,
    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as rekindle=debug,warn
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "REKINDLE_LOG",
        hide_env_values = true,
        default_value = "warn",
        value_parser = parse_filter,
        help_heading = "Shared options"
    )]
    pub log_level: String,
    /// What the command has met, for `--on-problem`.
    #[arg(skip)]
    pub noted: Noted,
}

/// Whatever follows the name of a command that is not built.
#[derive(Debug, Args)]
pub struct Rest {
    /// Anything.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    pub rest: Vec<OsString>,
}

pub(super) fn parse_lanes(text: &str) -> Result<Lanes, String> {
    if text == "auto" {
        return Ok(Lanes::of_machine());
    }
    let lanes = text.parse().ok().filter(|lanes| (1..=64).contains(lanes));
    lanes.map(Lanes::fixed).ok_or_else(|| "must be a number from 1 to 64, or auto".to_owned())
}

pub(super) fn parse_past(text: &str) -> Result<jiff::Timestamp, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        "must be a time with its zone, for example \"2026-01-31T04:05:06Z\"".to_owned()
    })?;
    if time > jiff::Timestamp::now() {
        return Err("must not be in the future".to_owned());
    }
    Ok(time)
}

fn parse_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("must be error, warn, info, debug, trace or a list such as \"rekindle=debug,warn\""
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
