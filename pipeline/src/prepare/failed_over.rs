//! What a target that carries this run's mark may lack all the same, when it is another server than was claimed.
//!
//! Invariant: nothing is believed to be gone because an earlier server had acknowledged its removal.

use super::start_over::look_for_removed;
use crate::engine::Engine;
use crate::outcome::from_journal;
use stages::Result;

/// A server that took the place of another may hold keys again that were removed: they are looked for at the end.
pub(super) async fn distrust_removals(engine: &Engine) -> Result<()> {
    let shared = &engine.shared;
    for mut record in shared.journal.routes(&shared.run_id).await.map_err(from_journal)? {
        let route = engine.routes.iter().find(|route| route.name() == record.name);
        if route.is_some_and(|route| !route.bound.is_stream()) {
            look_for_removed(engine, &mut record)?;
            shared.journal.update_route(&record).await.map_err(from_journal)?;
        }
    }
    Ok(())
}
