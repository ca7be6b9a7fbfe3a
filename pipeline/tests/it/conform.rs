//! What the traits of sources and sinks promise, asked of every implementation against its real system.
//!
//! Invariant: a promise is checked for every line of a list, or the line says why it cannot be.

mod breaking;
mod list;
mod reading;
mod sinks;
mod sources;
mod target;
mod targets;

pub(crate) use reading::keys_in_order as read_alone;
