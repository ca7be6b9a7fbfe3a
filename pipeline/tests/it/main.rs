//! The real binary against a real PostgreSQL and a real Redis.

mod bad_input;
mod carried;
mod cli;
mod demo_data;
mod world;
