use std::sync::Arc;

use super::{Balancer, Choice, Members, Picker, Random, alias::Alias};

/// Any member, with a likelihood in proportion to its weight.
///
/// One of weight 0 is never picked.
///
/// A draw takes the same time at any number and any skew of weights. This is RFC 2782's choice
/// among SRV records of one priority: w of W, drawn anew for each request.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom;

impl WeightedRandom {
    /// Creates the balancer.
    ///
    /// Its seed is that of [`BalanceLayer::with_seed`](crate::BalanceLayer::with_seed).
    pub fn new() -> Self {
        Self
    }
}

impl Balancer for WeightedRandom {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let weights = members.weights();
        let is_any_zero = weights.contains(&0);
        match Alias::new(&weights) {
            _ if members.weigh_the_same() && !is_any_zero => Random::new().picker(members),
            alias => Arc::new(Weighted { alias, weights }),
        }
    }
}

struct Weighted {
    /// `None`: all weigh nothing.
    alias: Option<Alias>,
    weights: Vec<usize>,
}

impl Picker for Weighted {
    #[inline]
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let alias = self.alias.as_ref()?;
        for _ in 0..DRAWS {
            let index = alias.draw(choice);
            if choice.is_usable(index) {
                return Some(index);
            }
        }
        self.pick_of_the_usable(choice)
    }
}

impl Weighted {
    /// Visits all of them, so that what is left is still drawn by weight.
    #[cold]
    fn pick_of_the_usable(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let total = self.usable(choice).map(|(_, weight)| weight).sum();
        let mut drawn = choice.random(total);
        self.usable(choice).find_map(|(index, weight)| match drawn.checked_sub(weight) {
            Some(left) => {
                drawn = left;
                None
            }
            None => Some(index),
        })
    }

    fn usable(&self, choice: &Choice<'_>) -> impl Iterator<Item = (usize, usize)> {
        let weights = self.weights.iter().copied().enumerate();
        weights.filter(|(index, _)| choice.is_usable(*index))
    }
}

/// In vain only for those that were tried for this request, or became down this instant.
const DRAWS: usize = 8;
