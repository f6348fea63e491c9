use std::time::Duration;

use tokio::time::Instant;

/// A token bucket of two: a change and the one right behind it pass immediately, a flood passes at
/// the mean interval.
#[derive(Debug)]
pub(super) struct RateLimit {
    interval: Duration,
    /// When the bucket is full again, at the latest.
    full_at: Instant,
}

impl RateLimit {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, full_at: Instant::now() }
    }

    /// Takes a token, and returns when the next one is there.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + self.interval;
        (self.full_at - self.interval * (BURST - 1)).max(now)
    }
}

const BURST: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_pass_immediately_and_a_flood_at_the_interval() {
        let interval = Duration::from_millis(100);
        let start = Instant::now();
        let mut limit = RateLimit::new(interval);
        let mut now = start;
        for _ in 0..20 {
            now = limit.next(now);
        }
        assert_eq!(now - start, interval * 19);
        let mut fresh = RateLimit::new(interval);
        assert_eq!(fresh.next(start), start, "the first costs nothing");
        assert!(fresh.next(start) > start, "the second empties the bucket");
    }
}
