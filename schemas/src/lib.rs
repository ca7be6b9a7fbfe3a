//! Data contracts of rekindle: plan file, table schema, type map, key template, layouts, row hash.
//!
//! Invariant: nothing here does I/O, is async, or knows a client library; every function is pure, but for sealing, which
//! draws a random nonce.

pub mod arrow_stream;
pub mod bind;
pub mod block;
pub mod digest;
pub mod drift;
pub mod duration;
pub mod encrypt_key;
#[cfg(test)]
mod fuzzed;
pub mod json_path;
pub mod key;
pub mod layout;
pub mod manifest;
pub mod partition;
pub mod plan;
pub mod seal;
pub mod slots;
pub mod table;
pub mod text;
pub mod type_map;
pub mod version;
pub mod zstd_frame;

pub use bind::{BindError, BoundField, BoundRoute, FieldValue, ReverseRoute};
pub use digest::Digest;
pub use encrypt_key::EncryptKey;
pub use json_path::JsonPath;
pub use key::KeyTemplate;
pub use layout::{RowDecoder, RowFault};
pub use partition::{Bounds, Partition, PartitionId, Position};
pub use plan::{Plan, PlanError, Route};
pub use seal::Seals;
pub use slots::{SlotCut, SlotRange};
pub use table::{Column, TableSchema};
pub use type_map::ColumnType;
