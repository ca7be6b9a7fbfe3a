//! Blocks in each form: what is framed is what its entry says, and only its own key and place read it.

use super::*;
use arrow::array::{ArrayRef, Int64Array};
use schemas::digest::DIGEST_VERSION;

const KEY: &str = "log:b:20261102:3:0";

fn key(digit: &str) -> EncryptKey {
    EncryptKey::parse(&digit.repeat(64)).unwrap()
}

fn sealed_with(digit: &str) -> Form {
    Form::Block(Arc::new(Seals::new(Some(&key(digit)), &[])))
}

fn rows() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

/// Encodes and frames the rows as a backup does; returns the stored value and what it must be.
fn stored(form: &Form) -> (Bytes, Expected) {
    let body = form.encode(&[rows()], &[]).unwrap().remove(0);
    let header = Header {
        codec: block::CODEC_ZSTD_ARROW,
        is_last: true,
        rows: body.rows,
        ordinal: 0,
        generation: 3,
        snapshot_us: 0,
        last_modified_us: 0,
        expires_us: None,
        table_created_ms: 0,
        digest: body.digest,
        digest_version: DIGEST_VERSION,
        schema_hash: 0,
        raw_bytes: body.raw_bytes,
        body_bytes: body.bytes.len() as u64,
        body_xxh3: body.xxh3,
        key_id: form.key_id(),
        table: "d.t".to_owned(),
        table_id: "p:d.t".to_owned(),
        table_partition: "20261102".to_owned(),
    };
    let expected = Expected {
        key: KEY.to_owned(),
        table_partition: "20261102".to_owned(),
        generation: 3,
        ordinal: 0,
        key_id: form.key_id().map(id_text),
        entry: form.entry(&body, &header),
    };
    let framed = form.frame(KEY, &header, body.bytes).unwrap();
    (Bytes::from([framed.head, framed.body].concat()), expected)
}

fn refused(form: &Form, value: &Bytes, expected: &Expected) -> Kind {
    assert!(!form.is_whole(Some(value), expected));
    form.decode(value, expected).unwrap_err().kind()
}

#[test]
fn what_is_framed_is_whole_and_comes_back_in_every_form() {
    let forms = [
        Form::Block(Arc::default()),
        sealed_with("1"),
        Form::Parquet(None),
        Form::Parquet(Some(Arc::new(key("1")))),
    ];
    for form in &forms {
        let (value, expected) = stored(form);
        assert_eq!(value.len() as u64, expected.entry.bytes(), "{form:?}");
        assert!(form.is_whole(Some(&value), &expected), "{form:?}");
        assert_eq!(form.decode(&value, &expected).unwrap().0, rows(), "{form:?}");
        assert!(!form.is_whole(None, &expected), "{form:?}");
        let mut altered = value.to_vec();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        assert_eq!(refused(form, &altered.into(), &expected), Kind::Difference, "{form:?}");
    }
}

#[test]
fn a_sealed_block_is_read_with_its_key_under_its_own_name() {
    let form = sealed_with("1");
    let (value, expected) = stored(&form);
    let elsewhere = Expected { key: "log:b:20261102:3:1".to_owned(), ..expected.clone() };
    assert_eq!(refused(&form, &value, &elsewhere), Kind::Difference);
    for other in [Form::Block(Arc::default()), sealed_with("2")] {
        assert_eq!(refused(&other, &value, &expected), Kind::Config);
    }
    let rotated = Form::Block(Arc::new(Seals::new(Some(&key("2")), &[key("1")])));
    assert_eq!(rotated.decode(&value, &expected).unwrap().0, rows());
    // What its version says of the seal counts, both ways.
    let unsealed = Expected { key_id: None, ..expected.clone() };
    assert_eq!(refused(&form, &value, &unsealed), Kind::Difference);
    let (plain, of_plain) = stored(&Form::Block(Arc::default()));
    assert!(form.is_whole(Some(&plain), &of_plain));
    let wanted = Expected { key_id: expected.key_id, ..of_plain };
    assert_eq!(refused(&form, &plain, &wanted), Kind::Difference);
}

#[test]
fn only_values_of_redis_name_a_key_of_the_seals() {
    assert_eq!(sealed_with("1").key_id(), Some(key("1").id()));
    assert_eq!(Form::Block(Arc::default()).key_id(), None);
    assert_eq!(Form::Parquet(Some(Arc::new(key("1")))).key_id(), None);
}
