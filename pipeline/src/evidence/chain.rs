//! The folder of evidence: numbered files, each sealed by a manifest that names the one before.
//!
//! Invariant: nothing in it is ever written twice. A manifest has the form that `sha256sum --check` reads: the hash of its
//! evidence, then that of the manifest before; so one altered byte anywhere breaks every manifest from there on. Whatever
//! instant a program is killed at, evidence is there with its manifest, or neither is.

use super::{Evidence, canonical};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use stages::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FOLDER: &str = "evidence";
const EVIDENCE: &str = "json";
const MANIFEST: &str = "sha256";
/// What evidence and manifest are called until both are on disk.
const STAGED_EVIDENCE: &str = "json.tmp";
const STAGED_MANIFEST: &str = "sha256.tmp";

/// The folder.
#[derive(Debug, Clone)]
pub struct Chain {
    folder: PathBuf,
}

/// One piece of evidence in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
}

/// What is wrong with the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// The files of one number.
#[derive(Debug, Default)]
struct Pair {
    evidence: Option<PathBuf>,
    manifest: Option<PathBuf>,
}

impl Chain {
    /// The evidence of a state folder.
    pub fn of_state(state: &Path) -> Self {
        Self::of_records(state, FOLDER)
    }

    /// Other records of a state folder, which are kept the same way.
    pub fn of_records(state: &Path, folder: &str) -> Self {
        Self { folder: state.join(folder) }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes evidence and seals it; returns its file.
    pub fn add(&self, evidence: &Evidence) -> Result<PathBuf> {
        let label = format!("{}-{}", evidence.command.replace(' ', "-"), evidence.run_id);
        self.seal(&label, evidence)
    }

    /// Writes a record and seals it; returns its file. The label, without dots, tells people what it is.
    pub fn seal(&self, label: &str, record: &impl Serialize) -> Result<PathBuf> {
        let written = serde_json::to_value(record)
            .map_err(io::Error::from)
            .and_then(|value| self.write(label, &value));
        written.map_err(|error| failed("write", &self.folder, &error))
    }

    fn write(&self, label: &str, value: &Value) -> io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // Two programs that end together are sealed one after the other.
        let _held = self.lock()?;
        let pairs = self.pairs()?;
        let number = pairs.keys().next_back().map_or(1, |last| last + 1);
        let before = pairs.values().rev().find_map(|pair| pair.manifest.as_ref());
        let bytes = canonical(value);
        let path = self.folder.join(format!("{number:06}-{label}.{EVIDENCE}"));
        let mut manifest = line(bytes.as_bytes(), &path);
        if let Some(before) = before {
            manifest.push_str(&line(&fs::read(before)?, before));
        }
        stage(&path.with_extension(STAGED_EVIDENCE), bytes.as_bytes())?;
        stage(&path.with_extension(STAGED_MANIFEST), manifest.as_bytes())?;
        // From here on the evidence exists; `pairs` gives it its name, should this program be killed in between.
        fs::rename(path.with_extension(STAGED_MANIFEST), path.with_extension(MANIFEST))?;
        fs::rename(path.with_extension(STAGED_EVIDENCE), &path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let mut lock = OpenOptions::new();
        lock.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(self.folder.join("lock"))?;
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Lists all evidence, oldest first.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let pairs = self.pairs().map_err(|error| failed("read", &self.folder, &error))?;
        let entry = |(number, pair): (u64, Pair)| Some(Entry { number, path: pair.evidence? });
        Ok(pairs.into_iter().filter_map(entry).collect())
    }

    /// Reads a piece of evidence.
    pub fn read(entry: &Entry) -> Result<Evidence> {
        let evidence: Evidence = Self::record(entry)?;
        if evidence.format > super::FORMAT {
            let newer = format!("format {} is of a newer rekindle", evidence.format);
            return Err(unreadable(entry, &newer));
        }
        Ok(evidence)
    }

    /// Reads every record of another kind, oldest first, where none of the folder was altered and none is of a newer format.
    pub fn records<T: DeserializeOwned>(&self, format: u64) -> Result<Vec<T>> {
        self.unaltered()?;
        let mut records = Vec::new();
        for entry in self.list()? {
            let value: Value = Self::record(&entry)?;
            if let Some(found) = value["format"].as_u64().filter(|found| *found > format) {
                let message =
                    format!("{} is of a newer rekindle (format {found})", entry.path.display());
                return Err(Error::new(Kind::Internal, message).with_hint("use the newer rekindle"));
            }
            let record = serde_json::from_value(value);
            records.push(record.map_err(|error| unreadable(&entry, &error))?);
        }
        Ok(records)
    }

    fn record<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
        let bytes = fs::read(&entry.path).map_err(|error| unreadable(entry, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| unreadable(entry, &error))
    }

    /// Looks at every file and returns what was altered, is missing, or was never sealed.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        self.look().map_err(|error| failed("read", &self.folder, &error))
    }

    /// Fails with `Difference` where a file was altered, is missing, or was never sealed.
    pub fn unaltered(&self) -> Result<()> {
        let faults = self.faults()?;
        if faults.is_empty() {
            return Ok(());
        }
        let told: Vec<String> =
            faults.iter().map(|fault| format!("{} {}", fault.file, fault.what)).collect();
        let what = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let message =
            format!("the {what} in {} was altered: {}", self.folder.display(), told.join("; "));
        Err(Error::new(Kind::Difference, message).with_hint(
            "bring the files back from a copy; what is told here cannot be trusted before that",
        ))
    }

    fn look(&self) -> io::Result<Vec<Fault>> {
        // Not beside somebody who is sealing; who may only read here does without.
        let _held = self.lock().ok();
        let mut faults = Vec::new();
        let mut before: Option<PathBuf> = None;
        for (expected, (number, pair)) in (1..).zip(self.pairs()?) {
            let name = |path: &Option<PathBuf>| {
                path.as_deref().map_or_else(|| format!("{number:06}"), name_of)
            };
            if number != expected {
                let what = "stands behind a number that is missing";
                faults.push(Fault { file: name(&pair.evidence), what });
                return Ok(faults);
            }
            let Some(manifest) = &pair.manifest else {
                faults.push(Fault {
                    file: name(&pair.evidence),
                    what: "was never sealed, or its manifest is gone",
                });
                continue;
            };
            let text = fs::read_to_string(manifest)?;
            let mut wanted = Vec::new();
            match &pair.evidence {
                Some(evidence) => wanted.push(line(&fs::read(evidence)?, evidence)),
                None => {
                    faults.push(Fault { file: name_of(manifest), what: "its evidence is gone" });
                }
            }
            if let Some(before) = &before {
                wanted.push(line(&fs::read(before)?, before));
            }
            let found: Vec<&str> = text.split_inclusive('\n').collect();
            if pair.evidence.is_some() && found != wanted {
                let is_own = found.first().is_some_and(|first| *first == wanted[0]);
                let what = if is_own {
                    "does not seal the manifest before it"
                } else {
                    "is not what its manifest seals"
                };
                faults.push(Fault { file: name(&pair.evidence), what });
            }
            before = Some(manifest.clone());
        }
        Ok(faults)
    }

    fn pairs(&self) -> io::Result<BTreeMap<u64, Pair>> {
        let mut pairs: BTreeMap<u64, Pair> = BTreeMap::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pairs),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let number = name_of(&path).split('-').next().and_then(|digits| digits.parse().ok());
            let (Some(number), Some(kind)) = (number, path.extension()) else { continue };
            if kind == EVIDENCE {
                pairs.entry(number).or_default().evidence = Some(path);
            } else if kind == MANIFEST {
                pairs.entry(number).or_default().manifest = Some(path);
            }
        }
        for pair in pairs.values_mut() {
            let (None, Some(manifest)) = (&pair.evidence, &pair.manifest) else { continue };
            let path = manifest.with_extension(EVIDENCE);
            if fs::rename(manifest.with_extension(STAGED_EVIDENCE), &path).is_ok() {
                pair.evidence = Some(path);
            }
        }
        Ok(pairs)
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// A line as `sha256sum` writes it.
fn line(bytes: &[u8], path: &Path) -> String {
    format!("{}  {}\n", sha256(bytes), name_of(path))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a file anew, and puts it on disk.
fn stage(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unreadable(entry: &Entry, error: &dyn std::fmt::Display) -> Error {
    let message = format!("cannot read the record {}: {error}", entry.path.display());
    Error::new(Kind::Internal, message).with_hint("rekindle report --list")
}

fn failed(verb: &str, folder: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Internal,
        format!("cannot {verb} the evidence in {}: {error}", folder.display()),
    )
    .with_hint("free space or mend permissions under --state; the run itself is not concerned")
}
