//! Whether BigQuery's own time travel still has what was lost: it loses nothing, where a duplicate loses what came
//! after the last backup.
//!
//! Invariant: it only reads, and what BigQuery does not tell is said as "may", never as "has".

use crate::lane::now_ms;
use crate::summarize::rfc3339;
use stages::connect::bigquery::BigQuery;
use stages::load::bigquery::{ReadBack, ReadOptions};

const HOUR_MS: i64 = 3_600_000;
/// How far back a dataset can be read unless it says less.
const HOURS_MAX: i64 = 7 * 24;

/// What was lost, and when.
pub(super) struct LostTable<'a> {
    pub(super) bigquery: &'a BigQuery,
    pub(super) dataset: &'a str,
    pub(super) table: &'a str,
    /// Whether a table of that name is there now.
    pub(super) is_there: bool,
    /// Milliseconds since 1970, where somebody said it.
    pub(super) lost_at_ms: Option<i64>,
}

impl LostTable<'_> {
    /// Says it in one sentence, with the command that makes use of it.
    pub(super) async fn time_travel(&self) -> String {
        let name = format!("{}.{}", self.dataset, self.table);
        // A dataset that is lost itself cannot tell; then the longest is taken, and the sentence says "may".
        let told = self.bigquery.time_travel_hours(self.dataset).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the dataset does not tell how far back it can be read");
            None
        });
        let reach = told.map_or_else(
            || "7 days, unless the dataset says less".to_owned(),
            |hours| format!("{hours} hours"),
        );
        let now = now_ms();
        let lost_at = self.lost_at_ms.unwrap_or(now);
        if now - lost_at > told.unwrap_or(HOURS_MAX) * HOUR_MS {
            let ago = told.map_or_else(|| "7 days".to_owned(), |hours| format!("{hours} hours"));
            return format!(
                "{name} was lost more than {ago} ago: BigQuery's own time travel does not reach that far"
            );
        }
        let advice = format!("bq cp '{name}@{}' {name}_recovered", lost_at - 1);
        if !self.is_there || self.lost_at_ms.is_none() {
            return format!(
                "BigQuery's own time travel may still have {name} ({reach}): {advice} with a time before the loss"
            );
        }
        let before = rfc3339(lost_at);
        let options =
            ReadOptions { at_ms: Some(lost_at - 1), streams: 1, ..ReadOptions::default() };
        match ReadBack::open(self.bigquery, self.dataset, self.table, &options).await {
            Ok(session) if !session.streams.is_empty() => format!(
                "BigQuery's own time travel still has rows of {name} from before {before}, newer than this duplicate: {advice}"
            ),
            Err(error) if error.kind().is_transient() => format!(
                "whether BigQuery's own time travel has rows of {name} from before {before} is unknown: {error}"
            ),
            _ => format!("BigQuery's own time travel has no rows of {name} from before {before}"),
        }
    }
}
