//! The lock on a state folder: one writer at a time on this machine.
//!
//! Invariant: the kernel releases it when the holder dies, so a stale lock file never blocks anybody.

use super::error::{JournalError, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Holds the state folder until it is dropped.
#[derive(Debug)]
pub(crate) struct StateLock {
    _held: Flock<File>,
}

impl StateLock {
    /// Takes the lock without waiting and writes the process id into `path`.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| JournalError::io("open", path, source))?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(JournalError::Locked { path: path.to_owned(), pid: read_pid(file) });
            }
            Err((_, errno)) => return Err(JournalError::io("lock", path, errno.into())),
        };
        held.set_len(0)
            .and_then(|()| writeln!(held, "{}", std::process::id()))
            .map_err(|source| JournalError::io("write", path, source))?;
        Ok(Self { _held: held })
    }
}

fn read_pid(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
