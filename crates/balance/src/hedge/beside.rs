use super::{HedgeLayer, HedgePolicy};
use crate::{RetryLayer, RetryPolicy};

impl<R> RetryPolicy<R> {
    /// The layers of a client that repeats and hedges.
    ///
    /// The hedge stands below the retry: each attempt may be hedged. Both have one budget, one
    /// protocol, and this policy's observers and [`idempotent`](Self::idempotent).
    ///
    /// # Panics
    ///
    /// When the settings of one contradict each other, see [`check`](Self::check) and
    /// [`HedgePolicy::check`].
    pub fn hedged(self, hedge: HedgePolicy) -> (RetryLayer<R>, HedgeLayer<R>)
    where
        R: Clone,
    {
        let retry = self.with_own_budget();
        let mut hedge = hedge.protocol(retry.protocol.clone());
        hedge.idempotent |= retry.idempotent;
        (hedge.budget, hedge.pays) = (retry.paying().cloned(), false);
        hedge.observers = hedge.observers.and(&retry.observers);
        (RetryLayer::new(retry), HedgeLayer::new(hedge))
    }
}
