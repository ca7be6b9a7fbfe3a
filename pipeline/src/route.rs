//! One route as a run carries it: its binding, its source, its way of encoding.
//!
//! Invariant: it names no system; `wiring` fills it.

use crate::one_pass::Membership;
use schemas::bind::KeyOnly;
use schemas::drift::TableShape;
use schemas::plan::OnConflict;
use schemas::{BoundRoute, Bounds, PartitionId};
use stages::extract::Source;
use stages::transform::{Decoder, Style, Transform};
use stages::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Makes the transform of a partition.
pub type MakeTransform = Box<dyn Fn(&Bounds, Style) -> Arc<dyn Transform> + Send + Sync>;

/// A route in a run.
pub struct RouteRun {
    /// Place in the plan and in the counters.
    pub index: usize,
    /// The route bound to its table.
    pub bound: Arc<BoundRoute>,
    /// Where its rows come from.
    pub source: Arc<dyn Source>,
    /// How its rows are encoded.
    pub transform: MakeTransform,
    /// How raw batches of a partition are decoded, for who takes single rows out of them.
    pub decoder_of: fn(&Bounds) -> Decoder,
    /// The route reduced to its key, for the collision and deletion passes.
    pub key_only: Arc<KeyOnly>,
    /// How batches that hold the key columns only are decoded.
    pub key_decoder: Decoder,
    /// Its whole table, where it was described.
    pub shape: Option<TableShape>,
    /// Whether an archive is read in place of its table.
    pub is_archived: bool,
    /// The pass over its table that it shares with other routes, if any.
    pub membership: Option<Membership>,
    /// Whether no other route of the plan can render the same key.
    pub has_own_keys: bool,
    /// Whether the numbers of rows of its partitions rest on statistics or counts.
    pub has_row_estimate: bool,
    /// Whether the target was empty when it was claimed, so that a first write finds nothing to replace.
    pub target_was_empty: AtomicBool,
    /// Where the numbers of the partitions of its present cut begin.
    first_number: AtomicU64,
    /// The snapshot that every partition must share when changed rows cannot be told apart; 0 is none yet.
    only_snapshot: AtomicI64,
}

impl RouteRun {
    /// Makes a route of a run.
    pub fn new(
        index: usize,
        bound: Arc<BoundRoute>,
        source: Arc<dyn Source>,
        transform: MakeTransform,
        decoder_of: fn(&Bounds) -> Decoder,
        key_decoder: Decoder,
    ) -> Self {
        let key_only = Arc::new(bound.key_only());
        Self {
            index,
            bound,
            source,
            transform,
            decoder_of,
            key_only,
            key_decoder,
            shape: None,
            is_archived: false,
            membership: None,
            has_own_keys: true,
            has_row_estimate: false,
            target_was_empty: AtomicBool::new(false),
            first_number: AtomicU64::new(0),
            only_snapshot: AtomicI64::new(0),
        }
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.bound.route.name
    }

    /// What the journal calls its definition: that of the plan, and whether an archive is read in place of the table.
    pub fn journaled(&self) -> String {
        let from = if self.is_archived { FROM_ARCHIVE } else { "" };
        self.bound.route.definition() + from
    }

    /// Takes the partitions of its present cut.
    pub fn cut_into<'a>(&self, partitions: impl IntoIterator<Item = &'a PartitionId>) {
        let first = partitions.into_iter().map(number).min().unwrap_or(0);
        self.first_number.store(first, Ordering::Relaxed);
    }

    /// Returns which partition of its cut this is, from 0.
    pub fn number_of(&self, partition: &PartitionId) -> u64 {
        number(partition).saturating_sub(self.first_number.load(Ordering::Relaxed))
    }

    /// Decides how entries are written. `is_first` is true for a partition's first attempt.
    ///
    /// `Blank` needs a target that was empty when this process claimed it, and rows that cannot have been
    /// written before: not those of a catch-up, not those of a second attempt.
    pub fn style(&self, bounds: &Bounds, is_first: bool) -> Style {
        let is_new = is_first && !matches!(bounds, Bounds::ChangedSince { .. });
        match self.bound.route.on_conflict {
            OnConflict::Keep => Style::Keep,
            // Also into a target found empty: an application may write to it at any time.
            OnConflict::Newest => Style::Newest,
            OnConflict::Replace
                if is_new
                    && self.has_own_keys
                    && (self.bound.key_is_proven_unique || self.bound.is_many())
                    && self.target_was_empty.load(Ordering::Relaxed) =>
            {
                Style::Blank
            }
            OnConflict::Replace => Style::Exact,
        }
    }

    /// Refuses a second snapshot where rows changed in between could not be found again.
    pub fn accept_snapshot(&self, id: i64) -> Result<()> {
        let Some(reason) = self.source.no_catch_up() else { return Ok(()) };
        let first = self
            .only_snapshot
            .compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed)
            .unwrap_or_else(|other| other);
        if first == 0 || first == id {
            return Ok(());
        }
        Err(Error::new(
            Kind::RouteRestart,
            format!("route {} must be read under one snapshot: {reason}", self.name()),
        )
        .with_hint("raise snapshot_max of [alloydb] if the route cannot be read within it"))
    }

    /// Forgets the snapshot, because the route starts over.
    pub fn start_over(&self) {
        self.only_snapshot.store(0, Ordering::Relaxed);
        // What was written before is there now.
        self.target_was_empty.store(false, Ordering::Relaxed);
    }
}

/// The line of a journaled definition that says that an archive was read in place of the table. No line of a plan
/// begins like it.
const FROM_ARCHIVE: &str = "read from = archive\n";

/// Returns the definition of the plan that a journaled one has, and whether an archive was read.
pub fn of_plan(journaled: &str) -> (&str, bool) {
    match journaled.strip_suffix(FROM_ARCHIVE) {
        Some(definition) => (definition, true),
        None => (journaled, false),
    }
}

/// The number at the end of a partition's name.
fn number(partition: &PartitionId) -> u64 {
    let number = partition.0.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
    number.unwrap_or(0)
}

/// Marks the routes whose keys another route could render too: one literal start is a prefix of the other.
pub fn mark_shared_keys(routes: &mut [RouteRun]) {
    let starts: Vec<String> =
        routes.iter().map(|route| route.bound.route.keys_begin_with()).collect();
    for (index, route) in routes.iter_mut().enumerate() {
        route.has_own_keys = starts.iter().enumerate().all(|(other, start)| {
            other == index
                || !(start.starts_with(&starts[index]) || starts[index].starts_with(start.as_str()))
        });
    }
}
