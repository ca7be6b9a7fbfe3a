//! Seals at the clients of a duplicate: documents are sealed on their way in and opened on their way out.
//!
//! Invariant: a value that cannot be opened for want of its key is an error that names the ids of the keys, never a missing
//! or altered document; one that is altered is handed on sealed, and whoever parses it calls it altered.

use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use schemas::seal::{SealError, Seals};
use std::borrow::Cow;

/// Makes the error of a value that cannot be sealed or opened; `what` names it, for example `key log:t:run`.
pub fn refused(what: &str, error: &SealError) -> Error {
    let message = format!("{what}: {error}");
    match error {
        SealError::NoKey { sealed } => Error::new(Kind::Config, message).with_hint(format!(
            "name the file of key {sealed} in the plan: [redis.duplicate] encrypt_key = \"${{file:PATH}}\", then run the same command again"
        )),
        SealError::WrongKey { sealed, .. } => Error::new(Kind::Config, message).with_hint(format!(
            "name the file of key {sealed} in encrypt_key or old_keys of [redis.duplicate], then run the same command again"
        )),
        SealError::Altered => Error::new(Kind::Difference, message)
            .with_hint("rekindle verify bigquery --tier full"),
        SealError::UnknownVersion { .. } => Error::new(Kind::Internal, message)
            .with_hint("use the newer rekindle that wrote this duplicate"),
        SealError::NoRandom => Error::new(Kind::Internal, message)
            .with_hint("see that this machine lets processes call getrandom"),
    }
}

/// Seals a document for its key; it stays as it is where there is no key to seal with.
pub fn seal<'a>(seals: &Seals, key: &str, text: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    seals.seal_document(key, text).map_err(|error| refused(&format!("key {key}"), &error))
}

/// Opens a value; what is not sealed, blocks included, stays as it is.
pub fn open(seals: &Seals, key: &str, stored: Bytes) -> Result<Bytes> {
    let opened = match seals.open_document(key, &stored) {
        Ok(Cow::Borrowed(_)) | Err(SealError::Altered) => None,
        Ok(Cow::Owned(text)) => Some(text),
        Err(error) => return Err(refused(&format!("key {key}"), &error)),
    };
    Ok(opened.map_or(stored, Bytes::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::EncryptKey;

    fn seals(digit: &str) -> (Seals, String) {
        let key = EncryptKey::parse(&digit.repeat(64)).unwrap();
        (Seals::new(Some(&key), &[]), key.id_text())
    }

    #[test]
    fn a_value_without_its_key_is_refused_and_an_altered_one_is_handed_on() {
        let ((one, one_id), (two, two_id)) = (seals("1"), seals("2"));
        let sealed = Bytes::from(seal(&one, "log:run", b"{}").unwrap().into_owned());
        assert_eq!(open(&one, "log:run", sealed.clone()).unwrap(), "{}");
        let error = open(&two, "log:run", sealed.clone()).unwrap_err();
        let told = error.to_string();
        assert_eq!(error.kind(), Kind::Config);
        assert!(told.starts_with("key log:run: ") && told.contains(&one_id), "{told}");
        assert!(told.contains(&two_id), "{told}");
        let error = open(&Seals::default(), "log:run", sealed.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(&one_id), "{error}");
        assert!(error.hint().unwrap().contains("encrypt_key"), "{error:?}");
        // Another key of redis is an alteration.
        assert_eq!(open(&one, "log:other", sealed.clone()).unwrap(), sealed);
        let plain = Bytes::from_static(b"RKBLOCK\0 and more");
        assert_eq!(open(&one, "log:b:1", plain.clone()).unwrap(), plain);
    }
}
