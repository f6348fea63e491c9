use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;
use tower_sd_core::{BoxError, Error, ErrorKind, Result};

use super::{Attempt, CloneRequest, RetryBudget};
use crate::{CallerDeadline, Observer, RequestScope, endpointer::observer::Observers};

/// Settings of [`Retry`](crate::Retry).
///
/// A request that was never sent (a refused connection, [`NoInstances`](crate::NoInstances)) is
/// always repeated. After any other failure it is repeated only if it is idempotent: by its method
/// (HTTP), or by your declaration ([`idempotent`](Self::idempotent)); and only while its
/// [`RetryBudget`] lasts, so that retries cannot keep a service down.
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
#[must_use]
pub struct RetryPolicy<R = CloneRequest> {
    pub(super) attempts: u32,
    times: Times,
    pub(crate) idempotent: bool,
    pub(super) on_failure: Option<Arc<OnFailure>>,
    pub(super) seed: Option<u64>,
    pub(crate) observers: Observers,
    pub(super) budget: Budget,
    pub(crate) protocol: R,
}

/// Where the budget of a policy comes from.
#[derive(Clone, Debug)]
pub(super) enum Budget {
    /// Each layer makes its own.
    Own,
    Shared(RetryBudget),
    Unlimited,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    per_try: Option<Bound>,
    deadline: Option<Bound>,
    /// The deadline is that of the response's head.
    head_only: bool,
    /// The deadline of the caller of this server holds too.
    inherits: bool,
    /// The first one, and the longest.
    pauses: (Duration, Duration),
}

/// A timeout.
#[derive(Clone, Copy, Debug)]
struct Bound {
    time: Duration,
    /// Of the client, and not set by its user.
    is_default: bool,
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
    /// 3 attempts, pauses of up to 25 to 250 ms, a budget, and [`CloneRequest`].
    ///
    /// There are no timeouts.
    pub fn new() -> Self {
        Self {
            attempts: 3,
            times: Times {
                per_try: None,
                deadline: None,
                head_only: false,
                inherits: true,
                pauses: (Duration::from_millis(25), Duration::from_millis(250)),
            },
            idempotent: false,
            on_failure: None,
            seed: None,
            observers: Observers::default(),
            budget: Budget::Own,
            protocol: CloneRequest,
        }
    }
}

impl<R> RetryPolicy<R> {
    /// Sets how often a request is sent, the first time included, as in go-kit.
    ///
    /// 0 counts as 1. Defaults to 3: each is at another instance while there is one, so that two
    /// that fail are survived. Attempts that were not sent have a count of their own, with the same
    /// bound: where instances die together, they would leave none for those that live.
    pub fn max_attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// Bounds one attempt, which is then dropped and counts as failed.
    ///
    /// Defaults to no bound. Without one, an instance that hangs uses up the time for all. The
    /// upload is included; over HTTP it is no failure of the instance when the upload's sender was
    /// waited for. It is carried to the server over HTTP; `grpc-timeout` would bound the stream.
    pub fn per_try_timeout(mut self, timeout: Duration) -> Self {
        self.times.per_try = Some(Bound { time: timeout, is_default: false });
        self
    }

    /// Bounds all attempts together, pauses and the response's body included.
    ///
    /// Defaults to no bound. A retry whose pause would not end in time is not waited for: the last
    /// response or error is then the caller's. An earlier deadline of the
    /// [`RequestScope`](crate::RequestScope) that the request is in holds in any case, and so does
    /// that of the [caller](Self::without_caller_deadline). What is left is carried to the server
    /// with each attempt, by endpoints that have a header for it: those of HTTP and gRPC. A layer
    /// that calls its endpoint later, as a `Buffer` does, carries none. Over HTTP/1.1 an upload may
    /// go on after its response has ended, without this bound.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.times.deadline = Some(Bound { time: timeout, is_default: false });
        self.times.head_only = false;
        self
    }

    /// How long all attempts together may take up to the head of the response.
    ///
    /// As [`timeout`](Self::timeout), which it replaces, without a bound on the body: downloads and
    /// streams go on. It is carried over HTTP; `grpc-timeout` would bound the stream.
    pub fn timeout_to_head(mut self, timeout: Duration) -> Self {
        self.times.deadline = Some(Bound { time: timeout, is_default: false });
        self.times.head_only = true;
        self
    }

    /// Sets the timeouts that a client has when its user sets none.
    ///
    /// As [`per_try_timeout`](Self::per_try_timeout) and
    /// [`timeout_to_head`](Self::timeout_to_head). They are a guard and no promise: they are not
    /// carried to the server, and contradict no timeout that is set later.
    pub fn default_timeouts(mut self, per_try: Duration, to_head: Duration) -> Self {
        self.times.per_try = Some(Bound { time: per_try, is_default: true });
        self.times.deadline = Some(Bound { time: to_head, is_default: true });
        self.times.head_only = true;
        self
    }

    /// Ignores the deadline of the request that the caller itself is serving.
    ///
    /// By default a client inside a server has it, see [`CallerDeadline`]. Work that outlives the
    /// caller's request, such as filling a cache, does without. A header of the caller's that is
    /// copied to such a request still limits its server: leave that header out.
    pub fn without_caller_deadline(mut self) -> Self {
        self.times.inherits = false;
        self
    }

    /// Pays retries from `budget`, which other clients may share.
    ///
    /// Defaults to one of the layer's own, with the defaults of [`RetryBudget::new`]. A request
    /// that was never sent is repeated without it, and once if an instance that had it has refused
    /// it. When it is exhausted, the failure is the caller's: see
    /// [`RetryError::is_budget_exhausted`](crate::RetryError::is_budget_exhausted), and
    /// [`Event::BudgetExhausted`](crate::Event).
    pub fn budget(self, budget: RetryBudget) -> Self {
        Self { budget: Budget::Shared(budget), ..self }
    }

    /// Repeats without a budget: in an outage each request costs all its attempts.
    pub fn without_budget(self) -> Self {
        Self { budget: Budget::Unlimited, ..self }
    }

    /// Sets the ceilings of the pause after the first failure, and of every pause.
    ///
    /// The first doubles with each failure. A pause is drawn evenly from zero to its ceiling.
    /// Defaults to 25 and 250 ms, as Envoy's.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.times.pauses = (first, max);
        self
    }

    /// Treats all requests as idempotent.
    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// Sets a callback that decides after each failure, as in go-kit.
    ///
    /// It has the number of the attempt, from 1, and the attempt: its instance, and its error
    /// unchanged.
    pub fn on_failure(
        self,
        on_failure: impl Fn(u32, &Attempt) -> RetryDecision + Send + Sync + 'static,
    ) -> Self {
        Self { on_failure: Some(Arc::new(on_failure)), ..self }
    }

    /// Adds an observer of repeated requests.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observers: self.observers.with(Some(observer)), ..self }
    }

    /// Derives the pauses from this seed: for tests.
    ///
    /// Defaults to one from the operating system.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Repeats and classifies with `protocol` instead of [`CloneRequest`].
    pub fn protocol<Q>(self, protocol: Q) -> RetryPolicy<Q> {
        let Self { attempts, times, idempotent, on_failure, seed, observers, budget, .. } = self;
        RetryPolicy { attempts, times, idempotent, on_failure, seed, observers, budget, protocol }
    }

    /// Whether its settings agree.
    ///
    /// # Errors
    ///
    /// A per-try timeout above the timeout for all attempts.
    pub fn check(&self) -> Result<()> {
        let set = |bound: Option<Bound>| bound.filter(|bound| !bound.is_default);
        match (set(self.times.per_try), set(self.times.deadline)) {
            (Some(per_try), Some(all)) if per_try.time > all.time => {
                let (per_try, all) = (per_try.time, all.time);
                let message = format!("per-try timeout of {per_try:?} is above timeout of {all:?}");
                Err(Error::new(ErrorKind::Config, "retry", "build").with_message(message))
            }
            _ => Ok(()),
        }
    }

    /// The bound of one attempt.
    pub fn per_try(&self) -> Option<Duration> {
        self.times.per_try.map(|bound| bound.time)
    }

    /// The scope of a request that begins at `now`, and its time for all attempts: whether that is
    /// what the caller of this server has left.
    pub(super) fn scope(&self, now: Instant) -> (RequestScope, (Option<Duration>, bool)) {
        let mut scope = RequestScope::current().unwrap_or_default().retried();
        let caller = CallerDeadline::current().filter(|_| self.times.inherits);
        if let Some(caller) = caller {
            scope = scope.with_caller(caller);
        }
        if let Some(bound) = self.times.deadline
            && !(self.times.head_only && bound.is_default)
            && let Some(at) = now.checked_add(bound.time)
        {
            scope = match self.times.head_only {
                true => scope.with_head_deadline(at),
                false => scope.with_deadline(at),
            };
        }
        if let Some(per_try) = self.times.per_try.filter(|bound| !bound.is_default) {
            scope = scope.with_per_try(per_try.time);
        }
        let of_scope = scope.head_deadline().map(|at| at.saturating_duration_since(now));
        let bound = self.times.deadline.map(|bound| bound.time).into_iter().chain(of_scope).min();
        let left = caller.map(|caller| caller.at().saturating_duration_since(now));
        (scope, (bound, bound.is_some() && bound == left))
    }

    /// The budget, unless there is none.
    pub(crate) fn paying(&self) -> Option<&RetryBudget> {
        match &self.budget {
            Budget::Shared(budget) => Some(budget),
            Budget::Own | Budget::Unlimited => None,
        }
    }

    /// With a budget of its own, unless it has one.
    pub(crate) fn with_own_budget(mut self) -> Self {
        if let Budget::Own = self.budget {
            self.budget = Budget::Shared(RetryBudget::new());
        }
        self
    }

    /// The pause before the attempt that follows `n` failures.
    pub(super) fn pause(&self, n: u32, rng: &mut Rng) -> Duration {
        let (first, max) = self.times.pauses;
        let doubled = first.saturating_mul(1 << n.saturating_sub(1).min(MAX_SHIFT));
        doubled.min(max).mul_f64(rng.f64())
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
            .field("times", &self.times)
            .field("idempotent", &self.idempotent)
            .field("budget", &self.budget)
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
    fn contradicting_timeouts_are_refused_with_both_values() {
        let (long, short) = (Duration::from_secs(5), Duration::from_secs(2));
        let both = |policy: RetryPolicy| policy.per_try_timeout(long).timeout(short).check();
        let error = both(RetryPolicy::new()).expect_err("refused").to_string();
        assert!(error.contains("per-try timeout of 5s is above timeout of 2s"), "{error}");
        let to_head = RetryPolicy::new().per_try_timeout(long).timeout_to_head(short);
        assert!(to_head.check().is_err());
        for agreeing in [
            RetryPolicy::new().per_try_timeout(short).timeout(short),
            RetryPolicy::new().default_timeouts(long, long).timeout(short),
            RetryPolicy::new().default_timeouts(short, short).per_try_timeout(long),
        ] {
            assert!(agreeing.check().is_ok(), "{agreeing:?}");
        }
    }

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
