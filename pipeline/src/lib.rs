//! The engine of rekindle: lanes, journal, resume, read-back, and the commands on top of them.
//!
//! Invariant: only `wiring` names the systems together; everything else knows traits.

pub mod alloydb_backups;
pub mod archived;
pub mod backup;
pub mod bench;
pub mod catch_up;
pub mod checkpoint;
pub mod cli;
pub mod coverage;
pub mod cpu;
pub mod cut_over;
pub(crate) mod documents;
pub mod drift;
pub mod drill;
pub mod engine;
pub mod evidence;
pub mod forecast;
#[cfg(test)]
mod fuzzed;
pub mod guard;
pub mod init;
pub mod journal;
pub mod keys;
pub mod lane;
pub mod ledger;
pub mod live;
pub mod log_review;
pub mod model;
pub mod one_pass;
pub mod ordered;
pub mod outcome;
pub mod place;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod rdb;
pub mod readback;
pub mod rebuild;
pub mod reconcile;
pub mod refused;
pub mod rejects;
pub mod report;
pub mod restore;
pub mod route;
pub mod schedule;
pub mod share;
pub mod snapshots;
pub mod spool;
pub mod state;
pub mod stop;
pub mod streams;
pub mod summarize;
pub mod summary;
pub mod tuning;
pub mod verify;
pub mod wiring;
