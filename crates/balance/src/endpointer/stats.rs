use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{
            AtomicU8 as StdAtomicU8, AtomicU32, AtomicU64 as StdAtomicU64, AtomicUsize,
            Ordering::Relaxed,
        },
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_sd_core::InstanceId;

use super::{
    ActiveCheck,
    ejection::{Cause, Ejection, EjectionReason, Judge, Verdict},
    health::{Health, Phase},
    latency::{Decay, Latency, Started},
    life::{EndpointState, Life},
};
use crate::{
    error::Failure,
    outcome::{N_COUNTED, Outcome},
    sync::{AtomicBool, AtomicU8, AtomicU64, Mutex},
};

/// The record of one endpoint, kept across updates of the set.
///
/// A [`Picker`](crate::Picker) and an [`Observer`](crate::Observer) read it. A balancer that keeps
/// values for each endpoint (a moving average, the end of an ejection) stores them in
/// [`extra`](Self::extra).
//
// The strong count of its `Arc`, less the endpoint's own, is the number of requests in flight: a
// guard costs two atomic operations, not four. What a pick touches comes first, beside that count:
// with 10 000 endpoints a cache line more is what a pick costs. What follows is long enough that
// two counts never share a line.
#[repr(C)]
pub struct EndpointStats {
    /// First: a balancer compares it, and the count, of several endpoints.
    pub(crate) latency: Latency,
    picks: AtomicU64,
    /// Distinguishes endpoints of one process; an instance that is created anew gets a new one.
    pub(crate) key: u64,
    readiness: AtomicU8,
    /// Its service takes the guards of its requests, see [`InFlight::take`](crate::InFlight::take).
    pub(crate) takes_guards: bool,
    /// A request has no better endpoint, and waits for a probe of this one.
    wanted: AtomicBool,
    /// Its failures since its last success, and the requests that it did not take.
    n_failed: AtomicU32,
    pub(super) health: Health,
    pub(super) judge: Arc<Judge>,
    /// How its latency is averaged: by the last balancer that measures it.
    decay: StdAtomicU64,
    outcomes: [StdAtomicU64; N_COUNTED],
    connects: StdAtomicU64,
    refusals: StdAtomicU64,
    extra: [StdAtomicU64; N_EXTRA],
    share: StdAtomicU8,
    /// Requests in flight, where their number is bounded.
    pub(super) n_places: AtomicUsize,
    pub(crate) id: InstanceId,
    created: Instant,
    life: StdMutex<Life>,
    /// That of its service, if it has one.
    check: StdMutex<Option<ActiveCheck>>,
    /// Its service while it drains.
    pub(super) parked: Mutex<Option<(Box<dyn Any + Send>, TaskTrackerToken)>>,
}

/// Whether an endpoint takes requests; requests and the worker change it, the worker alone acts on
/// it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Readiness {
    Ready,
    /// A probe connects; nothing is known yet.
    Connecting,
    /// The last connection was refused, or did not come about in time.
    Down,
}

impl EndpointStats {
    pub(crate) fn new(id: InstanceId, takes_guards: bool, judge: Arc<Judge>) -> Self {
        let now = Instant::now();
        Self {
            latency: Latency::default(),
            picks: AtomicU64::new(0),
            key: NEXT_KEY.fetch_add(1, Relaxed),
            readiness: AtomicU8::new(READY),
            takes_guards,
            wanted: AtomicBool::new(false),
            n_failed: AtomicU32::new(0),
            health: Health::default(),
            judge,
            decay: StdAtomicU64::new(0),
            outcomes: [const { StdAtomicU64::new(0) }; N_COUNTED],
            connects: StdAtomicU64::new(0),
            refusals: StdAtomicU64::new(0),
            extra: [const { StdAtomicU64::new(0) }; N_EXTRA],
            share: StdAtomicU8::new(100),
            n_places: AtomicUsize::new(0),
            id,
            created: now,
            life: StdMutex::new(Life { state: EndpointState::Ready, since: now, why: None }),
            check: StdMutex::default(),
            parked: Mutex::new(None),
        }
    }

    /// The instance.
    pub fn instance(&self) -> &InstanceId {
        &self.id
    }

    /// The name of the service whose instance it is; empty in a test set.
    pub fn service(&self) -> &str {
        &self.judge.service
    }

    /// How often it was picked.
    pub fn picks(&self) -> u64 {
        self.picks.load(Relaxed)
    }

    /// How many of its requests have failed, or timed out.
    pub fn failures(&self) -> u64 {
        let [exchange, response, _not_sent, timed_out, _cancelled] = self.outcomes();
        exchange + response + timed_out
    }

    /// All but the successes, in the order of [`Outcome::index`].
    pub(super) fn outcomes(&self) -> [u64; N_COUNTED] {
        std::array::from_fn(|index| self.outcomes[index].load(Relaxed))
    }

    /// How often it has connected.
    ///
    /// That is readiness that was pending or refused, and then came about.
    pub fn connects(&self) -> u64 {
        self.connects.load(Relaxed)
    }

    /// How often it has refused, or was not ready in time.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Relaxed)
    }

    /// Its share of its weight, in percent: less than 100 during a slow start.
    pub fn share(&self) -> u8 {
        self.share.load(Relaxed)
    }

    /// Whether that is another one.
    pub(super) fn set_share(&self, share: u8) -> bool {
        self.share.swap(share, Relaxed) != share
    }

    /// When its service was created first.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Its state, and since when it has that.
    pub fn state(&self) -> (EndpointState, Instant) {
        let life = self.life();
        (life.state, life.since)
    }

    /// Why it is in its state: what has brought it down, or its ejection.
    ///
    /// `None` while it is well. It is the text of the error with all causes, shortened.
    pub fn why(&self) -> Option<String> {
        self.life().why.as_ref().map(Failure::shown)
    }

    /// Values that no code of this crate reads or writes, zero at first: a balancer's.
    pub fn extra(&self) -> &[StdAtomicU64; 4] {
        &self.extra
    }

    #[inline]
    pub(crate) fn picked(&self) {
        self.picks.fetch_add(1, Relaxed);
    }

    /// A request has ended, whose guard still counts.
    #[inline]
    pub(crate) fn ended(self: &Arc<Self>, outcome: Outcome) {
        if outcome != Outcome::Success {
            // One is the endpoint's own, and one is this.
            self.failed(outcome, Arc::strong_count(self).saturating_sub(2));
        } else if self.n_failed.load(Relaxed) != 0 {
            self.n_failed.store(0, Relaxed);
        }
    }

    #[cold]
    fn failed(&self, outcome: Outcome, others: usize) {
        if let Some(index) = outcome.index() {
            self.outcomes[index].fetch_add(1, Relaxed);
        }
        if outcome == Outcome::Cancelled {
            return;
        }
        let n = self.n_failed.fetch_add(1, Relaxed).saturating_add(1);
        if self.health.phase() != Phase::Well {
            return;
        }
        let [_, _, not_sent, _, cancelled] = self.outcomes();
        // What is in flight is no success yet.
        let others = u64::try_from(others).unwrap_or(u64::MAX);
        let requests = self.picks().saturating_sub(not_sent + cancelled + others);
        let policy = self.judge.policy();
        if let Some(reason) = self.health.is_outlier(policy, n, requests, self.failures())
            && self.change(Phase::Well, Phase::Accused)
        {
            self.report(Cause::Requests(Some(reason)));
        }
    }

    /// The request that decides about the end of its ejection has ended.
    #[cold]
    pub(super) fn decide(&self, outcome: Outcome) {
        let reason = match outcome {
            Outcome::Success => None,
            Outcome::Failed(_) | Outcome::TimedOut | Outcome::NotSent => {
                Some(EjectionReason::Probation)
            }
            Outcome::Cancelled => return self.report(Cause::Undecided),
        };
        self.report(Cause::Requests(reason));
    }

    fn report(&self, cause: Cause) {
        self.judge.report(Verdict { id: self.id.clone(), key: self.key, cause });
    }

    /// The request that was to decide was never sent: another may.
    #[cold]
    pub(super) fn decide_later(&self) {
        self.change(Phase::Decided, Phase::Due);
    }

    /// Takes a request that decides; only one caller gets `true`.
    pub(super) fn take_probation(&self) -> bool {
        self.is_ready() && self.change(Phase::Due, Phase::Decided)
    }

    /// Whether a request may decide about the end of its ejection.
    pub(crate) fn is_due(&self) -> bool {
        self.health.phase() == Phase::Due
    }

    /// Only one caller succeeds.
    pub(super) fn change(&self, from: Phase, to: Phase) -> bool {
        self.health.change(from, to, &self.judge)
    }

    /// Its ejection, while it lasts.
    pub fn ejection(&self) -> Option<Ejection> {
        self.health.ejection()
    }

    /// What was before no longer counts.
    pub(super) fn forgive(&self, now: Instant) {
        self.n_failed.store(0, Relaxed);
        self.health.forgive(now);
    }

    /// The moving average of the latency of its successes.
    ///
    /// Up to the head of the response. `None` before the first; only balancers that
    /// [measure](crate::Choice::measure) add to it.
    pub fn latency(&self) -> Option<Duration> {
        self.latency.get().map(Duration::from_secs_f64)
    }

    /// The time since its creation.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    /// The latency of a request is measured from `now` on.
    pub(crate) fn measure(&self, now: Instant, decay: Decay) -> Started {
        self.decay.store(decay.to_bits(), Relaxed);
        Started::new(self.age(now))
    }

    #[cold]
    pub(crate) fn measured(&self, started: Started, head: Option<Duration>, outcome: Outcome) {
        let is_success = match outcome {
            Outcome::Success => true,
            // The head had come.
            Outcome::Cancelled if head.is_some() => true,
            // The time that was waited is a lower bound.
            Outcome::Failed(_) | Outcome::TimedOut | Outcome::Cancelled => false,
            Outcome::NotSent => return,
        };
        let age = self.age(Instant::now());
        let latency = head.unwrap_or_else(|| started.elapsed(age));
        let decay = Decay::from_bits(self.decay.load(Relaxed));
        self.latency.add(age, latency, decay, is_success);
    }

    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    pub(super) fn life(&self) -> Life {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state before, if it was another.
    pub(super) fn enter(&self, life: Life) -> Option<EndpointState> {
        let mut current = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let before = current.state;
        if before == life.state {
            current.why = life.why;
            return None;
        }
        *current = life;
        Some(before)
    }

    /// From now on `check` decides about it, and that of an earlier service does not.
    pub(super) fn attach(&self, check: Option<ActiveCheck>) {
        let before = self.check_failure();
        if let Some(check) = &check {
            check.attach(before, (Arc::clone(&self.judge), self.id.clone(), self.key));
        }
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = check;
    }

    /// Why its active checks fail, while they do.
    pub(super) fn check_failure(&self) -> Option<Failure> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.failure()
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.readiness.load(Relaxed) == READY
    }

    pub(crate) fn readiness(&self) -> Readiness {
        Readiness::ALL[usize::from(self.readiness.load(Relaxed))]
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Relaxed);
    }

    /// Leaves [`Readiness::Ready`]. Only the first caller gets `true`, and reports it to the
    /// worker.
    pub(crate) fn leave_ready(&self, to: Readiness) -> bool {
        self.readiness.compare_exchange(READY, to as u8, Relaxed, Relaxed).is_ok()
    }

    /// Requests a probe. Only the first caller until the probe's end gets `true`.
    pub(crate) fn want(&self) -> bool {
        !self.wanted.swap(true, Relaxed)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    pub(super) fn probed(&self) {
        self.wanted.store(false, Relaxed);
    }
}

impl Readiness {
    const ALL: [Self; 3] = [Self::Ready, Self::Connecting, Self::Down];
}

impl fmt::Debug for EndpointStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointStats")
            .field("instance", &self.id)
            .field("picks", &self.picks())
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

const READY: u8 = Readiness::Ready as u8;
/// As many as the peers' load-aware balancers keep: a value, its time, an ejection, a ramp.
const N_EXTRA: usize = 4;
/// Only distinguishes endpoints: nothing depends on its order.
static NEXT_KEY: StdAtomicU64 = StdAtomicU64::new(0);
