//! What a plan tells of its target in words.
//!
//! Invariant: it says what a run does with the target as it is, and nothing that was not read from it.

use stages::load::TargetState;
use stages::load::redis::cut_over::CutOver;

/// What is to be known of the target before a run.
pub(super) fn target_notes(state: &TargetState) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(refusal) = &state.refusal {
        notes.push(format!("the target cannot be used as it is: {refusal}"));
    }
    if state.limit_bytes.is_some() && state.eviction != "noeviction" {
        notes.push(format!(
            "the target evicts when it is full ({}); a run stops with exit 5 as soon as it does",
            state.eviction
        ));
    }
    notes
}

/// What a cut-over does, and what it does not bring.
pub(super) fn cut_over_notes(databases: &CutOver, entries: u64) -> Vec<String> {
    let (serving, build) = (databases.serving, databases.build);
    let mut notes = vec![format!(
        "it is built in database {build}, read back there, and then swapped with {serving} by SWAPDB; both are in memory until \
         one is emptied. Keys written to {serving} meanwhile, and those of no route, are then in {build} only. The way back: {}",
        databases.way_back()
    )];
    if entries > 0 {
        notes.push(format!(
            "database {build} holds {entries} keys: a run refuses it unless they are its own"
        ));
    }
    notes
}
