use std::sync::Arc;

use super::{Balancer, Choice, Members, Picker};

/// Any member, each equally likely.
///
/// Every thread draws from a generator of its own: no lock, no race.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Random;

impl Random {
    /// Creates the balancer.
    ///
    /// Its seed is that of [`BalanceLayer::with_seed`](crate::BalanceLayer::with_seed).
    pub fn new() -> Self {
        Self
    }
}

impl Balancer for Random {
    fn picker(&self, _members: &Members<'_>) -> Arc<dyn Picker> {
        Arc::new(Any)
    }
}

struct Any;

impl Picker for Any {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        choice.drawn(DRAWS, |choice| choice.random(choice.len()))
    }
}

/// In vain only for those that were tried for this request, or became down this instant.
const DRAWS: usize = 8;
