//! The real binary against a real PostgreSQL, a real Redis and the BigQuery stand-in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers of tests too")]
#![allow(clippy::print_stdout, reason = "seeds and figures of a failed test are shown with it")]

mod app_faults;
mod app_logs;
mod app_rows;
mod backup;
mod backup_age;
mod backup_bytes;
mod backup_left;
mod backup_units;
mod bad_input;
mod bad_systems;
mod bigquery;
mod carried;
mod changed;
mod cli;
mod cloud;
mod coverage;
mod cut_over;
mod demo_data;
mod first_plan;
mod items;
mod journal_safety;
mod live;
mod live_versions;
mod live_writer;
mod lost;
mod lost_rows;
mod many;
mod many_faults;
mod many_plan;
mod mapping;
mod one_pass;
mod refused_rows;
mod rejects;
mod restore;
mod restore_arrival;
mod restore_faults;
mod restore_told;
mod resume;
mod state;
mod type_matrix;
mod verified;
mod verify;
mod verify_bigquery;
mod verify_bigquery_repair;
mod verify_bigquery_rows;
mod verify_live;
mod verify_many;
mod verify_repair;
mod verify_sample;
mod verify_versions;
mod ways;
mod world;
