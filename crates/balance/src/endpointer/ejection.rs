use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU8, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};
use tower_sd_core::{InstanceId, duration};

use super::Breaker;

/// When an endpoint that fails gets no requests for a while.
///
/// Failures are those of [`Outcome`](crate::Outcome): broken exchanges, responses that report a
/// failure of the instance, and time-outs. Requests that were not sent count as failures in a row,
/// and not in the success rate. At most half of the endpoints are ejected, and never the last one;
/// when others leave, and too many are, the next one that fails again returns nevertheless. While
/// no other is usable, ejected ones get the requests. When its time is over, one request
/// decides: the endpoint returns, or is ejected for twice as long. A request that is still in
/// flight after [`max`](Self::max) no longer prevents another from deciding.
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
    /// Each next one is twice as long.
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
    policy: EjectionPolicy,
    pub(crate) breaker: Arc<Breaker>,
    wake: Arc<Notify>,
    verdicts: Mutex<Vec<Verdict>>,
    /// How many endpoints wait for a request that decides.
    n_due: AtomicUsize,
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
    /// Its active checks fail, or pass again.
    Checks,
}

/// Of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    phase: AtomicU8,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    ejection: Option<Ejection>,
    /// When it has returned, and from which ejection.
    returned: Option<(Instant, u32)>,
    /// When the worker examines it next.
    next: Option<Instant>,
    older: Option<Mark>,
    newer: Option<Mark>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    requests: u64,
    failures: u64,
}

/// Only the worker leaves `Accused` and `Decided`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Phase {
    Well,
    /// A verdict is on its way.
    Accused,
    Ejected,
    /// One request may decide.
    Due,
    /// That request is in flight, or its verdict on its way.
    Decided,
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
    pub fn consecutive_failures(mut self, n: u32) -> Self {
        self.consecutive_failures = n;
        self
    }

    /// Sets the field of this name.
    pub fn success_rate(mut self, percent: u8) -> Self {
        self.success_rate = percent;
        self
    }

    /// Sets `initial` and `max`.
    pub fn times(mut self, initial: Duration, max: Duration) -> Self {
        self.initial = initial;
        self.max = max;
        self
    }

    /// How many of `n` endpoints may be ejected together.
    pub(super) fn limit(n: usize) -> usize {
        if n < 2 { 0 } else { (n / 2).max(1) }
    }

    /// The length of an ejection; `chance` is in 0..1.
    pub(super) fn length(&self, times: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(times.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        let length = self.initial.saturating_mul(factor).min(self.max).min(MAX_LENGTH);
        length.mul_f64(0.75 + chance / 2.0)
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
    pub(super) fn new(policy: EjectionPolicy, breaker: Arc<Breaker>, wake: Arc<Notify>) -> Self {
        Self { policy, breaker, wake, ..Self::default() }
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

impl Health {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Well,
            1 => Phase::Accused,
            2 => Phase::Ejected,
            3 => Phase::Due,
            _ => Phase::Decided,
        }
    }

    /// Whether it is out of the set.
    pub(super) fn is_ejected(&self) -> bool {
        matches!(self.phase(), Phase::Ejected | Phase::Due | Phase::Decided)
    }

    /// Only one caller succeeds.
    pub(super) fn change(&self, from: Phase, to: Phase, judge: &Judge) -> bool {
        let (before, after) = (code(from), code(to));
        let changed = self.phase.compare_exchange(before, after, SeqCst, SeqCst).is_ok();
        if changed {
            if to == Phase::Due {
                judge.n_due.fetch_add(1, SeqCst);
            }
            if from == Phase::Due {
                judge.n_due.fetch_sub(1, SeqCst);
            }
        }
        changed
    }

    /// Whether this failure ejects. `n` have come without a success; then the counters as they are.
    pub(super) fn is_outlier(
        &self,
        policy: &EjectionPolicy,
        n: u32,
        requests: u64,
        failures: u64,
    ) -> Option<EjectionReason> {
        if policy.consecutive_failures > 0 && n >= policy.consecutive_failures {
            return Some(EjectionReason::ConsecutiveFailures(n));
        }
        if policy.success_rate == 0 {
            return None;
        }
        let mark = Mark { at: Instant::now(), requests, failures };
        let older = self.record().roll(mark, policy.window);
        let requests = requests.saturating_sub(older.requests);
        let failures = failures.saturating_sub(older.failures).min(requests);
        let succeeded = requests - failures;
        if requests < policy.min_requests.max(1)
            || succeeded * 100 >= requests * u64::from(policy.success_rate)
        {
            return None;
        }
        let percent = u8::try_from(succeeded * 100 / requests).unwrap_or(100);
        Some(EjectionReason::SuccessRate(percent))
    }

    pub(super) fn ejection(&self) -> Option<Ejection> {
        self.record().ejection
    }

    /// Records the next ejection, and returns its end.
    pub(super) fn eject(
        &self,
        reason: EjectionReason,
        policy: &EjectionPolicy,
        now: Instant,
        chance: f64,
    ) -> Instant {
        let mut record = self.record();
        let recent = record.returned.filter(|(at, _)| now.duration_since(*at) < policy.max);
        let before = record.ejection.map(|ejection| ejection.times);
        let times =
            before.or_else(|| recent.map(|(_, times)| times)).unwrap_or(0).saturating_add(1);
        let length = policy.length(times, chance);
        let until = now.checked_add(length).unwrap_or(now);
        record.ejection = Some(Ejection { reason, times, until });
        until
    }

    /// It returns; what was before no longer counts.
    pub(super) fn forgive(&self, now: Instant) {
        let mut record = self.record();
        if let Some(ejection) = record.ejection.take() {
            record.returned = Some((now, ejection.times));
        }
        (record.older, record.newer) = (None, None);
    }

    /// When the worker examines it next; returns what that was before.
    pub(super) fn schedule(&self, at: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut self.record().next, at)
    }

    /// No request decides about it.
    ///
    /// For the worker, which alone makes an ejected one well: what requests change meanwhile is
    /// overwritten.
    pub(super) fn suspend(&self, judge: &Judge) {
        if self.is_ejected() && self.phase.swap(code(Phase::Ejected), SeqCst) == code(Phase::Due) {
            judge.n_due.fetch_sub(1, SeqCst);
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// The counters of half a window to a window ago; marks are set by failures alone.
    fn roll(&mut self, mark: Mark, window: Duration) -> Mark {
        let age = |other: Option<Mark>| other.map(|other| mark.at.duration_since(other.at));
        match age(self.newer) {
            Some(age) if age < window / 2 => {}
            Some(age) if age < window => self.older = self.newer.replace(mark),
            Some(_) | None => (self.older, self.newer) = (Some(mark), Some(mark)),
        }
        self.older.unwrap_or(mark)
    }
}

fn code(phase: Phase) -> u8 {
    match phase {
        Phase::Well => 0,
        Phase::Accused => 1,
        Phase::Ejected => 2,
        Phase::Due => 3,
        Phase::Decided => 4,
    }
}

const MIN_PATIENCE: Duration = Duration::from_secs(1);
/// What "never" amounts to: ten years, an `Instant` that exists.
const MAX_LENGTH: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
