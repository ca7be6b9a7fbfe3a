//! CPU time by the clocks of the scheduler: what getrusage(2) tells too, but that only as of the last tick, which is
//! longer than a batch takes.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// User and system time of this thread so far.
///
/// # Panics
/// Where the system has no such clock.
pub fn of_thread() -> Duration {
    used(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// User and system time of all threads of this process so far.
///
/// # Panics
/// Where the system has no such clock.
pub fn of_process() -> Duration {
    used(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn used(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("Linux has this clock").into()
}
