//! Load: systems that entries are written to.

pub mod redis;
