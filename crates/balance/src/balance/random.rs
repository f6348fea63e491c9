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
        let len = choice.len();
        if len == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let index = choice.random(len);
            if choice.is_usable(index) {
                return Some(index);
            }
        }
        let start = choice.random(len);
        choice.first_usable(start)
    }
}

/// Members that are not usable leave the set immediately; what is drawn in vain was tried for this
/// request, or became down this instant. Drawing again keeps the others equally likely, where
/// walking on would favour their neighbours.
const DRAWS: usize = 8;
