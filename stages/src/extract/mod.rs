//! Extract: systems that rows are read from.

pub mod postgres;
