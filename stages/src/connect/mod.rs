//! Connections: pools and raw streams for each system, and how their errors map to kinds.
//!
//! Invariant: no password or row value ever enters an error message; endpoints are named as host:port.

pub mod alloydb_admin;
pub mod archive;
pub mod bigquery;
pub mod postgres;
pub mod redis;
