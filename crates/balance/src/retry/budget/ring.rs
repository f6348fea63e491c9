use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters, one per second; in a cache line of its own.
///
/// The low half of each is its second since the epoch, the high half the count: a count that
/// overflows changes no second.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Ring([AtomicU64; SLOTS]);

impl Ring {
    #[inline]
    pub(super) fn slot(&self, second: u64) -> &AtomicU64 {
        // Within bounds: the remainder of a division by its length.
        let index = usize::try_from(second).unwrap_or_default() % SLOTS;
        &self.0[index]
    }

    #[inline]
    pub(super) fn add(&self, second: u64) {
        let slot = self.slot(second);
        let before = slot.load(Relaxed);
        if second_of(before) >= second {
            // Also what began so long ago that its slot counts a later second.
            slot.fetch_add(ONE, Relaxed);
        } else {
            Self::start(slot, before, second);
        }
    }

    /// Counts the first of a new second.
    #[cold]
    fn start(slot: &AtomicU64, mut before: u64, second: u64) {
        loop {
            let after = match second_of(before) >= second {
                true => before.wrapping_add(ONE),
                false => word(second, 1),
            };
            match slot.compare_exchange(before, after, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => before = changed,
            }
        }
    }

    pub(super) fn subtract(&self, second: u64) {
        let slot = self.slot(second);
        let mut before = slot.load(Relaxed);
        while second_of(before) == second && count_of(before) > 0 {
            match slot.compare_exchange(before, before - ONE, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => before = changed,
            }
        }
    }

    /// The count of the window that ends with `second`.
    pub(super) fn sum(&self, second: u64) -> u64 {
        let words = self.0.iter().map(|slot| slot.load(Relaxed));
        words.map(|word| if second_of(word) + WINDOW > second { count_of(word) } else { 0 }).sum()
    }
}

#[inline]
pub(super) fn word(second: u64, count: u64) -> u64 {
    count << 32 | second
}

#[inline]
pub(super) fn second_of(word: u64) -> u64 {
    word & SECOND
}

#[inline]
pub(super) fn count_of(word: u64) -> u64 {
    word >> 32
}

/// In seconds, the current one included. Finagle's.
pub(super) const WINDOW: u64 = 10;
/// More than the window, so that a slot is out of it before it is used again.
const SLOTS: usize = 16;
const ONE: u64 = 1 << 32;
pub(super) const SECOND: u64 = ONE - 1;
