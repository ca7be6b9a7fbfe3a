//! The controls of the state folder: can it be written, can its journal be read.
//!
//! Invariant: nothing is created to find out.

use super::controls::Control;
use crate::journal::Journal;
use crate::outcome::from_journal;
use crate::rebuild::{COMMAND, FILES_COMMAND};
use nix::unistd::{AccessFlags, access};
use std::path::Path;

/// Looks at the state folder; also returns the id of the run that would be resumed.
pub(super) async fn controls(state: &Path) -> (Vec<Control>, Option<String>) {
    let mut controls = vec![folder(state)];
    let mut unfinished = None;
    controls.push(match journal(state).await {
        Ok((control, run)) => {
            unfinished = run;
            control
        }
        Err(error) => Control::of_error("journal", &error),
    });
    (controls, unfinished)
}

fn folder(state: &Path) -> Control {
    const NAME: &str = "state folder";
    let needed = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let path = match std::path::absolute(state) {
        Ok(path) => path,
        Err(error) => return Control::failed(NAME, format!("{}: {error}", state.display())),
    };
    if path.exists() {
        if !path.is_dir() {
            return Control::failed(NAME, format!("{} is not a folder", path.display()))
                .with_fix(Some("name another one with --state"));
        }
        return match access(&path, needed) {
            Ok(()) => Control::ok(NAME, format!("{} can be written", path.display())),
            Err(error) => denied(&path, error),
        };
    }
    // It is made by the first run, in the nearest folder that exists.
    let parent = path.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("/"));
    match access(parent, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Control::ok(NAME, format!("{} will be made by the first run", path.display())),
        Err(error) => denied(parent, error),
    }
}

fn denied(path: &Path, error: nix::errno::Errno) -> Control {
    Control::failed(
        "state folder",
        format!("{} cannot be written: {}", path.display(), error.desc()),
    )
    .with_fix(Some("mend its permissions, or name another one with --state"))
}

async fn journal(state: &Path) -> stages::Result<(Control, Option<String>)> {
    let Some(journal) = Journal::open_read_only(state).await.map_err(from_journal)? else {
        return Ok((Control::ok("journal", "none yet"), None));
    };
    let mut found = journal.unfinished_run(COMMAND).await.map_err(from_journal);
    if matches!(found, Ok(None)) {
        found = journal.unfinished_run(FILES_COMMAND).await.map_err(from_journal);
    }
    journal.close().await;
    Ok(match found? {
        Some(run) => (
            Control::ok(
                "journal",
                format!("run {} is unfinished; rekindle {} resumes it", run.id, run.command),
            ),
            Some(run.id),
        ),
        None => (Control::ok("journal", "readable, no unfinished run"), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::controls::Verdict;

    #[tokio::test]
    async fn looking_at_a_folder_that_is_not_there_does_not_make_it() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("a/b");
        let (found, unfinished) = controls(&state).await;
        assert!(found.iter().all(|control| control.verdict == Verdict::Ok), "{found:?}");
        assert_eq!((unfinished, parent.path().join("a").exists()), (None, false));
    }

    #[tokio::test]
    async fn a_file_in_place_of_the_folder_fails() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("state");
        std::fs::write(&state, "").unwrap();
        let (found, _) = controls(&state).await;
        assert_eq!(found[0].verdict, Verdict::Failed, "{found:?}");
    }

    #[tokio::test]
    async fn a_damaged_journal_fails_and_stays_as_it_is() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("journal.sqlite");
        std::fs::write(&file, "not a journal").unwrap();
        let (found, _) = controls(state.path()).await;
        assert_eq!(found[1].verdict, Verdict::Failed, "{found:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a journal");
    }
}
