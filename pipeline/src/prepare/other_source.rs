//! Refuses to go on with a run that reads tables elsewhere than it began to.
//!
//! Invariant: it is decided by the journal alone, before a system is connected to: the one that is not asked for may be the
//! one that was lost.

use crate::journal::Journal;
use crate::outcome::from_journal;
use crate::rebuild::Options;
use crate::route::of_plan;
use stages::{Error, Kind, Result};

/// Refuses where the unfinished run reads the archive and this one was not asked to, or the other way round.
pub async fn refuse_other_source(journal: &Journal, options: &Options) -> Result<()> {
    if options.fresh {
        return Ok(());
    }
    let unfinished = journal.unfinished_run(options.command()).await.map_err(from_journal)?;
    let Some(run) = unfinished else { return Ok(()) };
    let routes = journal.routes(&run.id).await.map_err(from_journal)?;
    let archived: Vec<&str> = routes
        .iter()
        .filter(|route| of_plan(&route.definition).1)
        .map(|route| route.name.as_str())
        .collect();
    match (archived.is_empty(), options.from_archive) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => {
            let names = archived.join(", ");
            let message =
                format!("run {} is unfinished, and reads route {names} from the archive", run.id);
            Err(Error::new(Kind::Config, message).with_hint(
                "resume it with: rekindle rebuild redis --from archive; or start over from bigquery: rekindle rebuild redis --fresh",
            ))
        }
        (true, true) => {
            let message =
                format!("run {} is unfinished, and was begun without --from archive", run.id);
            Err(Error::new(Kind::Config, message).with_hint(
                "leave --from archive out to resume it, or start over from the archive: rekindle rebuild redis --from archive --fresh",
            ))
        }
    }
}
