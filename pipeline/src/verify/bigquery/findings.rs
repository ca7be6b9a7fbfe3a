//! The file of findings: every thing that was found wrong, one JSON object per line.
//!
//! Invariant: it holds names and counts, never the value of a row; a verification replaces the file of the one before.

use crate::ledger::{io_error, make_folder};
use serde_json::Value;
use stages::{Error, Kind, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const NAME: &str = "verify-bigquery.jsonl";

/// The file while it is written; lines of several lanes do not mix.
pub(super) struct Findings {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Findings {
    /// Replaces the file of the last verification.
    pub(super) fn create(state: &Path) -> Result<Self> {
        make_folder(state)?;
        let path = state.join(NAME);
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| io_error("create", &path, error))?;
        Ok(Self { file: Mutex::new(BufWriter::new(file)), path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one line.
    pub(super) fn note(&self, finding: &Value) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{finding}").map_err(|error| io_error("write", &self.path, error))
    }

    /// Makes sure that everything is in the file.
    pub(super) fn finish(&self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().map_err(|error| io_error("write", &self.path, error))
    }
}

/// The folder of bucket files; it goes with everything in it when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder of this process under the state folder.
    pub(super) fn create(state: &Path) -> Result<Self> {
        let path = state.join(format!("verify-bigquery.{}", std::process::id()));
        if path.exists() {
            // A process of the same number was killed.
            std::fs::remove_dir_all(&path).map_err(|error| io_error("remove", &path, error))?;
        }
        make_folder(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, folder = %self.0.display(), "a folder stays behind");
        }
    }
}

/// Makes the error of a JSON document that could not be made, which cannot happen.
pub(super) fn unprintable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "a finding cannot be written as json").with_source(error)
}
