//! The flag `--way`: how hashes are written.
//!
//! Invariant: it knows the same ways as the sink.

use clap::ValueEnum;
use stages::load::redis::WayChoice;

/// How hashes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// The faster one that the server takes.
    Auto,
    /// `HSET`.
    Command,
    /// `RESTORE`, where the server takes it.
    Restore,
}

impl Way {
    /// The same for the sink.
    pub fn choice(self) -> WayChoice {
        match self {
            Self::Auto => WayChoice::Auto,
            Self::Command => WayChoice::Command,
            Self::Restore => WayChoice::Restore,
        }
    }
}
