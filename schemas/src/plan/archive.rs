//! `[archive]`: a copy of BigQuery outside Redis and BigQuery, in files of a folder or of a bucket.
//!
//! Invariant: what is accepted names exactly one place, and no message holds a part of the key.

use super::raw::{Fields, Section};
use crate::encrypt_key::EncryptKey;

pub(super) const FIELDS: Fields =
    Fields { noun: "field", built: &["url", "endpoint", "encrypt_key"], refused: &[] };
/// How an archive's URL is written, for a JSON Schema.
pub(super) const URL_PATTERN: &str = "^(file:///.|gs://[a-z0-9._-])";
const FORM: &str = "must be file:///FOLDER or gs://BUCKET/PREFIX";

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchivePlace {
    /// An absolute path of this machine.
    Folder(String),
    /// Cloud Storage.
    Bucket {
        /// The bucket.
        name: String,
        /// What the names of all objects begin with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// The `[archive]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Where it is.
    pub place: ArchivePlace,
    /// REST endpoint of a stand-in for Cloud Storage, which is shown no credentials.
    pub endpoint: Option<String>,
    /// The key that files of rows are encrypted with.
    pub encrypt_key: Option<EncryptKey>,
}

impl Archive {
    /// Returns the URL as it may be printed: nothing in it is secret.
    pub fn url(&self) -> String {
        match &self.place {
            ArchivePlace::Folder(path) => format!("file://{path}"),
            ArchivePlace::Bucket { name, prefix } if prefix.is_empty() => format!("gs://{name}"),
            ArchivePlace::Bucket { name, prefix } => format!("gs://{name}/{prefix}"),
        }
    }
}

/// Reads the section; `None` where it is missing or has mistakes, which are noted.
pub(super) fn archive(root: &Section<'_>) -> Option<Archive> {
    let section = root.entry("archive")?.section()?;
    section.know(&FIELDS);
    let url = section.required("url");
    let place = url.and_then(|text| match place(&text.value) {
        Ok(place) => Some(place),
        Err(problem) => {
            text.mistake(problem);
            None
        }
    });
    let endpoint = section.text("endpoint").map(|text| {
        if !(text.value.starts_with("http://") || text.value.starts_with("https://")) {
            text.mistake("must start with http:// or https://");
        }
        text.value.trim_end_matches('/').to_owned()
    });
    if endpoint.is_some() && matches!(place, Some(ArchivePlace::Folder(_))) {
        section.mistake("endpoint", "\"endpoint\" goes with a gs:// url only");
    }
    let encrypt_key = section.text("encrypt_key").map(|text| {
        let key = EncryptKey::parse(&text.value);
        if let Err(problem) = &key {
            text.mistake(*problem);
        }
        key.ok()
    });
    Some(Archive { place: place?, endpoint, encrypt_key: encrypt_key.flatten() })
}

fn place(url: &str) -> Result<ArchivePlace, &'static str> {
    if let Some(path) = url.strip_prefix("file://") {
        let is_plain = !path.split('/').any(|part| matches!(part, "." | ".."));
        if !path.starts_with('/') || path.contains(['?', '#', '%']) || !is_plain {
            return Err(FORM);
        }
        let path = path.trim_end_matches('/');
        return if path.is_empty() { Err(FORM) } else { Ok(ArchivePlace::Folder(path.to_owned())) };
    }
    let Some(rest) = url.strip_prefix("gs://") else { return Err(FORM) };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_letter) {
        return Err(
            "names no bucket: write gs://BUCKET/PREFIX, a bucket in small letters, digits, - _ and .",
        );
    }
    let prefix = prefix.trim_end_matches('/');
    let is_plain = |part: &str| !part.is_empty() && !matches!(part, "." | "..");
    if prefix.contains(['?', '#', '%']) || !(prefix.is_empty() || prefix.split('/').all(is_plain)) {
        return Err(FORM);
    }
    Ok(ArchivePlace::Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
}
