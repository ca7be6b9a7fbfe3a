//! Where a run was made, and by whom, as the system tells it.
//!
//! Invariant: nothing here is typed by a person; what the system does not tell is absent.

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name in the network.
    pub host: Option<String>,
    /// The kernel and its release.
    pub system: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Memory, in bytes (`MemTotal` of proc(5)).
    pub memory_bytes: Option<u64>,
}

/// Describes this machine.
pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
        line.strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Machine {
        host: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
        system: format!("{} {}", std::env::consts::OS, release.trim()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory.map(|kib| kib * 1024),
    }
}

/// The account of this process: its name, or its number where it has none.
pub(crate) fn account() -> String {
    let uid = Uid::effective();
    let named = User::from_uid(uid).ok().flatten();
    named.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
