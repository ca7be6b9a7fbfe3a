//! Seals: values of a duplicate under AES-256-GCM, so that whoever reads its Redis reads no row, and whoever alters it is seen.
//!
//! Invariant: every sealed value has a random nonce of its own and opens only under the Redis key that it was sealed
//! for; what does not open is called altered, and nothing of it is returned. No message holds a part of a key.

#[cfg(test)]
mod tests;

use crate::EncryptKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::borrow::Cow;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// First bytes of every sealed document; no JSON begins with them.
pub const MAGIC: [u8; 8] = *b"RKSEALED";
/// Version of the head of a sealed document.
pub const VERSION: u16 = 1;
/// Bytes that sealing adds to the body of a block: the nonce before it and the tag behind it.
pub const BODY_BYTES_MORE: usize = NONCE_LEN + TAG_BYTES;

const TAG_BYTES: usize = 16;
const ID_BYTES: usize = 8;
/// What the check of a head is made of: magic, version, two zero bytes, id of the key, nonce.
const CHECKED_BYTES: usize = MAGIC.len() + 4 + ID_BYTES + NONCE_LEN;
const HEAD_BYTES: usize = CHECKED_BYTES + 8;

/// Why a value could not be sealed or opened.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SealError {
    /// The plan has no key at all.
    #[error("it is sealed with key {sealed}, and the plan has no encrypt_key for the duplicate")]
    NoKey {
        /// Id of the key it is sealed with.
        sealed: String,
    },
    /// The plan has other keys.
    #[error("it is sealed with key {sealed}, and the plan has {configured}")]
    WrongKey {
        /// Id of the key it is sealed with.
        sealed: String,
        /// What the plan has instead, by id.
        configured: String,
    },
    /// It does not open under the key that it names.
    #[error("its seal does not open: it was altered, cut off, or sealed for another key of redis")]
    Altered,
    /// Written by a newer program.
    #[error("its seal has format version {version}, this program knows {VERSION}")]
    UnknownVersion {
        /// The version found.
        version: u16,
    },
    /// The system has no random bytes to give.
    #[error("the system gave no random bytes to seal with")]
    NoRandom,
}

/// What a sealed document says before its sealed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Id of the key it is sealed with.
    pub key_id: [u8; ID_BYTES],
    nonce: [u8; NONCE_LEN],
}

impl Head {
    /// Reads the head of a value; `None` where the value is not sealed.
    pub fn parse(value: &[u8]) -> Option<Result<Self, SealError>> {
        value.starts_with(&MAGIC).then(|| Self::checked(value))
    }

    fn checked(value: &[u8]) -> Result<Self, SealError> {
        let checked = value.get(..CHECKED_BYTES).ok_or(SealError::Altered)?;
        let check = value.get(CHECKED_BYTES..HEAD_BYTES).ok_or(SealError::Altered)?;
        // Looked at first, so that a newer seal is called newer and not altered.
        let version = u16::from_le_bytes(part(checked, MAGIC.len())?);
        if version > VERSION {
            return Err(SealError::UnknownVersion { version });
        }
        let zero: [u8; 2] = part(checked, MAGIC.len() + 2)?;
        if version != VERSION || zero != [0; 2] || xxh3_64(checked).to_le_bytes() != check {
            return Err(SealError::Altered);
        }
        let key_id = part(checked, MAGIC.len() + 4)?;
        let nonce = part(checked, MAGIC.len() + 4 + ID_BYTES)?;
        Ok(Self { key_id, nonce })
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&self.nonce);
        let check = xxh3_64(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }
}

/// Returns the id of a key as 16 hexadecimal digits, as messages and manifests name it.
pub fn id_text(id: [u8; ID_BYTES]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

/// The keys of a duplicate: the one that seals, and those that only open what was sealed before a rotation.
#[derive(Debug, Default)]
pub struct Seals {
    current: Option<SealKey>,
    old: Vec<SealKey>,
}

#[derive(Debug)]
struct SealKey {
    id: [u8; ID_BYTES],
    key: LessSafeKey,
}

impl SealKey {
    fn new(key: &EncryptKey) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM, key.bytes());
        let unbound = unbound.expect("a key of AES-256 has 32 bytes");
        Self { id: key.id(), key: LessSafeKey::new(unbound) }
    }

    /// Encrypts in place and appends the tag.
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        bound_to: &[u8],
        text: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(bound_to));
        // Only a text of 64 GiB is too long for the cipher.
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut text[from..]);
        let tag = tag.map_err(|_| SealError::Altered)?;
        text.extend_from_slice(tag.as_ref());
        Ok(())
    }

    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        bound_to: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut text = sealed.to_vec();
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(bound_to));
        let length = self.key.open_in_place(nonce, aad, &mut text).map(|open| open.len());
        text.truncate(length.map_err(|_| SealError::Altered)?);
        Ok(text)
    }
}

impl Seals {
    /// Takes the key that seals, if there is one, and those that only open.
    pub fn new(current: Option<&EncryptKey>, old: &[EncryptKey]) -> Self {
        Self { current: current.map(SealKey::new), old: old.iter().map(SealKey::new).collect() }
    }

    /// Returns the id of the key that seals; `None` where nothing is sealed.
    pub fn key_id(&self) -> Option<[u8; ID_BYTES]> {
        self.current.as_ref().map(|key| key.id)
    }

    /// Returns whether there is a key of this id, written as [`id_text`] does.
    pub fn has(&self, id: &str) -> bool {
        self.current.iter().chain(&self.old).any(|key| id_text(key.id) == id)
    }

    /// Seals a document for a key of Redis; returns it as it is where the plan has no key.
    pub fn seal_document<'a>(
        &self,
        redis_key: &str,
        text: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, SealError> {
        if self.current.is_none() {
            return Ok(Cow::Borrowed(text));
        }
        self.document_under(nonce()?, redis_key, text).map(Cow::Owned)
    }

    /// Seals a document under a nonce, which must never have been used with the key before.
    pub(crate) fn document_under(
        &self,
        nonce: [u8; NONCE_LEN],
        redis_key: &str,
        text: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let Some(key) = &self.current else { return Ok(text.to_vec()) };
        let mut out = Head { key_id: key.id, nonce }.to_bytes();
        let bound_to = bound_to(&out, redis_key);
        out.reserve_exact(text.len() + TAG_BYTES);
        out.extend_from_slice(text);
        key.seal(nonce, &bound_to, &mut out, HEAD_BYTES)?;
        Ok(out)
    }

    /// Opens a document that lies under a key of Redis; returns one that is not sealed as it is.
    pub fn open_document<'a>(
        &self,
        redis_key: &str,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, SealError> {
        let Some(head) = Head::parse(stored) else { return Ok(Cow::Borrowed(stored)) };
        let head = head?;
        let (written, sealed) = stored.split_at(HEAD_BYTES);
        let bound_to = bound_to(written, redis_key);
        self.key(head.key_id)?.open(head.nonce, &bound_to, sealed).map(Cow::Owned)
    }

    /// Returns the value of a block: its header, which says that the body is sealed and with which key, and behind it the
    /// body sealed for that header and a key of Redis. The body stays as it is where the plan has no key.
    pub fn seal_block(
        &self,
        redis_key: &str,
        header: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if self.current.is_none() {
            return Ok([header, body].concat());
        }
        self.block_under(nonce()?, redis_key, header, body)
    }

    /// Seals a block under a nonce, which must never have been used with the key before.
    pub(crate) fn block_under(
        &self,
        nonce: [u8; NONCE_LEN],
        redis_key: &str,
        header: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let Some(key) = &self.current else { return Ok([header, body].concat()) };
        let mut out = Vec::with_capacity(header.len() + body.len() + BODY_BYTES_MORE);
        out.extend_from_slice(header);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(body);
        key.seal(nonce, &bound_to(header, redis_key), &mut out, header.len() + NONCE_LEN)?;
        Ok(out)
    }

    /// Opens the body of a block that lies under a key of Redis behind that header.
    pub fn open_body(
        &self,
        redis_key: &str,
        key_id: [u8; ID_BYTES],
        header: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let key = self.key(key_id)?;
        let (nonce, sealed) = sealed.split_first_chunk().ok_or(SealError::Altered)?;
        key.open(*nonce, &bound_to(header, redis_key), sealed)
    }

    /// Returns the key of an id, or why there is none, with the ids on both sides.
    fn key(&self, id: [u8; ID_BYTES]) -> Result<&SealKey, SealError> {
        let keys = || self.current.iter().chain(&self.old);
        if let Some(key) = keys().find(|key| key.id == id) {
            return Ok(key);
        }
        let sealed = id_text(id);
        let Some(current) = &self.current else { return Err(SealError::NoKey { sealed }) };
        let mut configured = format!("encrypt_key {}", id_text(current.id));
        for old in &self.old {
            configured = format!("{configured}, old key {}", id_text(old.id));
        }
        Err(SealError::WrongKey { sealed, configured })
    }
}

/// What is authenticated beside the sealed text: all that is readable before it, and where it lies.
fn bound_to(readable: &[u8], redis_key: &str) -> Vec<u8> {
    [readable, redis_key.as_bytes()].concat()
}

fn nonce() -> Result<[u8; NONCE_LEN], SealError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::NoRandom)?;
    Ok(nonce)
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], SealError> {
    let part = bytes.get(from..from + N).and_then(|part| part.try_into().ok());
    part.ok_or(SealError::Altered)
}
