use std::{mem, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use crate::endpointer::{Decay, EndpointStats, Started};

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
    last: Option<(Instant, Decay)>,
    /// The request that is picked for now is measured, from `last` on.
    measures: bool,
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
        let last = self.last.replace((now, decay));
        let gap = last.map(|(last, _)| now.saturating_duration_since(last));
        self.skipped = match gap {
            Some(gap) if gap < FINE * (self.skipped + 1) => (self.skipped * 2 + 1).min(MAX_SKIPPED),
            Some(_) | None => 0,
        };
        self.left = self.skipped;
        self.measures = true;
        now
    }

    /// Whether the request is measured that was picked for now, at the endpoint that it goes to.
    #[inline]
    pub(super) fn take(&mut self, stats: Option<&EndpointStats>) -> Option<Started> {
        if mem::take(&mut self.measures) { self.started(stats?) } else { None }
    }

    #[cold]
    fn started(&self, stats: &EndpointStats) -> Option<Started> {
        self.last.map(|(now, decay)| stats.measure(now, decay))
    }
}

/// Of two kinds of tiers; see [`Choice::only`](super::Choice::only).
pub(super) const N_TURNS: usize = 128;
/// Threads with fewer requests measure each.
const FINE: Duration = Duration::from_micros(20);
const MAX_SKIPPED: u32 = 15;
