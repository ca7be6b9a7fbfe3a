//! A key of 256 bits that copies are encrypted with: how it is written down, and how it is named without being shown.
//!
//! Invariant: no text made here holds a part of the key; its id tells two keys apart and gives neither away.

use sha2::{Digest as _, Sha256};
use std::fmt;

/// What is hashed before the key, so that the id is no hash that anything else makes of the same bytes.
const ID_OF: &[u8] = b"rekindle key id 1";

/// A key of AES-256.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptKey([u8; 32]);

impl EncryptKey {
    /// Parses 64 hexadecimal digits, as `openssl rand -hex 32` prints them; spaces and line ends around them are left out.
    ///
    /// Returns what is wrong otherwise, without any part of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be 64 hexadecimal digits, as `openssl rand -hex 32` makes them, in a file of their own: \"${file:PATH}\"";
        let digits = text.trim().as_bytes();
        let mut key = [0; 32];
        if digits.len() != 2 * key.len() {
            return Err(FORM);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(FORM);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| FORM)?;
        }
        Ok(Self(key))
    }

    /// Returns the key itself.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 8 bytes of SHA-256 over a fixed prefix and the key: what a copy names its key by.
    pub fn id(&self) -> [u8; 8] {
        let hash = Sha256::new().chain_update(ID_OF).chain_update(self.0).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        id
    }

    /// Returns the id as 16 hexadecimal digits, for messages.
    pub fn id_text(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.id()))
    }
}

impl fmt::Debug for EncryptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptKey(id {})", self.id_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_and_never_shown() {
        let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
        let key = EncryptKey::parse(&format!(" {digits}\n")).unwrap();
        let counted: Vec<u8> = (0..32).collect();
        assert_eq!(key.bytes().as_slice(), counted);
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.id_text()) && !shown.contains("0001020304"), "{shown}");
    }

    #[test]
    fn keys_have_ids_of_their_own() {
        let (one, other) = ("11".repeat(32), "12".repeat(32));
        let id = |text: &str| EncryptKey::parse(text).unwrap().id();
        assert_ne!(id(&one), id(&other));
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in
            ["", "secret", &"0".repeat(63), &"0".repeat(66), &"g0".repeat(32), &"é".repeat(32)]
        {
            let told = EncryptKey::parse(text).unwrap_err();
            assert!(
                told.contains("openssl rand -hex 32") && (text.is_empty() || !told.contains(text))
            );
        }
    }
}
