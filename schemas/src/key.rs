//! Key template: renders a key from a row and parses a key back into column texts.
//!
//! Invariant: `parse(render(row)) == row's key columns` wherever no filter is lossy.

/// A parsed key template. (stub: the codec work package replaces this file)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    /// The text of the template.
    pub text: String,
}

/// A key template whose columns are resolved to indexes. (stub)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundKey {}

impl KeyTemplate {
    /// Parses a template; the error is one lowercase sentence without final stop.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned() })
    }
}
