//! The BigQuery of a run: its client and the snapshot time that everything is read at.
//!
//! Invariant: the snapshot is a time of BigQuery's own clock that had passed when it was taken.

use crate::connect::bigquery::{BigQuery, JobStatement};
use crate::error::{Error, Kind, Result};
use crate::extract::{PINNED_MARK, Snapshot};
use std::sync::{Mutex, PoisonError};

/// How far back every table can be read unless its dataset says less.
const TIME_TRAVEL_HOURS: i64 = 168;
const HOUR_US: i64 = 3_600_000_000;
/// A resume must have this long to finish what it reads.
const MARGIN_US: i64 = HOUR_US;

/// A project that is read as of one time.
pub struct BigQueryServer {
    bigquery: BigQuery,
    staging_dataset: Option<String>,
    now_us: i64,
    pinned: Mutex<Pinned>,
}

#[derive(Clone, Copy)]
struct Pinned {
    taken_us: i64,
    /// The least time travel of the datasets described so far.
    time_travel_hours: i64,
    /// The youngest table described so far.
    youngest_us: i64,
}

impl BigQueryServer {
    /// Asks BigQuery for its time and pins it.
    pub async fn begin(bigquery: BigQuery, staging_dataset: Option<String>) -> Result<Self> {
        let statement = JobStatement::new("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())");
        let rows = bigquery.query_rows(&statement).await?;
        let now = rows.first().and_then(|row| row.first()).and_then(|cell| cell.as_str());
        let Some(now_us) = now.and_then(|now| now.parse().ok()) else {
            let message = "bigquery does not tell its time";
            return Err(Error::new(Kind::Unavailable, message).with_hint("rekindle check"));
        };
        let pinned =
            Pinned { taken_us: now_us, time_travel_hours: TIME_TRAVEL_HOURS, youngest_us: 0 };
        Ok(Self { bigquery, staging_dataset, now_us, pinned: Mutex::new(pinned) })
    }

    /// Returns the client.
    pub fn bigquery(&self) -> &BigQuery {
        &self.bigquery
    }

    /// Returns the dataset for results of queries.
    pub fn staging_dataset(&self) -> Option<&str> {
        self.staging_dataset.as_deref()
    }

    /// Returns the address and project.
    pub fn address(&self) -> String {
        self.bigquery.address()
    }

    /// Returns the snapshot of the run.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            xmin: 0,
            xmax: 0,
            taken_us: self.pinned().taken_us,
            lsn: 0,
            identity: format!("{PINNED_MARK}bigquery/{}", self.bigquery.project()),
        }
    }

    /// Reads as of an earlier snapshot of the run again; false where BigQuery no longer has it.
    ///
    /// Ask after the tables were described, because they bound how far back one can read.
    pub fn resume_at(&self, snapshot: &Snapshot) -> bool {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest_us = self.now_us - pinned.time_travel_hours * HOUR_US + MARGIN_US;
        let is_there = snapshot.taken_us >= oldest_us.max(pinned.youngest_us);
        if is_there {
            pinned.taken_us = snapshot.taken_us;
        }
        is_there
    }

    /// Notes a dataset's time travel and a table's age.
    pub(super) fn note(&self, time_travel_hours: Option<i64>, created_us: i64) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.youngest_us = pinned.youngest_us.max(created_us);
        if let Some(hours) = time_travel_hours {
            pinned.time_travel_hours = pinned.time_travel_hours.min(hours);
        }
    }

    fn pinned(&self) -> Pinned {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
