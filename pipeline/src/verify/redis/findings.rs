//! The file of findings: one JSON object per key that differs, by name and never by value.
//!
//! Invariant: memory does not depend on how many there are; a key that is no text is written as hexadecimal bytes too,
//! so that it can be found again.

use super::judge::Difference;
use crate::ledger::{io_error, make_folder};
use serde::{Deserialize, Serialize};
use stages::{Error, Kind, Result};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The route.
    pub route: String,
    /// How it differs.
    pub difference: Difference,
    /// The key; where it is no UTF-8, with replacement characters.
    pub key: String,
    /// The ids of the entries, where the key is a stream of many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The bytes of a key that is no UTF-8, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hex: Option<String>,
}

impl Finding {
    /// Makes one of a key.
    pub fn new(route: &str, difference: Difference, key: &[u8]) -> Self {
        let (text, key_hex) = match str::from_utf8(key) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (String::from_utf8_lossy(key).into_owned(), Some(hex(key))),
        };
        Self { route: route.to_owned(), difference, key: text, entry: None, key_hex }
    }

    /// Makes one of an entry of a stream, or of several with ids that follow each other.
    pub fn of_entry(route: &str, difference: Difference, key: &[u8], ids: Option<&str>) -> Self {
        Self { entry: ids.map(str::to_owned), ..Self::new(route, difference, key) }
    }

    /// Returns the key as Redis has it.
    pub fn key_bytes(&self) -> Option<Vec<u8>> {
        let Some(hex) = &self.key_hex else { return Some(self.key.clone().into_bytes()) };
        let digits = hex.as_bytes();
        let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        (0..digits.len()).step_by(2).map(pair).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Findings being written.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Xxh3,
    count: u64,
}

impl Writer {
    /// Makes the file, empty.
    pub(super) fn create(path: &Path) -> Result<Self> {
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(|error| io_error("create", path, error))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), hash: Xxh3::new(), count: 0 })
    }

    /// Adds a finding.
    pub(super) fn push(&mut self, finding: &Finding) -> Result<()> {
        let mut line = serde_json::to_vec(finding).map_err(|error| {
            Error::new(Kind::Internal, "a finding cannot be written as JSON").with_source(error)
        })?;
        line.push(b'\n');
        self.hash.update(&line);
        self.count += 1;
        self.file.write_all(&line).map_err(|error| io_error("write", &self.path, error))
    }

    /// Makes the file durable; returns the number of findings and the hash of the file.
    pub(super) fn finish(mut self) -> Result<(u64, u128)> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|error| io_error("write", &self.path, error))?;
        Ok((self.count, self.hash.digest128()))
    }
}

/// Returns the number of findings in a file and its hash.
pub(super) fn measure(path: &Path) -> Result<(u64, u128)> {
    let mut hash = Xxh3::new();
    let mut count = 0;
    let mut reader = open(path)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|error| io_error("read", path, error))? == 0 {
            return Ok((count, hash.digest128()));
        }
        hash.update(&line);
        count += 1;
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| io_error("open", path, error))?;
    Ok(BufReader::with_capacity(256 << 10, file))
}

/// Reads findings back.
pub(super) struct Reader {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    ahead: Option<Finding>,
}

impl Reader {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), lines: open(path)?.lines(), ahead: None })
    }

    /// Returns the next findings of one route, at most so many; none at the end.
    pub(super) fn next(&mut self, findings: usize) -> Result<Vec<Finding>> {
        let mut found: Vec<Finding> = Vec::new();
        while found.len() < findings {
            let Some(finding) = self.one()? else { break };
            if found.first().is_some_and(|first| first.route != finding.route) {
                self.ahead = Some(finding);
                break;
            }
            found.push(finding);
        }
        Ok(found)
    }

    /// Returns the route of the next finding.
    pub(super) fn next_route(&mut self) -> Result<Option<String>> {
        self.ahead = self.one()?;
        Ok(self.ahead.as_ref().map(|finding| finding.route.clone()))
    }

    fn one(&mut self) -> Result<Option<Finding>> {
        if let Some(finding) = self.ahead.take() {
            return Ok(Some(finding));
        }
        let Some(line) = self.lines.next() else { return Ok(None) };
        let line = line.map_err(|error| io_error("read", &self.path, error))?;
        let finding = serde_json::from_str(&line).map_err(|error| {
            Error::new(Kind::Internal, format!("{} holds no findings", self.path.display()))
                .with_hint("rekindle verify redis --repair --dry-run")
                .with_source(error)
        })?;
        Ok(Some(finding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_back_route_by_route_with_whatever_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("findings.jsonl");
        let keys: [&[u8]; 4] = [b"b:1", b"b:\xff\x00", b"c:\"\n", b"c:2"];
        let findings: Vec<Finding> = keys
            .iter()
            .map(|key| Finding::new(if key[0] == b'b' { "b" } else { "c" }, Difference::Value, key))
            .collect();
        let mut writer = Writer::create(&path).unwrap();
        for finding in &findings {
            writer.push(finding).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), measure(&path).unwrap());
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.next_route().unwrap().as_deref(), Some("b"));
        assert_eq!(reader.next(9).unwrap(), findings[..2]);
        assert_eq!(reader.next(1).unwrap(), findings[2..3]);
        assert_eq!(reader.next(9).unwrap(), findings[3..]);
        assert!(reader.next_route().unwrap().is_none() && reader.next(9).unwrap().is_empty());
        let bytes: Vec<Vec<u8>> = findings.iter().map(|f| f.key_bytes().unwrap()).collect();
        assert_eq!(bytes, keys.map(<[u8]>::to_vec));
    }
}
