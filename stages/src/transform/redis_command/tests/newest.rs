//! Rows that give way to a newer version: many in one script call, whatever the way, and a version for the ledger.

use super::*;
use schemas::version::OLDEST;

fn encoded(layout: Layout) -> Encoded {
    encoded_rows(
        layout,
        &[row(1, Some("a"), Some(NOW_MS + 1)), row(2, Some("b"), None), row(3, None, Some(1))],
    )
}

fn encoded_rows(layout: Layout, rows: &[Vec<u8>]) -> Encoded {
    let mut case = Case::new(layout);
    case.columns = Some(vec![column("name"), column("at")]);
    case.has_expiry = true;
    let mut bound = case.bound().as_ref().clone();
    let mut route = bound.route.clone();
    (route.on_conflict, route.version_by) = (OnConflict::Newest, Some("at".into()));
    bound = BoundRoute::bind(&route, bound.schema).unwrap();
    let way = Way::Restore(ListpackLimits::default());
    let commands = RedisCommands::new(Arc::new(bound), Lead::None, Style::Newest, way);
    commands.apply(raw(rows, true), NOW_MS).unwrap()
}

#[test]
fn versions_go_as_digits_and_into_the_ledger() {
    let (one, none) = ("00069700101001640001000", "00000000000000000000000");
    let at = "1970-01-01T00:16:40.001000Z";
    let hashes = encoded(Layout::Hash);
    let expected = format!(
        "EVALSHA {NEWEST_SHA1} 2 k:1 k:2 hz at {one} 1000001 4 name a at {at} {none} 0 2 name b"
    );
    assert_eq!(payload(&hashes), resp(&[&expected]));
    assert_eq!(hashes.units, [Unit { rows: 2, folded: 0, replies: 1 }]);
    assert!(hashes.may_keep);
    assert_eq!(hashes.versions, [(NOW_MS + 1) * 1000, OLDEST]);
    assert_eq!((hashes.entries.len(), hashes.expired), (2, 1));
    let texts = encoded(Layout::Json);
    let expected = format!(
        "EVALSHA {NEWEST_SHA1} 2 k:1 k:2 jz at {one} 1000001 1 {{\"name\":\"a\",\"at\":\"{at}\"}} {none} 0 1 {{\"name\":\"b\"}}"
    );
    assert_eq!(payload(&texts), resp(&[&expected]));
    assert_eq!(texts.versions, hashes.versions);
    // A document differs by its letter only.
    let documents = payload(&encoded(Layout::RedisJson));
    assert_eq!(documents, payload(&texts).replace("jz", "dz"));
}

#[test]
fn a_call_takes_so_many_rows_and_bytes_and_every_row_is_in_one() {
    let sizes = |encoded: &Encoded| -> Vec<u32> {
        assert!(encoded.units.iter().all(|unit| unit.replies == 1));
        encoded.units.iter().map(|unit| unit.rows).collect()
    };
    for (count, expected) in
        [(0, &[][..]), (1, &[1]), (32, &[32]), (33, &[32, 1]), (70, &[32, 32, 6])]
    {
        // Rejected rows in between take no place in a call.
        let mut rows = Vec::new();
        for id in 0..count {
            rows.push(row(id, Some("x"), None));
            rows.push(row(1_000 + id, None, None));
        }
        let encoded = encoded_rows(Layout::Hash, &rows);
        assert_eq!(sizes(&encoded), expected, "{count} rows");
        assert_eq!(encoded.entries.len(), usize::try_from(count).unwrap());
        let payload = payload(&encoded);
        for id in 0..count {
            assert_eq!(payload.matches(&format!("\r\nk:{id}\r\n")).count(), 1, "{id} of {count}");
        }
    }
    let long = "x".repeat(30_000);
    let rows: Vec<Vec<u8>> = (0..7).map(|id| row(id, Some(&long), None)).collect();
    assert_eq!(sizes(&encoded_rows(Layout::Json, &rows)), [3, 3, 1]);
}
