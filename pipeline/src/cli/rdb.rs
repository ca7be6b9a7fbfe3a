//! The flags of a rebuild that writes RDB files instead of a server.
//!
//! Invariant: a flag that means something to a server only is refused beside them, by name.

use super::failure::{Failure, tell};
use crate::outcome::Exit;
use crate::rebuild::ToRdb;
use clap::Args;
use std::path::PathBuf;

/// Flags of `rebuild redis` that write files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files instead of a server")]
pub struct RdbFlags {
    /// Write one RDB file (version 10) per node into DIR, proven, for an empty server or a managed import; no Redis is
    /// connected to, and no file is overwritten
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = [
            "take_over",
            "cut_over",
            "fit",
            "way",
            "wait_for_room",
            "pause_above_redis_latency",
            "pause_above_redis_lag",
        ]
    )]
    pub to_rdb: Option<PathBuf>,
    /// Files, one for the slots that `redis-cli --cluster create` gives to each of N primaries, 1 to 1000
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "to_rdb",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub rdb_nodes: u16,
    /// Overwrite files that have the names of those that are written
    #[arg(long, requires = "to_rdb")]
    pub replace_rdb: bool,
}

impl RdbFlags {
    /// What was asked for. Without files there is nothing that the other flags could mean, which the parser does not see
    /// while flags that exclude files have defaults: told here, and refused.
    pub(super) fn asked(&self, json: bool) -> Result<Option<ToRdb>, Exit> {
        let (nodes, replace) = (self.rdb_nodes, self.replace_rdb);
        if let Some(folder) = self.to_rdb.clone() {
            return Ok(Some(ToRdb { folder, nodes, replace }));
        }
        if nodes == 1 && !replace {
            return Ok(None);
        }
        let message = "--rdb-nodes and --replace-rdb mean something beside --to-rdb only";
        let hint = Some("rekindle rebuild redis --to-rdb DIR");
        tell(&[Failure::new(Exit::Usage, message, hint)], json);
        Err(Exit::Usage)
    }
}
