//! Placeholder.

pub mod checkpoint;
pub mod journal;
