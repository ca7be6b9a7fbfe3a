//! How much may still be sent, between two looks at the target.
//!
//! Invariant: between two looks, no more is given out than half of the room that the last one found, so that figures that
//! are too small by half still leave the limit untouched.

use stages::load::Pressure;

/// Bytes of one slot in a table of keys.
const SLOT_BYTES: u64 = 8;
/// What a key takes at least, to tell how many may come.
const KEY_BYTES_MIN: u64 = 64;

/// The room for batches.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes up to which the target may be filled; absent where nothing bounds it, or nothing is known yet.
    limit: Option<u64>,
    /// Whether the target was looked at in this round.
    is_known: bool,
    /// What may still be given out until the next look.
    open: u64,
    /// What was given out and is not written yet.
    on_its_way: u64,
}

impl Room {
    /// Takes room for a batch; false where there is not enough before the next look.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let is_bounded = self.limit.is_some() || !self.is_known;
        if is_bounded && bytes > self.open {
            return false;
        }
        self.open = self.open.saturating_sub(bytes);
        self.on_its_way += bytes;
        true
    }

    /// Gives out nothing until the next look.
    pub(super) fn forget(&mut self) {
        self.is_known = false;
        self.open = 0;
    }

    /// A batch was written, or never will be.
    pub(super) fn settle(&mut self, bytes: u64) {
        self.on_its_way = self.on_its_way.saturating_sub(bytes);
    }

    /// What is on its way.
    pub(super) fn on_its_way(&self) -> u64 {
        self.on_its_way
    }

    /// What may be given out now.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Notes what a look found that began when `on_its_way` was not written yet.
    pub(super) fn found(&mut self, limit: Option<u64>, found: &Pressure, on_its_way: u64) {
        self.limit = limit;
        self.is_known = true;
        let Some(limit) = limit else { return };
        let free = limit.saturating_sub(found.used_bytes).saturating_sub(on_its_way);
        let growth = table_growth(found.entries, free / KEY_BYTES_MIN);
        self.open = free.saturating_sub(growth) / 2;
    }
}

/// Bytes that the server's table of keys takes at once, should so many more keys make it grow: it doubles when it is full,
/// beside the old one.
pub(super) fn table_growth(entries: u64, more: u64) -> u64 {
    let (slots, wanted) = (slots(entries), slots(entries.saturating_add(more)));
    if wanted > slots { slots.saturating_mul(2) * SLOT_BYTES } else { 0 }
}

/// Slots of a table of so many keys.
pub(super) fn slots(entries: u64) -> u64 {
    entries.max(4).checked_next_power_of_two().unwrap_or(u64::MAX / (4 * SLOT_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(used: u64, entries: u64) -> Pressure {
        Pressure { used_bytes: used, entries, ..Pressure::default() }
    }

    #[test]
    fn half_of_what_is_free_is_given_out_between_two_looks() {
        let mut room = Room::default();
        room.found(Some(1_000_000), &pressure(0, 300_000), 0);
        assert!(room.take(400_000) && !room.take(200_000) && room.take(100_000));
        assert_eq!((room.open(), room.on_its_way()), (0, 500_000));
        // Half of it was written before the second look, the other half is still to come.
        room.settle(250_000);
        room.found(Some(1_000_000), &pressure(250_000, 300_000), 250_000);
        assert_eq!(room.open(), 250_000);
        room.found(Some(1_000_000), &pressure(2_000_000, 300_000), 0);
        assert!(!room.take(1) && room.take(0));
    }

    #[test]
    fn room_is_kept_for_a_larger_table_of_keys_only_where_it_may_come() {
        assert_eq!(table_growth(200_000, 10_000), 0);
        assert_eq!(table_growth(260_000, 10_000), 524_288 * 8);
    }

    #[test]
    fn without_a_limit_everything_goes() {
        let mut room = Room::default();
        assert!(!room.take(1), "nothing goes before the first look");
        room.found(None, &pressure(u64::MAX, 1), 0);
        assert!(room.take(u64::MAX / 2));
    }
}
