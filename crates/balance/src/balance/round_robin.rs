use std::sync::Arc;

use super::{Balancer, Choice, Members, Picker, alias::Alias, fraction::part};

/// One after the other, in proportion to their weights.
///
/// Starts at a random member: the clients of a fleet that starts together would all begin with the
/// same one otherwise. Each thread has a cursor of its own, so that threads do not contend for one:
/// the numbers of requests of two members of one weight differ by at most one per thread, and no
/// order is guaranteed across threads. Beyond 32 [labels](crate::Select) they differ by a few more.
///
/// Weights are smooth: of 50 : 1 the lighter one gets about every 51st request, and the heavier one
/// no bursts beside it. They cost two table lookups, at any skew.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    start: Option<usize>,
}

impl RoundRobin {
    /// Starts at random.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts at this member, in each thread: for tests.
    #[must_use]
    pub fn with_start(mut self, start: usize) -> Self {
        self.start = Some(start);
        self
    }
}

impl Balancer for RoundRobin {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        match Alias::of(members) {
            Some(alias) => Arc::new(Weighted(alias)),
            None => Arc::new(Next),
        }
    }

    fn initial_cursor(&self, random: usize) -> usize {
        self.start.unwrap_or(random)
    }
}

struct Next;

impl Picker for Next {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let (len, turn) = (choice.len(), *choice.cursor());
        if len == 0 {
            return None;
        }
        if let Some(fraction) = choice.fraction() {
            return choice.first_usable(part(fraction, len).0);
        }
        // A division costs as much as the rest; the turn is out of range only at first and when the
        // set has shrunk.
        let start = if turn < len { turn } else { turn % len };
        let picked = choice.first_usable(start)?;
        *choice.cursor() = picked + 1;
        Some(picked)
    }
}

struct Weighted(Alias);

impl Picker for Weighted {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        choice.drawn(TURNS, |choice| match choice.fraction() {
            Some(fraction) => self.0.of_fraction(fraction),
            None => {
                let turn = choice.cursor();
                let at = *turn;
                *turn = at.wrapping_add(1);
                self.0.at(at)
            }
        })
    }
}

/// In vain only for those that were tried for this request, or became down this instant.
const TURNS: usize = 16;
