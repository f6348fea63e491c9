use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{HedgePolicy, policy::Delay};
use crate::RetryBudget;

/// What the services of one layer share.
#[derive(Debug)]
pub(super) struct Shared<R> {
    pub(super) policy: HedgePolicy<R>,
    /// Each request adds to it, and each hedge withdraws from it.
    pub(super) load: RetryBudget,
    /// Known with a percentile alone.
    latencies: Latencies,
}

impl<R> Shared<R> {
    pub(super) fn new(mut policy: HedgePolicy<R>) -> Self {
        if policy.pays {
            policy.budget = Some(RetryBudget::new());
        }
        let load = RetryBudget::of(u64::from(policy.extra()), 1);
        Self { policy, load, latencies: Latencies::default() }
    }

    /// `None`: too little is known.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self.policy.delay {
            Delay::Fixed(delay) => Some(delay),
            Delay::Percentile(_) => self.latencies.percentile().map(|delay| delay.max(MIN_DELAY)),
        }
    }

    pub(super) fn answered(&self, latency: Duration) {
        if let Delay::Percentile(percent) = self.policy.delay {
            self.latencies.add(latency, percent);
        }
    }
}

/// The latest latencies of one client, and a percentile of them.
#[derive(Debug, Default)]
struct Latencies(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// In µs, of the last [`N_KEPT`].
    last: VecDeque<u32>,
    /// Since the percentile was computed.
    n_new: usize,
    percentile: Option<Duration>,
}

impl Latencies {
    fn add(&self, latency: Duration, percent: u8) {
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last.push_back(latency);
        if inner.last.len() > N_KEPT {
            inner.last.pop_front();
        }
        inner.n_new += 1;
        if inner.n_new >= N_FIRST {
            inner.n_new = 0;
            let mut sorted: Vec<_> = inner.last.iter().copied().collect();
            let nth = sorted.len() * usize::from(percent) / 100;
            let nth = nth.min(sorted.len().saturating_sub(1));
            let (_, at, _) = sorted.select_nth_unstable(nth);
            inner.percentile = Some(Duration::from_micros(u64::from(*at)));
        }
    }

    /// `None`: too few are known.
    fn percentile(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).percentile
    }
}

/// Below it, scheduling makes latencies: Finagle's.
const MIN_DELAY: Duration = Duration::from_millis(1);
/// Of 100 a percentile can be read; it is computed anew after as many more.
const N_FIRST: usize = 100;
/// Twenty are above the 98th percentile.
const N_KEPT: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_known_from_a_hundred_on_and_follows() {
        let latencies = Latencies::default();
        for n in 1..=99 {
            latencies.add(Duration::from_millis(n), 95);
            assert_eq!(latencies.percentile(), None, "{n}");
        }
        latencies.add(Duration::from_millis(100), 95);
        assert_eq!(latencies.percentile(), Some(Duration::from_millis(96)));
        for _ in 0..1_000 {
            latencies.add(Duration::from_secs(7_200), 95);
        }
        let longest = Duration::from_micros(u64::from(u32::MAX));
        assert_eq!(latencies.percentile(), Some(longest), "beyond what it counts");
    }
}
