//! The real binary against a real PostgreSQL and a real Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers of tests too")]

mod bad_input;
mod carried;
mod changed;
mod cli;
mod demo_data;
mod resume;
mod world;
