//! Canonical text and JSON forms of column values.
