//! An archive in a folder: keys, documents, blocks, marks.

use super::*;
use schemas::EncryptKey;
use schemas::plan::ArchivePlace;
use std::collections::HashSet;
use tempfile::TempDir;

fn archive(folder: &TempDir) -> Archive {
    let place = ArchivePlace::Folder(folder.path().to_str().unwrap().to_owned());
    let encrypt_key = EncryptKey::parse(&"a".repeat(64)).ok();
    Archive::open(&Section { place, endpoint: None, encrypt_key }).unwrap()
}

fn file(bytes: &[u8]) -> Framed {
    Framed { head: Vec::new(), body: bytes.to_vec() }
}

#[test]
fn two_keys_never_share_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder);
    let mut paths = HashSet::new();
    let mut count = 0;
    for prefix in ["log", "log:a", "log/a", "log:b:x", "x:m:y", "a b%2F", ".."] {
        let keys = Keys::new(prefix);
        for name in ["20251101", "w:..5", "w:-5..7", "__NULL__", "a/b", "1"] {
            let block_path = block(&archive.files, &keys.block(name, 3, 0)).unwrap();
            let folder = generation_folder(&archive.files, &keys, name, 3).unwrap();
            assert_eq!(Some(folder), block_path.parent());
            let document = keys.manifest(name);
            assert_eq!(block(&archive.files, &document), None, "{document}");
            paths.insert(block_path.to_string());
            paths.insert(super::document(&archive.files, &document).to_string());
            count += 2;
        }
        for key in [keys.run(), keys.schema("00")] {
            paths.insert(document(&archive.files, &key).to_string());
            count += 1;
        }
    }
    assert_eq!(paths.len(), count);
}

#[tokio::test]
async fn a_document_is_replaced_by_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder);
    assert_eq!(archive.get("log:run").await.unwrap(), None);
    for text in ["one", "two", "two", "three"] {
        archive.set("log:run", text.as_bytes()).await.unwrap();
        assert_eq!(archive.get("log:run").await.unwrap().as_deref(), Some(text.as_bytes()));
    }
    let files = archive.files.list(&document(&archive.files, "log:run")).await.unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(number(&files[0].path), Some(3));
    // A number that somebody else took is not taken from them.
    let next = document(&archive.files, "log:run").join(format!("{:020}.json", 4));
    archive.files.create(&next, "theirs".into()).await.unwrap();
    assert_eq!(archive.get("log:run").await.unwrap().as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_block_is_written_once_and_removed_with_its_generation() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder);
    let keys = Keys::new("log");
    let writer = archive.writer().await.unwrap();
    for (generation, ordinal) in [(1, 0), (2, 0), (2, 1)] {
        let key = keys.block("w:..5", generation, ordinal);
        writer.write(&key, file(b"rows")).await.unwrap();
        writer.write(&key, file(b"rows")).await.unwrap();
        let refused = writer.write(&key, file(b"other")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Fenced);
        assert!(refused.to_string().contains("is not overwritten"), "{refused}");
    }
    let wanted = [keys.block("w:..5", 2, 1), keys.block("w:..5", 1, 0), keys.block("w:..5", 2, 2)];
    assert_eq!(archive.lengths(&wanted).await.unwrap(), [4, 4, 0]);
    assert_eq!(archive.highest_generation(&keys, "w:..5").await.unwrap(), 2);
    assert_eq!(archive.highest_generation(&keys, "w:").await.unwrap(), 0);
    assert_eq!(archive.remove_generation(&keys, "w:..5", 2).await.unwrap(), 2);
    assert_eq!(archive.lengths(&wanted).await.unwrap(), [0, 4, 0]);
}

#[tokio::test]
async fn the_mark_is_of_one_run_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder);
    let state = archive.state().await.unwrap();
    assert_eq!(archive.claim("r1", "pid=1").await.unwrap(), Sentinel::Ours);
    assert_eq!(archive.claim("r1", "pid=2").await.unwrap(), Sentinel::Ours);
    assert_eq!(archive.claim("r2", "pid=3").await.unwrap(), Sentinel::Foreign("r1 pid=1".into()));
    archive.meet("r1", &state).await.unwrap();
    assert_eq!(archive.meet("r2", &state).await.unwrap_err().kind(), Kind::TargetChanged);
    archive.release("r2").await.unwrap();
    archive.meet("r1", &state).await.unwrap();
    archive.release("r1").await.unwrap();
    assert_eq!(archive.claim("r2", "pid=3").await.unwrap(), Sentinel::Ours);
}
