//! The longer texts of `--help`.
//!
//! Invariant: what a command does is said beside its definition; here is what several of them share.

pub(super) const ABOUT: &str =
    "Rebuilds Redis from AlloyDB or PostgreSQL after a disaster, and proves what it rebuilt";

pub(super) const ABOUT_REDIS: &str =
    "Fills Redis from AlloyDB or PostgreSQL through the routes of the plan, and reads it back";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
    0  done and proven as asked
    1  internal: panic, full disk, corrupt or newer journal
    2  usage, plan, credentials, missing permission, changed plan or schema
    3  a system could not be reached in time; run the same command again later
    4  a difference was found between what was written and what is there
    5  capacity: the target would evict or run out of memory
    6  the data is right, but the objective (RTO, RPO or catch_up) was missed
    7  finished with more rejected rows than the plan allows
    8  another run holds the state folder or the target
  130  interrupted (SIGINT), checkpointed, resumable
  143  terminated (SIGTERM), checkpointed, resumable";

pub(super) const EXAMPLES: &str = "\
Examples:
  rekindle check                          is everything ready?
  rekindle check --coverage               which keys of a Redis in use would come back?
  rekindle plan                           what would a run do, and how long would it take?
  rekindle plan --sample 5                real rows, and the commands they become
  rekindle bench                          measure parts of it, and predict the whole against the RTO
  rekindle rebuild redis                  do it; run it again to resume
  rekindle rebuild redis --route builds --lost-at 2026-01-31T04:05:06Z
  rekindle backup bigquery                keep the duplicate of BigQuery in Redis up to date
  rekindle restore bigquery               bring a lost table back from its duplicate in Redis
  rekindle verify redis --tier full       does Redis hold what the rows say, and nothing else?
  rekindle drill --lose redis             test the recovery in a scratch Redis, and measure it
  rekindle rejects replay                 send the rows that were rejected through their routes again
  rekindle log review                     which problems are open, and who has looked?
  rekindle status                         how far is it?

Not built yet, refused by name: demo.

";

pub(super) const AFTER_REBUILD: &str = "\
Killing it is safe: the same command resumes where the journal stands.
The first Ctrl-C checkpoints and stops, the second one stops at once.

";
