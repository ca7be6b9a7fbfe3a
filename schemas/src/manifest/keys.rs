//! The keys of a duplicate under the prefix of its route.
//!
//! Invariant: names of table partitions may hold colons, so a block key is read from its right end.

use std::fmt::Write as _;

/// Makes and reads the keys under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a block key says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockKey {
    /// Table partition or window.
    pub table_partition: String,
    /// Which rewriting of it.
    pub generation: u64,
    /// Place in the generation.
    pub ordinal: u32,
}

impl Keys {
    /// Takes the prefix of a route, for example `log:build_logs`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a block.
    pub fn block(&self, table_partition: &str, generation: u64, ordinal: u32) -> String {
        let mut key = String::with_capacity(self.prefix.len() + table_partition.len() + 24);
        // Writing to a string cannot fail.
        let written = write!(key, "{}:b:{table_partition}:{generation}:{ordinal}", self.prefix);
        debug_assert!(written.is_ok(), "a string takes everything");
        key
    }

    /// Returns what a block key says, or `None` for any other key.
    pub fn parse_block(&self, key: &str) -> Option<BlockKey> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(":b:")?;
        let (rest, ordinal) = rest.rsplit_once(':')?;
        let (table_partition, generation) = rest.rsplit_once(':')?;
        let found = BlockKey {
            table_partition: table_partition.to_owned(),
            generation: generation.parse().ok()?,
            ordinal: ordinal.parse().ok()?,
        };
        // `+1` and `01` are numbers too, and no keys of blocks.
        let again = self.block(&found.table_partition, found.generation, found.ordinal);
        (again == key).then_some(found)
    }

    /// The key of the manifest of a table partition.
    pub fn manifest(&self, table_partition: &str) -> String {
        format!("{}:m:{table_partition}", self.prefix)
    }

    /// The key of a recorded table; the hash has 32 hex digits.
    pub fn schema(&self, schema_hash: &str) -> String {
        format!("{}:s:{schema_hash}", self.prefix)
    }

    /// The key of the record of the last complete backup.
    pub fn run(&self) -> String {
        format!("{}:run", self.prefix)
    }
}
