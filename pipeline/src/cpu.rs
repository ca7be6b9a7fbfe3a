//! The only bridge between tokio and rayon: transforms run here, async code awaits them.
//!
//! Invariant: work runs at once on the pool when it is submitted, not when its future is polled; a panic in
//! it fails its lane, not the process.

use stages::{Error, Kind, Result};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A rayon pool for transforms.
#[derive(Debug)]
pub struct CpuPool {
    pool: rayon::ThreadPool,
    busy_us: Arc<AtomicU64>,
}

impl CpuPool {
    /// Makes a pool with one thread per core but one, which is left to I/O; at least one.
    pub fn new() -> Result<Self> {
        Self::of(cores().saturating_sub(1).max(1))
    }

    /// Makes a pool with one thread per core, for blocks: to compress them takes longer than to move them.
    pub fn on_every_core() -> Result<Self> {
        Self::of(cores())
    }

    fn of(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("transform-{index}"))
            .build()
            .map_err(|error| {
                Error::new(Kind::Internal, "cannot start the transform threads").with_source(error)
            })?;
        Ok(Self { pool, busy_us: Arc::default() })
    }

    /// Threads in the pool.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Microseconds all threads together have worked.
    pub fn busy_us(&self) -> u64 {
        self.busy_us.load(Ordering::Relaxed)
    }

    /// Queues work at once and returns a future of its result. Work whose future was dropped is skipped.
    pub fn submit<T, W>(&self, work: W) -> impl Future<Output = Result<T>> + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let busy_us = Arc::clone(&self.busy_us);
        self.pool.spawn(move || {
            if sender.is_closed() {
                return;
            }
            let started = Instant::now();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            busy_us.fetch_add(as_us(started.elapsed()), Ordering::Relaxed);
            let outcome = outcome.unwrap_or_else(|_| {
                Err(Error::new(Kind::Internal, "a transform panicked; see the message above"))
            });
            if sender.send(outcome).is_err() {
                tracing::trace!("a lane left before its transform was done");
            }
        });
        async move {
            receiver.await.unwrap_or_else(|_| {
                Err(Error::new(Kind::Internal, "a transform ended without a result"))
            })
        }
    }
}

fn as_us(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
