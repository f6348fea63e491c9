use std::sync::Arc;

use super::{Balancer, Choice, Members, Picker};

/// Any member, with a likelihood in proportion to its weight.
///
/// One of weight 0 is never picked.
///
/// This is RFC 2782's choice among SRV records of one priority: w of W, drawn anew for each
/// request.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRandom;

impl WeightedRandom {
    /// Creates the balancer.
    ///
    /// Its seed is that of [`BalanceLayer::with_seed`](crate::BalanceLayer::with_seed).
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Balancer for WeightedRandom {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let mut sum: usize = 0;
        let sums = members.iter().map(|instance| {
            let weight = usize::try_from(instance.weight()).unwrap_or(usize::MAX);
            sum = sum.saturating_add(weight);
            sum
        });
        Arc::new(Weighted { sums: sums.collect() })
    }
}

/// The running sums of the weights.
struct Weighted {
    sums: Vec<usize>,
}

impl Picker for Weighted {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let total = self.sums.last().copied().filter(|&total| total > 0)?;
        for _ in 0..DRAWS {
            let drawn = choice.random(total);
            let index = self.sums.partition_point(|&sum| sum <= drawn);
            if choice.is_usable(index) {
                return Some(index);
            }
        }
        self.pick_of_the_usable(choice)
    }
}

impl Weighted {
    fn weight(&self, index: usize) -> usize {
        let before = index.checked_sub(1).map_or(0, |index| self.sums[index]);
        self.sums[index] - before
    }

    /// Visits all of them, so that what is left is still drawn by weight.
    #[cold]
    fn pick_of_the_usable(&self, choice: &mut Choice<'_>) -> Option<usize> {
        let weight_now = |choice: &Choice<'_>, index| match choice.is_usable(index) {
            true => self.weight(index),
            false => 0,
        };
        let total = (0..self.sums.len()).map(|index| weight_now(choice, index)).sum();
        let mut drawn = choice.random(total);
        for index in 0..self.sums.len() {
            let weight = weight_now(choice, index);
            if drawn < weight {
                return Some(index);
            }
            drawn -= weight;
        }
        None
    }
}

/// In vain only for those that were tried for this request, or became down this instant.
const DRAWS: usize = 8;
