//! Keys without values are those of the whole rows.

use super::*;
use crate::transform::keys::render_keys;

#[test]
fn keys_alone_are_those_of_the_full_transform() {
    let mut case = Case::new(Layout::Hash);
    case.key = "k:{name}:{id}";
    let key_only = case.bound().key_only();
    let names: Vec<&str> = key_only.schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["name", "id"]);
    let rows = [
        tuple(&[Some(b"a"), Some(&[0, 0, 0, 1])]),
        tuple(&[None, Some(&[0, 0, 0, 2])]),
        tuple(&[Some(b"\xff"), Some(&[0, 0, 0, 3])]),
        tuple(&[Some(b"b"), Some(&[0, 0, 0, 4])]),
    ];
    let keys = render_keys(&raw(&rows, true), Lead::None, &key_only).unwrap();
    assert_eq!(keys.iter().collect::<Vec<_>>(), [b"k:a:1", b"k:b:4"]);
    assert_eq!(keys.skipped, 2);
    assert_eq!(keys.hashes().next(), Some(schemas::key::key_hash(b"k:a:1")));
}
