//! The places of a lane at the target: how many of its batches may be there, unanswered. Each lane has its own, so that one
//! that waits takes no place from another.
//!
//! Invariant: whoever asks first is served first, and a window that shrinks takes no place away: it gives out none until
//! enough were given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a lane.
#[derive(Debug)]
pub struct Window {
    places: Arc<Semaphore>,
    limit: AtomicUsize,
    /// Places to be taken out of use as soon as they are given back.
    owed: Arc<AtomicUsize>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    permit: Option<OwnedSemaphorePermit>,
    owed: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let pays = |owed: usize| owed.checked_sub(1);
        if self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pays).is_ok()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

impl Window {
    /// A window of so many places, at least one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        let places = Arc::new(Semaphore::new(limit));
        Self { places, limit: AtomicUsize::new(limit), owed: Arc::default() }
    }

    /// Waits for one of so many places.
    pub async fn place(&self, limit: usize) -> Place {
        self.resize(limit);
        // The semaphore is never closed; without a permit the place would only be one too many.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        Place { permit, owed: Arc::clone(&self.owed) }
    }

    /// Changes the number of places, to one at least. Called by one at a time.
    fn resize(&self, limit: usize) {
        let limit = limit.max(1);
        let before = self.limit.swap(limit, Ordering::Relaxed);
        if limit < before {
            let surplus = before - limit;
            let taken = self.places.forget_permits(surplus);
            self.owed.fetch_add(surplus - taken, Ordering::AcqRel);
            return;
        }
        let mut more = limit - before;
        // What is still owed is no longer.
        let waives = |owed: usize| Some(owed.saturating_sub(more));
        if let Ok(owed) = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, waives) {
            more -= owed.min(more);
        }
        self.places.add_permits(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn a_window_that_shrinks_waits_for_its_places_to_come_back() {
        let window = Window::new(3);
        let place = |limit| window.place(limit).now_or_never();
        let mut held: Vec<Place> = (0..3).map_while(|_| place(3)).collect();
        assert_eq!((held.len(), place(3).is_none()), (3, true));
        held.truncate(1);
        assert!(place(1).is_none(), "one is still out, and one is all there is");
        held.clear();
        assert!(place(1).is_some());
    }

    proptest! {
        #[test]
        fn never_more_places_than_the_limit(steps in prop::collection::vec((0_usize..4, 1_usize..9), 1..200)) {
            let window = Window::new(4);
            let mut held = Vec::new();
            let mut limit = 4;
            for (what, amount) in steps {
                match what {
                    0 => limit = amount,
                    1 => {
                        held.pop();
                    }
                    _ => {
                        let place = window.place(limit).now_or_never();
                        // What was given out before the window shrank may be out still.
                        prop_assert_eq!(place.is_some(), held.len() < limit);
                        held.extend(place);
                    }
                }
            }
        }
    }
}
