//! What a target tells of its room and of how hard pressed it is, and what keys take in it.
//!
//! Invariant: a figure that the target does not tell is absent, never 0.

use std::time::Duration;

/// How full and how busy a target is at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pressure {
    /// Changes with every start of the server process: counters begin anew then.
    pub process_id: String,
    /// Bytes that count against the limit; buffers of replicas and of the append-only file do not.
    pub used_bytes: u64,
    /// The limit that it keeps itself (`maxmemory`), or else the memory of its machine.
    pub limit: Option<Limit>,
    /// What happens at the limit, for example `noeviction`.
    pub eviction: String,
    /// Entries evicted since the server started.
    pub evicted: u64,
    /// Entries in the database that is written to.
    pub entries: u64,
    /// Bytes that the slowest replica in touch is behind; absent without one.
    pub replica_lag_bytes: Option<u64>,
    /// CPU time since its start of what works on commands; absent where it does not tell.
    pub cpu: Option<Duration>,
    /// Resident bytes per byte in use, from 1 to 2.
    pub fragmentation: f64,
}

/// What bounds the memory of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A limit of its own, in bytes.
    Own(u64),
    /// The memory of its machine, in bytes; what else runs there is not known.
    Machine(u64),
}

impl Limit {
    /// Returns the bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Own(bytes) | Self::Machine(bytes) => bytes,
        }
    }
}

/// A key as a run would write it, to find out what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// The commands that write it, each as its words: verb, key, arguments.
    pub commands: Vec<Vec<Vec<u8>>>,
}

impl Sampled {
    /// The key, which every command has as its second word.
    pub fn key(&self) -> &[u8] {
        self.commands.first().and_then(|words| words.get(1)).map_or(&[], Vec::as_slice)
    }
}

/// What a sampled key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes as it would be written; absent where the target did not tell.
    pub bytes: Option<u64>,
    /// Bytes of what is under the key now; 0 where nothing is, absent where the target did not tell.
    pub replaced_bytes: Option<u64>,
}

/// How pressed a source is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePressure {
    /// How long a query took that reads nothing.
    pub latency: Duration,
    /// Queries of others at work.
    pub active: u64,
    /// How far its slowest replica is behind, or the server itself where it is one; absent without replicas.
    pub replica_lag: Option<Duration>,
}
