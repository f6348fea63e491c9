use std::time::Duration;

use super::{HedgePolicy, latencies::Latencies, policy::Delay};
use crate::RetryBudget;

/// What the services of one layer share.
#[derive(Debug)]
pub(super) struct Shared<R> {
    pub(super) policy: HedgePolicy<R>,
    /// Each request adds to it, and each hedge withdraws from it.
    pub(super) load: RetryBudget,
    /// With a percentile.
    latencies: Option<Latencies>,
}

impl<R> Shared<R> {
    pub(super) fn new(mut policy: HedgePolicy<R>) -> Self {
        if policy.pays {
            policy.budget = Some(RetryBudget::new());
        }
        let latencies = match policy.delay {
            Delay::Fixed(_) => None,
            Delay::Percentile(percent) => Some(Latencies::new(percent)),
        };
        let load = RetryBudget::of(u64::from(policy.extra()), 1);
        Self { policy, load, latencies }
    }

    /// `None`: too little is known.
    pub(super) fn delay(&self) -> Option<Duration> {
        match (&self.latencies, self.policy.delay) {
            (_, Delay::Fixed(delay)) => Some(delay),
            (Some(latencies), Delay::Percentile(_)) => {
                latencies.percentile().map(|delay| delay.max(MIN_DELAY))
            }
            (None, Delay::Percentile(_)) => None,
        }
    }

    pub(super) fn answered(&self, latency: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies.add(latency);
        }
    }
}

/// Below it, scheduling makes latencies: Finagle's.
const MIN_DELAY: Duration = Duration::from_millis(1);
