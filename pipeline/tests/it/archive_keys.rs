//! The archive encrypted: without its key nobody reads a row, and nothing is restored by half.
//!
//! Invariant: which key is wanted is always told, the key itself never.

use crate::archive::{backup, files, in_folder, restore, section, tables};
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
