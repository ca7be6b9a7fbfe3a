//! What goes wrong when: a script of faults that a decorator plays over a real source or sink.
//!
//! Invariant: a fault happens to the batch it names and to no other; without one, everything goes to the real system.

use stages::{Error, Kind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What happens to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing of it happened.
    Reject(Kind),
    /// It fails after it happened: the answer is lost.
    FailAfter(Kind),
    /// It waits until the script is released.
    Hold,
    /// It takes this much longer, as does every batch after it.
    Slow(Duration),
    /// Whoever asks for it panics.
    Panic,
}

/// Faults by the number of the batch, from 1, over all lanes and attempts; and what was met.
pub(crate) struct Script {
    faults: Mutex<Vec<(u64, Fault)>>,
    batches: AtomicU64,
    bytes: AtomicU64,
    rows: AtomicU64,
    held: watch::Sender<u64>,
    is_released: watch::Sender<bool>,
}

impl Script {
    /// Makes a script of faults for the batches of these numbers.
    pub(crate) fn of(faults: &[(u64, Fault)]) -> Arc<Self> {
        Arc::new(Self {
            faults: Mutex::new(faults.to_vec()),
            batches: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            held: watch::Sender::new(0),
            is_released: watch::Sender::new(false),
        })
    }

    /// Counts a batch; returns what is to happen to it, after it was held or slowed.
    pub(super) async fn next(&self) -> Option<Fault> {
        let number = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        let due = |(at, fault): &(u64, Fault)| match fault {
            Fault::Slow(_) => *at <= number,
            _ => *at == number,
        };
        let found = self.faults.lock().unwrap().iter().find(|fault| due(fault)).copied();
        match found?.1 {
            Fault::Hold => {
                self.held.send_modify(|held| *held += 1);
                let mut released = self.is_released.subscribe();
                released.wait_for(|is_released| *is_released).await.unwrap();
                None
            }
            Fault::Panic => panic!("asked for by a script"),
            Fault::Slow(pause) => {
                tokio::time::sleep(pause).await;
                None
            }
            fault => Some(fault),
        }
    }

    /// Counts what came through whole.
    pub(super) fn passed(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::SeqCst);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Rows that came through, those of a second attempt once more.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::SeqCst)
    }

    /// Bytes that came through.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Batches that were met.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::SeqCst)
    }

    /// Waits until so many batches have been held.
    pub(crate) async fn until_held(&self, batches: u64) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| *held >= batches).await.unwrap();
    }

    /// Lets everything go that is held, and that would be.
    pub(crate) fn release(&self) {
        self.is_released.send_replace(true);
    }
}

/// The error of a scripted fault.
pub(super) fn scripted(kind: Kind) -> Error {
    Error::new(kind, "a fault that was asked for")
}
