use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};
use tower_sd_core::{InstanceId, duration};

use crate::limits::Breaker;

/// When an endpoint that fails gets no requests for a while.
///
/// Failures are those of [`Outcome`](crate::Outcome): broken exchanges, responses that report a
/// failure of the instance, and time-outs. Requests that were not sent count as failures in a row,
/// and not in the success rate; those that cross an HTTP/2 server's regular GOAWAY do not count, as
/// in nginx and Envoy. At most half of the endpoints are ejected, and never the last one;
/// when others leave, and too many are, the next one that fails again returns nevertheless. While
/// no other is usable, ejected ones get the requests. When its time is over, one request
/// decides: the endpoint returns, or is ejected for twice as long. When that request is dropped
/// without an answer, another decides after [`initial`](Self::initial), and after 1 s at least; one
/// that is still in flight after [`max`](Self::max) no longer prevents another from deciding.
///
/// The rules are Finagle's failure accrual, the limits those of Envoy's outlier detection.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct EjectionPolicy {
    /// As many failures without a success between them eject. Defaults to 5.
    ///
    /// 0 never ejects.
    pub consecutive_failures: u32,
    /// A smaller share of successes ejects, in percent. Defaults to 80.
    ///
    /// 0 never ejects.
    pub success_rate: u8,
    /// The requests that a success rate takes at least. Defaults to 20.
    pub min_requests: u64,
    /// The time that a success rate covers at most. Defaults to 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub window: Duration,
    /// The length of the first ejection. Defaults to 1 s.
    ///
    /// Each next one is twice as long. Less than 10 ms counts as 10 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub initial: Duration,
    /// The limit of that length. Defaults to 30 s. Each varies by a quarter.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max: Duration,
}

/// Why, and until when, an endpoint is ejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ejection {
    /// What has led to it.
    pub reason: EjectionReason,
    /// Its number, from 1.
    ///
    /// It begins anew when the endpoint was well for longer than the policy's maximum.
    pub times: u32,
    /// When one request may decide.
    pub until: Instant,
}

/// What has led to an ejection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EjectionReason {
    /// So many failures, and no success between them.
    ConsecutiveFailures(u32),
    /// The share of successes, in percent.
    SuccessRate(u8),
    /// The request that was to decide has failed.
    Probation,
}

/// What the endpoints of one endpointer have in common.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) service: Arc<str>,
    policy: EjectionPolicy,
    pub(crate) breaker: Arc<Breaker>,
    wake: Arc<Notify>,
    verdicts: Mutex<Vec<Verdict>>,
    /// How many endpoints wait for a request that decides.
    pub(super) n_due: AtomicUsize,
}

/// The worker acts on it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(super) id: InstanceId,
    pub(super) key: u64,
    pub(super) cause: Cause,
}

/// What has changed about an endpoint.
#[derive(Debug)]
pub(super) enum Cause {
    /// Its requests have failed; `None`: the one that decides has succeeded.
    Requests(Option<EjectionReason>),
    /// The request that was to decide was given up.
    Undecided,
    /// Its active checks fail, or pass again.
    Checks,
}

impl EjectionPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            consecutive_failures: 5,
            success_rate: 80,
            min_requests: 20,
            window: Duration::from_secs(10),
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
        }
    }

    /// Ejects no endpoint.
    pub fn off() -> Self {
        Self::new().consecutive_failures(0).success_rate(0)
    }

    /// Sets the field of this name.
    pub fn consecutive_failures(self, n: u32) -> Self {
        Self { consecutive_failures: n, ..self }
    }

    /// Sets the field of this name.
    pub fn success_rate(self, percent: u8) -> Self {
        Self { success_rate: percent, ..self }
    }

    /// Sets the field of this name.
    pub fn min_requests(self, n: u64) -> Self {
        Self { min_requests: n, ..self }
    }

    /// Sets the field of this name.
    pub fn window(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// Sets `initial` and `max`.
    pub fn times(mut self, initial: Duration, max: Duration) -> Self {
        self.initial = initial;
        self.max = max;
        self
    }

    /// The length of an ejection; `chance` is in 0..1.
    pub(super) fn length(&self, times: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(times.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        // Of zero, twice as long is zero too.
        let (initial, max) = (self.initial.max(SHORTEST), self.max.clamp(SHORTEST, MAX_LENGTH));
        let length = initial.saturating_mul(factor).min(max);
        length.mul_f64(0.75 + chance / 2.0)
    }

    /// How long none decides after a request that has not decided.
    pub(super) fn postponement(&self) -> Duration {
        self.initial.clamp(MIN_PATIENCE, MAX_LENGTH)
    }

    /// How long a request that decides may take before another one does.
    pub(super) fn patience(&self) -> Duration {
        self.max.clamp(MIN_PATIENCE, MAX_LENGTH)
    }
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures(n) => write!(f, "ejected: {n} consecutive failures"),
            Self::SuccessRate(percent) => write!(f, "ejected: {percent} % of requests succeed"),
            Self::Probation => f.write_str("ejected: it still fails"),
        }
    }
}

impl Judge {
    /// For the endpoints of `service`.
    pub(super) fn new(
        service: &str,
        policy: EjectionPolicy,
        breaker: Arc<Breaker>,
        wake: Arc<Notify>,
    ) -> Self {
        Self { service: service.into(), policy, breaker, wake, ..Self::default() }
    }

    pub(super) fn policy(&self) -> &EjectionPolicy {
        &self.policy
    }

    /// Whether an endpoint waits for a request that decides.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.n_due.load(Relaxed) != 0
    }

    pub(super) fn report(&self, verdict: Verdict) {
        self.verdicts().push(verdict);
        self.wake.notify_one();
    }

    pub(super) fn take_verdicts(&self) -> Vec<Verdict> {
        std::mem::take(&mut *self.verdicts())
    }

    fn verdicts(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SHORTEST: Duration = Duration::from_millis(10);
const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// What "never" amounts to: ten years, an `Instant` that exists.
const MAX_LENGTH: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_documented_default_and_can_be_set() {
        let seconds = Duration::from_secs;
        let default = EjectionPolicy::new();
        // All fields: a new one needs a row below.
        let EjectionPolicy {
            consecutive_failures,
            success_rate,
            min_requests,
            window,
            initial,
            max,
        } = default;
        assert_eq!((consecutive_failures, success_rate, min_requests), (5, 80, 20));
        assert_eq!([window, initial, max], [10, 1, 30].map(seconds));
        for (text, set) in [
            (r#"{ "consecutive_failures": 7 }"#, default.consecutive_failures(7)),
            (r#"{ "success_rate": 7 }"#, default.success_rate(7)),
            (r#"{ "min_requests": 7 }"#, default.min_requests(7)),
            (r#"{ "window": "7s" }"#, default.window(seconds(7))),
            (r#"{ "initial": "7s" }"#, default.times(seconds(7), max)),
            (r#"{ "max": "7s" }"#, default.times(initial, seconds(7))),
        ] {
            assert_eq!(serde_json::from_str::<EjectionPolicy>(text).unwrap(), set, "{text}");
            assert_ne!(set, default, "{text}");
        }
    }

    #[test]
    fn each_ejection_is_twice_as_long_within_a_quarter() {
        let (ms, policy) = (Duration::from_millis, EjectionPolicy::new());
        for (times, chance, expected) in
            [(1, 0.0, 750), (1, 0.5, 1_000), (2, 0.5, 2_000), (3, 0.9, 4_800), (9, 0.5, 30_000)]
        {
            assert_eq!(policy.length(times, chance), ms(expected), "{times}, {chance}");
        }
        assert_eq!(policy.length(u32::MAX, 0.5), ms(30_000));
    }
}
