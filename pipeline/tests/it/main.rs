//! The real binary against a real PostgreSQL and a real Redis.

mod bad_input;
mod carried;
mod changed;
mod cli;
mod demo_data;
mod resume;
mod world;
