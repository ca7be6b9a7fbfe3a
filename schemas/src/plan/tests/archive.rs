//! The `[archive]` section: what is read of it, and every mistake in it.

use super::*;

fn with(section: &str) -> String {
    format!("{MINIMAL}[archive]\n{section}\n")
}

fn read(section: &str) -> Archive {
    parse(&with(section)).unwrap().archive.unwrap()
}

#[test]
fn a_folder_and_a_bucket_are_read() {
    let folder = read("url = \"file:///backups/bq/\"");
    assert_eq!(folder.place, ArchivePlace::Folder("/backups/bq".to_owned()));
    assert_eq!((folder.url().as_str(), folder.encrypt_key), ("file:///backups/bq", None));
    let bucket = read("url = \"gs://town-copies/bq/prod\"\nendpoint = \"http://127.0.0.1:9070/\"");
    let (name, prefix) = ("town-copies".to_owned(), "bq/prod".to_owned());
    assert_eq!(bucket.place, ArchivePlace::Bucket { name, prefix });
    assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:9070"));
    assert_eq!(read("url = \"gs://b\"").url(), "gs://b");
    let key = "0f".repeat(32);
    let locked = read(&format!("url = \"gs://b\"\nencrypt_key = \"{key}\""));
    let shown = format!("{locked:?}");
    assert!(locked.encrypt_key.is_some() && !shown.contains("0f0f"), "{shown}");
    assert!(parse(MINIMAL).unwrap().archive.is_none());
}

#[test]
fn what_names_no_archive_is_refused_at_its_place() {
    for url in ["s3://b/p", "file://relative", "file:///", "file:///a/../b", "gs://b/a%2Fb", "/x"] {
        let found = mistakes(&with(&format!("url = \"{url}\"")));
        let expected = "line 12: archive.url: must be file:///FOLDER or gs://BUCKET/PREFIX";
        assert_eq!(found, expected, "{url}");
    }
    let bucket = mistakes(&with("url = \"gs://Town\""));
    assert!(bucket.starts_with("line 12: archive.url: names no bucket"), "{bucket}");
    assert_eq!(mistakes(&with("")), "line 11: archive: field \"url\" is missing");
    let endpoint = mistakes(&with("url = \"file:///x\"\nendpoint = \"http://h\""));
    assert!(endpoint.contains("goes with a gs:// url only"), "{endpoint}");
    let key = mistakes(&with("url = \"file:///x\"\nencrypt_key = \"hunter2\""));
    assert!(key.contains("openssl rand -hex 32") && !key.contains("hunter2"), "{key}");
    let typo = mistakes(&with("url = \"file:///x\"\nencrypt_kee = \"x\""));
    assert!(typo.contains("did you mean \"encrypt_key\"?"), "{typo}");
}
