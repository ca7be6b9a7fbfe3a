//! Rows that give way to a newer version: one script call each, whatever the way, and a version for the ledger.

use super::*;
use schemas::version::OLDEST;

fn encoded(layout: Layout) -> Encoded {
    let mut case = Case::new(layout);
    case.columns = Some(vec![column("name"), column("at")]);
    case.has_expiry = true;
    let mut bound = case.bound().as_ref().clone();
    let mut route = bound.route.clone();
    (route.on_conflict, route.version_by) = (OnConflict::Newest, Some("at".into()));
    bound = BoundRoute::bind(&route, bound.schema).unwrap();
    let rows =
        [row(1, Some("a"), Some(NOW_MS + 1)), row(2, Some("b"), None), row(3, None, Some(1))];
    let way = Way::Restore(ListpackLimits::default());
    let commands = RedisCommands::new(Arc::new(bound), Lead::None, Style::Newest, way);
    commands.apply(raw(&rows, true), NOW_MS).unwrap()
}

#[test]
fn versions_go_as_digits_and_into_the_ledger() {
    let (one, none) = ("00069700101001640001000", "00000000000000000000000");
    let at = "1970-01-01T00:16:40.001000Z";
    let hashes = encoded(Layout::Hash);
    let expected = [
        format!("EVALSHA {NEWEST_SHA1} 1 k:1 hz at {one} 1000001 name a at {at}"),
        format!("EVALSHA {NEWEST_SHA1} 1 k:2 hz at {none} 0 name b"),
    ];
    assert_eq!(payload(&hashes), resp(&[&expected[0], &expected[1]]));
    assert!(hashes.units.is_empty() && hashes.may_keep);
    assert_eq!(hashes.versions, [(NOW_MS + 1) * 1000, OLDEST]);
    assert_eq!((hashes.entries.len(), hashes.expired), (2, 1));
    let texts = encoded(Layout::Json);
    let expected = [
        format!(
            "EVALSHA {NEWEST_SHA1} 1 k:1 jz at {one} 1000001 {{\"name\":\"a\",\"at\":\"{at}\"}}"
        ),
        format!("EVALSHA {NEWEST_SHA1} 1 k:2 jz at {none} 0 {{\"name\":\"b\"}}"),
    ];
    assert_eq!(payload(&texts), resp(&[&expected[0], &expected[1]]));
    assert_eq!(texts.versions, hashes.versions);
    // A document differs by its letter only.
    let documents = payload(&encoded(Layout::RedisJson));
    assert_eq!(documents, payload(&texts).replace("jz", "dz"));
}
