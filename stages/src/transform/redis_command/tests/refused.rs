//! Rows that the target refused are left out of their batch, and nothing else about the batch changes.

use super::*;
use crate::transform::leave_out;
use std::collections::HashMap;

fn encode(rows: &[Vec<u8>], refused: &[&str]) -> Encoded {
    let bound = Case::new(Layout::Hash).bound();
    let commands = RedisCommands::new(Arc::clone(&bound), Lead::Ctid, Style::Exact, Way::Command);
    let refused: HashMap<Vec<u8>, String> =
        refused.iter().map(|key| (key.as_bytes().to_vec(), format!("no {key}"))).collect();
    leave_out(&commands, Lead::Ctid.into(), &bound.schema, raw(rows, false), NOW_MS, &refused)
        .unwrap()
}

/// Rows of ids 1 to 5, of which the third cannot be carried anyway.
fn rows() -> Vec<Vec<u8>> {
    (1..=5_u8)
        .map(|id| {
            let (ctid, key) = ([0, 0, 0, 9, 0, id], [0, 0, 0, id]);
            let name: &[u8] = if id == 3 { b"\xff" } else { b"n" };
            tuple(&[Some(&ctid), Some(&key), Some(name), None])
        })
        .collect()
}

#[test]
fn a_refused_row_becomes_a_reject_wherever_it_stands() {
    let rows = rows();
    let whole = encode(&rows, &[]);
    assert_eq!((&whole.keys[..], whole.carried), (&b"k:1k:2k:4k:5"[..], 4));
    for (refused, keys) in [
        (&["k:1"][..], "k:2k:4k:5"),
        (&["k:2", "k:4"], "k:1k:5"),
        (&["k:5"], "k:1k:2k:4"),
        (&["k:1", "k:2", "k:4", "k:5"], ""),
        (&["k:9"], "k:1k:2k:4k:5"),
    ] {
        let encoded = encode(&rows, refused);
        assert_eq!(encoded.keys, keys, "{refused:?}");
        assert_eq!(encoded.position, whole.position, "{refused:?}");
        assert_eq!(encoded.digest, whole.digest, "{refused:?}");
        assert_eq!((encoded.rows_read, encoded.bytes_read), (5, whole.bytes_read));
        let rejected = encoded.rejected.unwrap();
        assert_eq!(rejected.reasons.len() as u64 + encoded.carried, 5, "{refused:?}");
        assert_eq!(rejected.rows.num_rows(), rejected.raw.len());
        assert_eq!(rejected.raw.len(), rejected.reasons.len());
        for (raw, reason) in rejected.raw.iter().zip(&rejected.reasons) {
            let Some(id) = reason.strip_prefix("no k:") else { continue };
            assert_eq!(*raw, rows[id.parse::<usize>().unwrap() - 1], "{reason}");
        }
    }
}
