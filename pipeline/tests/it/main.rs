//! The real binary against a real PostgreSQL and a real Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers of tests too")]
#![allow(clippy::print_stdout, reason = "seeds and figures of a failed test are shown with it")]

mod bad_input;
mod bad_systems;
mod carried;
mod changed;
mod cli;
mod demo_data;
mod items;
mod lost;
mod lost_rows;
mod mapping;
mod restore;
mod resume;
mod ways;
mod world;
