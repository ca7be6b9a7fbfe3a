//! Layouts: how the fields of a row become the value under its key.
