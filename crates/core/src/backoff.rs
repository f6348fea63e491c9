use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::Error;

/// Pauses between attempts: exponential with full jitter, and slow to forget.
///
/// The n-th pause is drawn evenly from zero to `min(cap, initial · 2ⁿ)`: "full jitter" of Marc
/// Brooker, *Exponential Backoff And Jitter* (AWS Architecture Blog, 2015), so that clients that
/// failed together do not come back together. One success does not reset it: a registry that fails
/// every other call would be called without pause. It starts anew when the last failure is longer
/// ago than the healthy period. A shorter success that was reported by
/// [`succeeded`](Self::succeeded) and lasted for 5 s at least lowers the ceiling to a sixteenth of
/// its length: a connection that is cut every 50 s is down for 3 % of the time.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::backend::Backoff;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(60));
/// assert!(backoff.next_pause() <= Duration::from_millis(250));
/// assert!(backoff.next_pause() <= Duration::from_millis(500));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    healthy_after: Duration,
    denied_pause: Duration,
    failures: u32,
    last_failure: Option<Instant>,
    /// The first success after the last failure.
    well_since: Option<Instant>,
    rng: Rng,
}

impl Backoff {
    /// Creates pauses with the ceilings `initial`, of the first one, to `cap`.
    ///
    /// Both are at least 1 ms, since attempts without a pause would occupy a processor, and at most
    /// ten years. The healthy period is 30 s or `cap`, whichever is longer, so that a pause itself
    /// never counts as health.
    pub fn new(initial: Duration, cap: Duration) -> Self {
        let [initial, cap] = [initial, cap].map(|ceiling| ceiling.clamp(SHORTEST, LONGEST));
        Self {
            initial,
            cap,
            healthy_after: cap.max(HEALTHY_AFTER),
            denied_pause: DENIED_PAUSE,
            failures: 0,
            last_failure: None,
            well_since: None,
            rng: Rng::new(),
        }
    }

    /// Draws from this seed instead of a random one: for tests.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), ..self }
    }

    /// Sets the least pause after an error that no repetition mends. Defaults to 15 s.
    #[must_use]
    pub fn with_denied_pause(self, denied_pause: Duration) -> Self {
        Self { denied_pause: denied_pause.min(LONGEST), ..self }
    }

    /// The pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let now = Instant::now();
        if self.last_failure.is_some_and(|last| now.duration_since(last) > self.healthy_after) {
            self.failures = 0;
        }
        let well_for = self.well_since.take().map(|since| now.duration_since(since));
        if let Some(well_for) = well_for.filter(|well_for| *well_for >= LEAST_HEALTH) {
            while self.failures > 0 && self.ceiling() > well_for / HEALTH_PER_PAUSE {
                self.failures -= 1;
            }
        }
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1).min(MAX_SHIFT);
        // The pause itself is no sign of health: the period starts when it ends.
        let pause = ceiling.mul_f64(self.rng.f64());
        self.last_failure = Some(now + pause);
        pause
    }

    /// Returns the pause after one more failure, at least [`Error::retry_after`].
    ///
    /// That is clamped to 5 min. The pause after an error that is not transient is
    /// [`with_denied_pause`](Self::with_denied_pause) at least.
    pub fn next_pause_after(&mut self, error: &Error) -> Duration {
        let pause = self.next_pause();
        let wanted = error.retry_after().map(|wanted| wanted.min(MAX_RETRY_AFTER));
        let least = wanted.max((!error.is_transient()).then_some(self.denied_pause));
        // Above it, so that clients with the same answer do not return together.
        least.map_or(pause, |least| pause.max(least.mul_f64(1.0 + 0.2 * self.rng.f64())))
    }

    /// Notes that an attempt has succeeded.
    pub fn succeeded(&mut self) {
        self.well_since.get_or_insert_with(Instant::now);
    }

    fn ceiling(&self) -> Duration {
        self.initial.saturating_mul(1 << self.failures.min(MAX_SHIFT)).min(self.cap)
    }

    /// The ceiling of the first pause.
    pub fn initial(&self) -> Duration {
        self.initial
    }
}

impl Default for Backoff {
    /// 250 ms to 60 s: quick enough for a blip, and at most two attempts a minute on average in a
    /// long outage.
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(60))
    }
}

/// Kubernetes resets its reflectors' backoff after 2 min; a registry's leader election is over in a
/// few seconds.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// 2^20 initial pauses are above every cap in use.
const MAX_SHIFT: u32 = 20;
/// A success that ends sooner counts for nothing.
const LEAST_HEALTH: Duration = Duration::from_secs(5);
const HEALTH_PER_PAUSE: u32 = 16;
/// A clock counts beyond it.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const SHORTEST: Duration = Duration::from_millis(1);
/// A token or a setting must change first, and a registry logs every denied request.
const DENIED_PAUSE: Duration = Duration::from_secs(15);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_stay_within_the_jitter_envelope_and_reach_the_cap() {
        let mut backoff = Backoff::default().with_seed(7);
        let mut longest = Duration::ZERO;
        for n in 0..200_u32 {
            let pause = backoff.next_pause();
            let ceiling = Duration::from_millis(250) * 2_u32.saturating_pow(n.min(12));
            assert!(pause <= ceiling.min(Duration::from_secs(60)), "pause {n} is {pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest > Duration::from_secs(50), "the cap was never neared: {longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_healthy_period_resets_it() {
        let cap = Duration::from_secs(5);
        let mut backoff = Backoff::new(Duration::from_millis(10), cap).with_seed(1);
        let longest = |backoff: &mut Backoff| {
            (0..5).map(|_| backoff.clone()).map(|mut b| b.next_pause()).max()
        };
        for _ in 0..30 {
            backoff.next_pause();
        }
        advance(Duration::from_secs(20)).await;
        assert!((0..20).any(|_| backoff.next_pause() > Duration::from_secs(1)), "reset too early");
        advance(Duration::from_secs(60)).await;
        assert!(longest(&mut backoff) <= Some(Duration::from_millis(10)), "not reset");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_without_bound_or_length_are_bounded() {
        let mut longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert!((0..100).all(|_| longest.next_pause() <= LONGEST));
        let shortest = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(shortest.initial(), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn two_clients_do_not_run_in_lockstep() {
        let pauses = |seed| {
            let mut backoff = Backoff::default().with_seed(seed);
            (0..10).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(1), pauses(2));
        assert_eq!(pauses(1), pauses(1));
    }
}
