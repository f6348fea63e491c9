use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::endpointer::{Decay, Started};

/// What the thread of a shard has for itself.
pub(super) struct Local {
    pub(super) rng: Rng,
    /// One for each group that a picker chooses from by itself.
    pub(super) turns: [usize; N_TURNS],
    pub(super) meter: Meter,
}

/// Decides which requests are measured.
///
/// Two readings of the clock cost more than a pick: 45 ns. A thread that sends more than one
/// request in 20 µs therefore measures some of them, down to one of sixteen; what is left of the
/// clock is 3 ns a request.
#[derive(Default)]
pub(super) struct Meter {
    /// Requests that are not measured before the next that is.
    left: u32,
    /// One of so many is measured, less one.
    skipped: u32,
    last: Option<Instant>,
    /// For the request that is picked for now.
    started: Option<Started>,
}

impl Local {
    pub(super) fn new(rng: Rng, turn: usize) -> Self {
        Self { rng, turns: [turn; N_TURNS], meter: Meter::default() }
    }

    /// A pick beside one whose turn it is: at random, and it moves no turn.
    pub(super) fn beside<T>(&mut self, pick: impl FnOnce(&mut Self) -> T) -> T {
        let turns = self.turns;
        self.turns = [self.rng.usize(..); N_TURNS];
        let picked = pick(self);
        self.turns = turns;
        picked
    }
}

impl Meter {
    /// The present moment, when this request is measured.
    #[inline]
    pub(super) fn measure(&mut self, decay: Decay) -> Option<Instant> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => Some(self.read(decay)),
        }
    }

    #[cold]
    fn read(&mut self, decay: Decay) -> Instant {
        let now = Instant::now();
        let gap = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        self.skipped = match gap {
            Some(gap) if gap < FINE * (self.skipped + 1) => (self.skipped * 2 + 1).min(MAX_SKIPPED),
            Some(_) | None => 0,
        };
        self.left = self.skipped;
        self.started = Some(Started { at: now, decay, head: None });
        now
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<Started> {
        self.started.take()
    }
}

/// Of two kinds of tiers; see [`Choice::only`](super::Choice::only).
pub(super) const N_TURNS: usize = 128;
/// Threads with fewer requests measure each.
const FINE: Duration = Duration::from_micros(20);
const MAX_SKIPPED: u32 = 15;
