//! The real binary against a real PostgreSQL and a real Redis.

mod cli;
mod world;
