//! `[redis.duplicate]`: where the duplicate of BigQuery lives, and the keys that it is sealed with.
//!
//! Invariant: no mistake about a key shows any part of it.

use super::address::redis_problem;
use super::raw::{Entry, Fields, Section};
use super::validate::url;
use super::{Plan, Secret};
use crate::encrypt_key::EncryptKey;
use crate::seal::Seals;

pub(super) const FIELDS: Fields = Fields {
    noun: "field",
    built: &["url", "allow_eviction", "encrypt_key", "old_keys"],
    refused: &[],
};

/// The `[redis.duplicate]` section: where the duplicate of BigQuery lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// `redis://` or `rediss://` URL.
    pub url: Secret,
    /// Whether a server that may evict the duplicate is taken all the same.
    pub allow_eviction: bool,
    /// The key that the duplicate is sealed with.
    pub encrypt_key: Option<EncryptKey>,
    /// Keys that only open what was sealed before a rotation; none without the one above.
    pub old_keys: Vec<EncryptKey>,
}

impl Duplicate {
    /// A duplicate that lives where the plan has no section for it: in the target, and not sealed.
    pub fn in_target(url: &Secret) -> Self {
        Self { url: url.clone(), allow_eviction: false, encrypt_key: None, old_keys: Vec::new() }
    }
}

impl Plan {
    /// Returns the keys of the duplicate, made ready to seal and to open.
    pub fn seals(&self) -> Seals {
        self.duplicate.as_ref().map_or_else(Seals::default, |section| {
            Seals::new(section.encrypt_key.as_ref(), &section.old_keys)
        })
    }
}

/// Reads the section, where there is one.
pub(super) fn duplicate(redis: &Section<'_>) -> Option<Duplicate> {
    let section = redis.entry("duplicate")?.section()?;
    section.know(&FIELDS);
    let allow_eviction = section.entry("allow_eviction").map_or(Some(false), |e| e.flag());
    let encrypt_key = section.entry("encrypt_key").and_then(|entry| key(&entry));
    let old_keys = section.entry("old_keys").and_then(|entry| entry.elements("an array of keys"));
    let old_keys: Vec<EncryptKey> = old_keys
        .iter()
        .flatten()
        .filter_map(|entry| {
            let old = key(entry)?;
            if encrypt_key.as_ref() == Some(&old) {
                entry.mistake("is the key of encrypt_key; old_keys are for those before it");
            }
            Some(old)
        })
        .collect();
    if section.has("old_keys") && !section.has("encrypt_key") {
        section.mistake("old_keys", "\"old_keys\" needs \"encrypt_key\", the key to seal with");
    }
    let url = url(&section, redis_problem)?;
    Some(Duplicate { url, allow_eviction: allow_eviction?, encrypt_key, old_keys })
}

fn key(entry: &Entry<'_>) -> Option<EncryptKey> {
    let text = entry.text()?;
    EncryptKey::parse(&text.value).map_err(|problem| text.mistake(problem)).ok()
}
