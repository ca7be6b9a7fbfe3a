//! What stands around a measured rebuild: the server it went into, and what the plan's own Redis and this machine's link
//! leave room for.
//!
//! Invariant: the plan's Redis is asked how full it is and nothing else; one that cannot be asked is unknown, and keeps no
//! bench from its end.

use super::quotas::{Link, Quota, of_memory, of_rebuild};
use super::report::Sample;
use crate::guard::CEILING_PERCENT;
use crate::plan::{PlanReport, Predicted, WHOLE};
use crate::wiring;
use schemas::Plan;
use stages::Result;
use stages::load::Sink;
use stages::load::redis::WayChoice;

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Surroundings {
    /// Product and version of the server that was written to.
    pub(super) version: String,
    /// Bytes in use and the limit, of the plan's Redis; absent where it has no limit or cannot be asked.
    room: Option<(u64, u64)>,
    link: Option<Link>,
    /// What could not be found out.
    pub(super) unknown: Option<String>,
    /// Whether it was the plan's own Redis.
    pub(super) is_own: bool,
}

impl Surroundings {
    /// Asks once; a Redis that is away is not waited for.
    pub(super) async fn look(plan: &Plan, version: String, is_own: bool) -> Self {
        let link = Link::of_machine();
        match room(plan).await {
            Ok(room) => Self { version, room, link, unknown: None, is_own },
            Err(error) => {
                let unknown = Some(format!(
                    "how full the plan's redis may get is UNKNOWN, because it cannot be asked: {error}"
                ));
                Self { version, room: None, link, unknown, is_own }
            }
        }
    }

    /// The limits that a rebuild of everything would meet.
    pub(super) fn quotas(
        &self,
        samples: &[Sample],
        predicted: &Predicted,
        planned: &PlanReport,
    ) -> Vec<Quota> {
        let needed = planned.memory.bytes;
        let ceiling = CEILING_PERCENT as f64 / 100.0;
        let memory = self.room.map(|(used, limit)| of_memory(used, needed, limit, ceiling));
        let rows: u64 = planned.routes.iter().filter_map(|route| route.rows_estimate).sum();
        let largest =
            samples.iter().filter(|sample| sample.kind == WHOLE).max_by_key(|sample| sample.rows);
        let bytes = largest.map(|of| of.bytes as f64 / of.rows.max(1) as f64 * rows as f64);
        of_rebuild(memory, self.link.as_ref(), (bytes, predicted.seconds))
    }
}

async fn room(plan: &Plan) -> Result<Option<(u64, u64)>> {
    let sink = wiring::make_sink(plan, WayChoice::Auto)?;
    let state = sink.state().await?;
    Ok(state.limit_bytes.map(|limit| (state.used_bytes, limit)))
}
