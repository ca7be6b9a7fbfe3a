//! The plan file as written: serde structs, before validation.
