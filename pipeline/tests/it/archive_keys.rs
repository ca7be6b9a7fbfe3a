//! The archive encrypted: without its key nobody reads a row, and nothing is restored by half.
//!
//! Invariant: which key is wanted is always told, the key itself never.

use crate::archive::{backup, files, in_folder, restore, run, section, tables};
use crate::cloud::Cloud;
use schemas::EncryptKey;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a key into a file and returns the line of the plan and the id of the key.
fn key(cloud: &Cloud, digit: &str) -> (String, String) {
    let (path, text) = (cloud.folder.path().join(format!("key-{digit}")), digit.repeat(64));
    fs::write(&path, format!("{text}\n")).unwrap();
    let id = EncryptKey::parse(&text).unwrap().id_text();
    (format!("encrypt_key = \"${{file:{}}}\"\n", path.display()), id)
}

fn rows_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = files(folder);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    found
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read(file).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn without_the_key_of_its_files_an_archive_is_neither_read_nor_added_to() {
    let (cloud, folder) = in_folder("");
    let ((one, one_id), (other, other_id)) = (key(&cloud, "a"), key(&cloud, "b"));
    cloud.plan(&section(&folder, &one));
    cloud.insert(1, 0..100);
    cloud.insert(2, 0..100);
    backup(&cloud, &[]).expect(0);
    // No file of rows shows its schema, and each says which key it wants.
    let written = rows_of(&folder);
    assert_eq!(written.len(), 2);
    for file in &written {
        assert!(!holds(file, "ARROW:schema") && holds(file, &one_id), "{file:?}");
        assert!(!holds(file, "name 3"), "{file:?}");
    }
    let before = cloud.source("id, name, ts");
    // A backup with another key, or with none, adds nothing.
    cloud.insert(2, 200..210);
    cloud.plan(&section(&folder, &other));
    backup(&cloud, &[]).expect(2).says(&[&one_id, &other_id, "--to archive --full"]);
    cloud.plan(&section(&folder, ""));
    backup(&cloud, &[]).expect(2).says(&[&one_id, "has no encrypt_key"]);
    assert_eq!(rows_of(&folder), written);
    // A restore with another key, or with none, touches nothing.
    cloud.delete_table();
    restore(&cloud, &[]).expect(2).says(&[&one_id, "has no encrypt_key"]);
    cloud.plan(&section(&folder, &other));
    let ran = restore(&cloud, &[]).expect(2).says(&[&one_id, &other_id]);
    assert!(!ran.stderr.contains(&"a".repeat(64)) && !ran.stderr.contains(&"b".repeat(64)));
    assert_eq!(tables(&cloud), Vec::<String>::new());
    cloud.plan(&section(&folder, &one));
    restore(&cloud, &[]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
}

#[test]
fn another_key_takes_over_where_everything_is_copied_anew() {
    let (cloud, folder) = in_folder("");
    cloud.insert(1, 0..100);
    backup(&cloud, &[]).expect(0);
    assert!(holds(&rows_of(&folder)[0], "ARROW:schema"));
    // Files that were written without a key are told, because anybody reads them.
    let (line, id) = key(&cloud, "c");
    cloud.plan(&section(&folder, &line));
    let told = backup(&cloud, &[]).expect(0).summary();
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("archived without a key"), "{warnings}");
    backup(&cloud, &["--full"]).expect(0);
    assert!(rows_of(&folder).iter().any(|file| holds(file, &id)));
    let before = cloud.source("id, name, ts");
    cloud.delete_table();
    restore(&cloud, &[]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
    cloud.delete_table();
    cloud.plan(&section(&folder, ""));
    restore(&cloud, &[]).expect(2).says(&[&id]);
}

#[test]
fn the_duplicate_and_the_archive_are_each_read_with_their_own_key_alone() {
    let (cloud, folder) = in_folder("");
    let ((one, one_id), (other, other_id)) = (key(&cloud, "a"), key(&cloud, "b"));
    cloud.plan(&format!("{one}{}", section(&folder, &other)));
    cloud.insert(1, 0..100);
    cloud.insert(2, 0..100);
    let before = cloud.source("id, name, ts");
    cloud.backup(&[]).expect(0);
    backup(&cloud, &[]).expect(0);
    backup(&cloud, &["--full"]).expect(0);
    // The seals of the duplicate are not for files, and its documents are sealed in redis only.
    assert!(cloud.value("log:run").starts_with(b"RKSEALED"));
    let written = files(&folder);
    let (of_rows, documents): (Vec<_>, Vec<_>) =
        written.iter().partition(|path| path.extension().is_some_and(|end| end == "parquet"));
    assert!(!of_rows.is_empty() && !documents.is_empty(), "{written:?}");
    for file in of_rows {
        assert!(holds(file, &other_id) && !holds(file, &one_id), "{file:?}");
    }
    for document in documents {
        assert!(!holds(document, "RKSEALED") && !holds(document, "key_id"), "{document:?}");
    }
    let status = run(&cloud, &["status", "--json"]).expect(0).summary();
    assert_eq!(status["duplicates"][0]["sealing"]["key_id"], one_id, "{status}");
    assert_eq!(status["archives"][0].get("sealing"), None, "{status}");
    // WHEN the key of the duplicate is lost THEN the archive comes back without it
    cloud.plan(&section(&folder, &other));
    cloud.delete_table();
    restore(&cloud, &[]).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
    // AND the other way round
    cloud.plan(&format!("{one}{}", section(&folder, "")));
    cloud.delete_table();
    let words = ["restore", "bigquery", "--json", "--progress", "none", "--retry-for", "5s"];
    run(&cloud, &words).expect(0);
    assert_eq!(cloud.source("id, name, ts"), before);
}
