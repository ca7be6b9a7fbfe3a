//! `rekindle verify`: compares both ends of the routes, and says pass, fail or inconclusive.
//!
//! Invariant: nothing is written to either end unless a repair was asked for; what could not be proven never passes.

pub mod bigquery;
pub mod redis;
pub mod tier;
pub mod verdict;

pub use tier::Tier;
pub use verdict::Verdict;

use stages::Error;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Examples of one kind that a summary names; the file of findings names all of them.
pub const EXAMPLES_MAX: usize = 5;

/// How a verification was asked for, whatever it looks at.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where findings and temporary files live.
    pub state: PathBuf,
    /// Partitions at once.
    pub lanes: usize,
    /// Routes to look at; empty means all.
    pub routes: Vec<String>,
    /// How much is compared.
    pub tier: Tier,
    /// Decides which keys or rows a sample takes; the same seed takes the same ones.
    pub seed: u64,
    /// How long a system may stay away.
    pub retry_for: Duration,
    /// Cancelled by a signal.
    pub cancel: CancellationToken,
}

/// How a verification ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// What it found, once it had looked.
    pub told: Option<Told>,
    /// Errors in the order they were met; with one, what was found is not all there is.
    pub errors: Vec<Error>,
}

/// What a verification found, ready to be shown.
#[derive(Debug)]
pub struct Told {
    /// What it comes to.
    pub verdict: Verdict,
    /// The object that `--json` prints.
    pub json: serde_json::Value,
    /// The same for people.
    pub text: String,
}

impl Ended {
    /// Ends before anything was looked at.
    pub fn failed(errors: Vec<Error>) -> Self {
        Self { told: None, errors }
    }
}
