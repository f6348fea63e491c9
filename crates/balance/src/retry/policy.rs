use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use tower_sd_core::BoxError;

use super::{Attempt, CloneRequest};
use crate::{Observer, endpointer::observer::Observers};

/// Settings of [`Retry`](crate::Retry).
///
/// A request that was never sent (a refused connection, [`NoInstances`](crate::NoInstances)) is
/// always repeated. After any other failure it is repeated only if it is idempotent: by its method
/// (HTTP), or by your declaration ([`idempotent`](Self::idempotent)).
///
/// ```
/// use std::time::Duration;
/// use tower_sd::retry::{RetryDecision, RetryPolicy};
///
/// let policy = RetryPolicy::new()
///     .max_attempts(5)
///     .per_try_timeout(Duration::from_millis(300))
///     .timeout(Duration::from_secs(2))
///     .idempotent()
///     .on_failure(|_, attempt| match attempt.error().to_string().contains("no such account") {
///         true => RetryDecision::Stop,
///         false => RetryDecision::Retry,
///     });
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct RetryPolicy<R = CloneRequest> {
    pub(super) attempts: u32,
    pub(super) per_try: Option<Duration>,
    pub(super) deadline: Option<Duration>,
    pub(super) head_only: bool,
    pub(super) first_pause: Duration,
    pub(super) max_pause: Duration,
    pub(super) idempotent: bool,
    pub(super) on_failure: Option<Arc<OnFailure>>,
    pub(super) seed: Option<u64>,
    pub(super) observers: Observers,
    pub(super) protocol: R,
}

pub(super) type OnFailure = dyn Fn(u32, &Attempt) -> RetryDecision + Send + Sync;

/// The decision of a [`RetryPolicy`]'s callback after a failure.
#[derive(Debug)]
#[non_exhaustive]
pub enum RetryDecision {
    /// Another attempt, if the policy has one left and the request may be repeated.
    Retry,
    /// No more attempts.
    Stop,
    /// No more attempts; this error is the source of the [`RetryError`](crate::RetryError).
    Fail(BoxError),
}

impl RetryPolicy {
    /// 3 attempts, pauses of up to 25 to 250 ms, no timeouts, and [`CloneRequest`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            attempts: 3,
            per_try: None,
            deadline: None,
            head_only: false,
            first_pause: Duration::from_millis(25),
            max_pause: Duration::from_millis(250),
            idempotent: false,
            on_failure: None,
            seed: None,
            observers: Observers::default(),
            protocol: CloneRequest,
        }
    }
}

impl<R> RetryPolicy<R> {
    /// Sets the number of attempts, the first one included, as in go-kit.
    ///
    /// 0 counts as 1. Defaults to 3: each is at another instance while there is one, so that two
    /// that fail are survived.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Bounds one attempt, which is then dropped and counts as failed.
    ///
    /// Defaults to no bound. Without one, an instance that hangs uses up the time for all.
    #[must_use]
    pub fn per_try_timeout(mut self, timeout: Duration) -> Self {
        self.per_try = Some(timeout);
        self
    }

    /// Bounds all attempts together, pauses and the response's body included.
    ///
    /// Defaults to no bound. An earlier deadline of the [`RequestScope`](crate::RequestScope) that
    /// the request is in holds in any case.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.deadline, self.head_only) = (Some(timeout), false);
        self
    }

    /// How long all attempts together may take up to the head of the response.
    ///
    /// As [`timeout`](Self::timeout), which it replaces, without a bound on the body: downloads and
    /// streams go on.
    #[must_use]
    pub fn timeout_to_head(mut self, timeout: Duration) -> Self {
        (self.deadline, self.head_only) = (Some(timeout), true);
        self
    }

    /// Sets the ceilings of the pause after the first failure, and of every pause.
    ///
    /// The first doubles with each failure. A pause is drawn evenly from zero to its ceiling.
    /// Defaults to 25 and 250 ms, as Envoy's.
    #[must_use]
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.first_pause = first;
        self.max_pause = max;
        self
    }

    /// Treats all requests as idempotent.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sets a callback that decides after each failure, as in go-kit.
    ///
    /// It has the number of the attempt, from 1, and the attempt: its instance, and its error
    /// unchanged.
    #[must_use]
    pub fn on_failure(
        mut self,
        on_failure: impl Fn(u32, &Attempt) -> RetryDecision + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Arc::new(on_failure));
        self
    }

    /// Adds an observer of repeated requests.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers = self.observers.with(Some(observer));
        self
    }

    /// Derives the pauses from this seed: for tests.
    ///
    /// Defaults to one from the operating system.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Repeats and classifies with `protocol` instead of [`CloneRequest`].
    #[must_use]
    pub fn protocol<Q>(self, protocol: Q) -> RetryPolicy<Q> {
        RetryPolicy {
            attempts: self.attempts,
            per_try: self.per_try,
            deadline: self.deadline,
            head_only: self.head_only,
            first_pause: self.first_pause,
            max_pause: self.max_pause,
            idempotent: self.idempotent,
            on_failure: self.on_failure,
            seed: self.seed,
            observers: self.observers,
            protocol,
        }
    }

    /// The pause before the attempt that follows `n` failures.
    pub(super) fn pause(&self, n: u32, rng: &mut Rng) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << n.saturating_sub(1).min(MAX_SHIFT));
        doubled.min(self.max_pause).mul_f64(rng.f64())
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: fmt::Debug> fmt::Debug for RetryPolicy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("attempts", &self.attempts)
            .field("per_try", &self.per_try)
            .field("deadline", &self.deadline)
            .field("pauses", &(self.first_pause, self.max_pause))
            .field("idempotent", &self.idempotent)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// 2^20 first pauses are above every ceiling in use.
const MAX_SHIFT: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_full_jitter_between_25_and_250_ms() {
        let (policy, mut rng) = (RetryPolicy::new(), Rng::with_seed(5));
        for (n, ceiling) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (60, 250)] {
            let pauses: Vec<_> = (0..200).map(|_| policy.pause(n, &mut rng)).collect();
            let ceiling = Duration::from_millis(ceiling);
            let (min, max) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*max <= ceiling && *max > ceiling.mul_f64(0.9), "{n}: {max:?}");
            assert!(*min < ceiling.mul_f64(0.1), "{n}: {min:?}");
        }
    }
}
