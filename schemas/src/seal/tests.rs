//! Seals: what is sealed opens under its own key and place only, and nothing of it shows.

use super::*;

const NAME: &str = "log:t:m:20261101";
const TEXT: &[u8] = b"{\"rows\": \"a secret of somebody\"}";

fn key(digit: &str) -> EncryptKey {
    EncryptKey::parse(&digit.repeat(64)).unwrap()
}

fn seals(current: &str, old: &[&str]) -> Seals {
    let old: Vec<EncryptKey> = old.iter().map(|digit| key(digit)).collect();
    Seals::new(Some(&key(current)), &old)
}

#[test]
fn a_document_is_read_back_and_shows_nothing() {
    let seals = seals("1", &[]);
    let sealed = seals.seal_document(NAME, TEXT).unwrap();
    assert_eq!(sealed.len(), HEAD_BYTES + TEXT.len() + TAG_BYTES);
    assert!(!sealed.windows(6).any(|part| part == b"secret"));
    let head = Head::parse(&sealed).unwrap().unwrap();
    assert_eq!(Some(head.key_id), seals.key_id());
    assert_eq!(id_text(head.key_id), key("1").id_text());
    assert_eq!(seals.open_document(NAME, &sealed).unwrap(), TEXT);
    assert_eq!(
        seals.open_document(NAME, &seals.seal_document(NAME, b"").unwrap()).unwrap(),
        &b""[..]
    );
    // A nonce is used once.
    assert_ne!(seals.seal_document(NAME, TEXT).unwrap(), sealed);
}

#[test]
fn every_altered_byte_of_a_document_is_noticed() {
    let seals = seals("1", &[]);
    let sealed = seals.seal_document(NAME, TEXT).unwrap().into_owned();
    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        let opened = seals.open_document(NAME, &altered);
        if at < MAGIC.len() {
            // It is no sealed value any more, and no document either.
            assert_eq!(opened.unwrap(), altered, "byte {at}");
        } else if at == MAGIC.len() || at == MAGIC.len() + 1 {
            assert!(opened.is_err(), "byte {at}");
        } else {
            assert_eq!(opened, Err(SealError::Altered), "byte {at}");
        }
        let cut = seals.open_document(NAME, &sealed[..at]);
        assert!(at < MAGIC.len() || cut == Err(SealError::Altered), "{at} bytes");
    }
    let elsewhere = seals.open_document("log:t:m:20261102", &sealed);
    assert_eq!(elsewhere, Err(SealError::Altered));
}

#[test]
fn every_altered_byte_of_a_body_is_noticed() {
    let seals = seals("1", &[]);
    let id = seals.key_id().unwrap();
    let value = seals.seal_block(NAME, b"header", TEXT).unwrap();
    let (header, sealed) = value.split_at(6);
    assert_eq!((header, sealed.len()), (&b"header"[..], TEXT.len() + BODY_BYTES_MORE));
    assert!(!sealed.windows(6).any(|part| part == b"secret"));
    assert_eq!(seals.open_body(NAME, id, b"header", sealed).unwrap(), TEXT);
    for at in 0..sealed.len() {
        let mut altered = sealed.to_vec();
        altered[at] ^= 1;
        let opened = seals.open_body(NAME, id, b"header", &altered);
        assert_eq!(opened, Err(SealError::Altered), "byte {at}");
        let opened = seals.open_body(NAME, id, b"header", &sealed[..at]);
        assert_eq!(opened, Err(SealError::Altered), "{at} bytes");
    }
    assert_eq!(seals.open_body("log:t:m:2", id, b"header", sealed), Err(SealError::Altered));
    assert_eq!(seals.open_body(NAME, id, b"Header", sealed), Err(SealError::Altered));
}

#[test]
fn a_key_that_is_missing_is_named_on_both_sides() {
    let sealed = seals("1", &[]).seal_document(NAME, TEXT).unwrap().into_owned();
    let (one, two, three) = (key("1").id_text(), key("2").id_text(), key("3").id_text());
    let none = Seals::default().open_document(NAME, &sealed).unwrap_err();
    assert_eq!(none, SealError::NoKey { sealed: one.clone() });
    assert!(none.to_string().contains("encrypt_key"), "{none}");
    let wrong = seals("2", &["3"]).open_document(NAME, &sealed).unwrap_err();
    let told = wrong.to_string();
    assert!(matches!(wrong, SealError::WrongKey { .. }), "{told}");
    assert!([&one, &two, &three].iter().all(|id| told.contains(*id)), "{told}");
    let value = seals("1", &[]).seal_block(NAME, b"h", TEXT).unwrap();
    let wrong = seals("2", &[]).open_body(NAME, key("1").id(), b"h", &value[1..]).unwrap_err();
    assert!(matches!(wrong, SealError::WrongKey { .. }), "{wrong}");
}

#[test]
fn an_old_key_opens_and_does_not_seal() {
    let sealed = seals("1", &[]).seal_document(NAME, TEXT).unwrap().into_owned();
    let rotated = seals("2", &["1"]);
    assert_eq!(rotated.open_document(NAME, &sealed).unwrap(), TEXT);
    let ids = ["1", "2", "3"].map(|digit| rotated.has(&key(digit).id_text()));
    assert_eq!(ids, [true, true, false]);
    let again = rotated.seal_document(NAME, TEXT).unwrap();
    assert_eq!(Head::parse(&again).unwrap().unwrap().key_id, key("2").id());
}

#[test]
fn without_a_key_nothing_is_sealed_and_with_one_the_rest_stays_readable() {
    let none = Seals::default();
    assert_eq!(none.key_id(), None);
    assert_eq!(none.seal_document(NAME, TEXT).unwrap(), TEXT);
    assert_eq!(none.seal_block(NAME, b"h", TEXT).unwrap(), [b"h", TEXT].concat());
    assert_eq!(seals("1", &[]).open_document(NAME, TEXT).unwrap(), TEXT);
}

#[test]
fn a_newer_seal_is_called_newer() {
    let mut newer = seals("1", &[]).seal_document(NAME, TEXT).unwrap().into_owned();
    newer[MAGIC.len()] = 2;
    let error = seals("1", &[]).open_document(NAME, &newer).unwrap_err();
    assert_eq!(error, SealError::UnknownVersion { version: 2 });
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?}", seals("7", &["8"]));
    assert!(!shown.contains("777777") && !shown.contains("888888"), "{shown}");
    assert!(!shown.contains("119, 119") && !shown.contains("136, 136"), "{shown}");
}
