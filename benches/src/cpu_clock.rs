//! CPU time, by getrusage(2).

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::time::Duration;

/// User and system time of this thread so far.
///
/// # Panics
/// Where the system has no getrusage.
pub fn of_thread() -> Duration {
    used(UsageWho::RUSAGE_THREAD)
}

/// User and system time of all threads of this process so far.
///
/// # Panics
/// Where the system has no getrusage.
pub fn of_process() -> Duration {
    used(UsageWho::RUSAGE_SELF)
}

fn used(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("getrusage has no way to fail here");
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}
