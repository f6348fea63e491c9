use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The latest latencies of one client, and a percentile of them.
#[derive(Debug)]
pub(super) struct Latencies {
    percent: u8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In µs, of the last [`N_KEPT`].
    ring: Vec<u32>,
    next: usize,
    /// Since the percentile was computed.
    n_new: usize,
    percentile: Option<Duration>,
}

impl Latencies {
    pub(super) fn new(percent: u8) -> Self {
        Self { percent, inner: Mutex::default() }
    }

    pub(super) fn add(&self, latency: Duration) {
        let latency = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let next = inner.next;
        match inner.ring.get_mut(next) {
            Some(oldest) => *oldest = latency,
            None => inner.ring.push(latency),
        }
        inner.next = (next + 1) % N_KEPT;
        inner.n_new += 1;
        if inner.n_new >= N_FIRST {
            inner.n_new = 0;
            let mut sorted = inner.ring.clone();
            let nth = sorted.len() * usize::from(self.percent) / 100;
            let nth = nth.min(sorted.len().saturating_sub(1));
            let (_, at, _) = sorted.select_nth_unstable(nth);
            inner.percentile = Some(Duration::from_micros(u64::from(*at)));
        }
    }

    /// `None`: too few are known.
    pub(super) fn percentile(&self) -> Option<Duration> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).percentile
    }
}

/// Of 100 a percentile can be read; it is computed anew after as many more.
const N_FIRST: usize = 100;
/// Twenty are above the 98th percentile.
const N_KEPT: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_known_from_a_hundred_on_and_follows() {
        let latencies = Latencies::new(95);
        for n in 1..=99 {
            latencies.add(Duration::from_millis(n));
            assert_eq!(latencies.percentile(), None, "{n}");
        }
        latencies.add(Duration::from_millis(100));
        assert_eq!(latencies.percentile(), Some(Duration::from_millis(96)));
        for _ in 0..1_000 {
            latencies.add(Duration::from_secs(7_200));
        }
        let longest = Duration::from_micros(u64::from(u32::MAX));
        assert_eq!(latencies.percentile(), Some(longest), "beyond what it counts");
    }
}
