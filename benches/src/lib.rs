//! What the benches and `measure` share: rows that are always the same, ends that do nothing, a run put together by hand,
//! and the clock of the CPU.
//!
//! Invariant: only parts of the product are measured; nothing here stands in for one of them but the two null ends.

pub mod builds;
pub mod by_hand;
pub mod cpu_clock;
pub mod measures;
pub mod null_sink;
pub mod replay;
