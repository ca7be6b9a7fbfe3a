//! The three stages: extract moves wire bytes in, transform turns them into rows and back into wire
//! bytes, load moves wire bytes out.
//!
//! Invariant: I/O code never formats or parses rows; transforms are pure and never wait. Files in
//! `extract/`, `transform/` and `load/` do not import each other.

pub mod batch;
pub mod connect;
pub mod crc64;
pub mod error;
pub mod extract;
pub mod failpoint;
#[cfg(test)]
mod fuzzed;
pub mod load;
pub mod policy;
pub mod sealed;
pub mod transform;

pub use batch::{Encoded, Entry, FilePart, RawBatch, Rejected, Unit};
pub use error::{Error, Kind, Result};
