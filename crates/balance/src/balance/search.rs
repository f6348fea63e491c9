//! The slow path: nothing to pick, or the picked endpoint is not ready. It owns handles, and may wait.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    select,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::BoxError;

use super::{cell::Excluded, service::Inner};
use crate::{
    NoInstances, NoInstancesReason,
    attempt::Record,
    endpointer::{Failure, InFlight, PollReady, Readiness, Signal, Stats, Tier},
};

/// The readiness of the endpoint that was picked first.
pub(super) struct First<S> {
    pub(super) lease: InFlight,
    pub(super) service: S,
    pub(super) ready: Poll<Result<(), BoxError>>,
}

/// A service that is ready, with its lease. Waits for one no longer than `inner.wait`.
///
/// Endpoints that are busy or connect let others be tried immediately; then the first that becomes ready is taken.
pub(super) async fn obtain<S: Clone + Send + Sync + 'static>(
    inner: Arc<Inner<S>>,
    poll_ready: PollReady<S>,
    first: Option<First<S>>,
    record: Option<Arc<Record>>,
) -> Result<(S, InFlight), BoxError> {
    let mut search = Search {
        inner: &inner,
        poll_ready,
        record: record.as_deref(),
        begun: Instant::now(),
        waiting: Vec::new(),
        wanted: Vec::new(),
        error: None,
    };
    if let Some(record) = &record {
        let shared = Arc::clone(&inner.shared);
        record.search(Box::new(move || shared.why_none()));
    }
    let found = timeout(inner.wait, search.run(first)).await;
    let error = search.error.take().map(BoxError::from);
    let none = match found {
        Ok(Ok(found)) => {
            let (service, mut lease) = found;
            if let Some(record) = &record {
                let attempt = record.sent(lease.stats().key, lease.instance());
                lease.set_attempt(attempt);
            }
            return Ok((service, lease));
        }
        Ok(Err(none)) => none,
        Err(_elapsed) => inner.shared.why_none().waited(),
    };
    if let Some(record) = &record {
        drop(record.give_up());
    }
    Err(none.with_source(error).of_request(record.as_ref().map(|record| record.id)).into())
}

struct Search<'a, S: Clone + Send + Sync + 'static> {
    inner: &'a Inner<S>,
    poll_ready: PollReady<S>,
    record: Option<&'a Record>,
    begun: Instant,
    /// Pending: busy, or connecting.
    waiting: Vec<Waiting<S>>,
    /// Down, and probed on behalf of this request.
    wanted: Vec<Weak<Stats>>,
    /// The last refusal.
    error: Option<Failure>,
}

struct Waiting<S> {
    service: S,
    key: u64,
    stats: Weak<Stats>,
    /// Nothing is in flight: this request connects on behalf of all, as a probe does.
    connects: bool,
}

impl<S: Clone + Send + Sync + 'static> Search<'_, S> {
    async fn run(&mut self, first: Option<First<S>>) -> Result<(S, InFlight), NoInstances> {
        let mut versions = self.inner.shared.versions();
        if let Some(First { lease, service, ready }) = first {
            self.consider(service, lease, ready);
        }
        let mut is_asked = false;
        loop {
            versions.borrow_and_update();
            if let Some(found) = self.look() {
                return Ok(found);
            }
            let none = self.inner.shared.why_none();
            if none.is_known() {
                return Err(none);
            }
            if none.reason() == NoInstancesReason::NeverSynced && !is_asked {
                self.inner.shared.refresh();
                is_asked = true;
            }
            select! {
                biased;
                found = first_ready(&mut self.waiting, self.poll_ready) => {
                    let (one, stats, ready) = found;
                    match ready {
                        Ok(()) => return Ok(self.found(one, &stats)),
                        Err(error) => self.refused(&stats, one.connects, error),
                    }
                }
                _changed = versions.changed() => {}
                // Time for more endpoints, or for those that were tried.
                () = sleep(STEP) => {}
            }
        }
    }

    /// It has become ready; other requests wait for that too, if it connected.
    fn found(&self, one: Waiting<S>, stats: &Arc<Stats>) -> (S, InFlight) {
        if one.connects {
            stats.set_readiness(Readiness::Ready);
            self.inner.shared.signal(stats, Signal::Connected);
        }
        (one.service, InFlight::new(stats))
    }

    /// Tries what is ready, best first; endpoints that were tried for this request come last.
    fn look(&mut self) -> Option<(S, InFlight)> {
        let fresh = |this: &mut Self| {
            this.look_in(Tier::Ready, true).or_else(|| this.look_in(Tier::Held, true))
        };
        if let Some(found) = fresh(self) {
            return Some(found);
        }
        self.want_down();
        if self.has_hope() {
            return None;
        }
        self.look_in(Tier::Ready, false)
            .or_else(|| self.look_in(Tier::Held, false))
            .or_else(|| self.look_in(Tier::Unfit, false))
    }

    fn look_in(&mut self, tier: Tier, is_fresh: bool) -> Option<(S, InFlight)> {
        while self.waiting.len() < self.limit() {
            let (mut service, lease) = self.pick(tier, is_fresh)?;
            let cx = &mut Context::from_waker(Waker::noop());
            let ready = (self.poll_ready)(&mut service, cx);
            if let Some(found) = self.consider(service, lease, ready) {
                return Some(found);
            }
        }
        None
    }

    fn pick(&self, tier: Tier, is_fresh: bool) -> Option<(S, InFlight)> {
        let waiting: Vec<_> = self.waiting.iter().map(|one| one.key).collect();
        let tried = self.record.filter(|_| is_fresh);
        self.inner.cell.pick_in(tier, Excluded { keys: &waiting, tried })
    }

    /// What the readiness of an endpoint is to this request, and to its endpointer.
    fn consider(
        &mut self,
        service: S,
        lease: InFlight,
        ready: Poll<Result<(), BoxError>>,
    ) -> Option<(S, InFlight)> {
        let stats = lease.stats();
        match ready {
            Poll::Ready(Ok(())) => return Some((service, lease)),
            Poll::Ready(Err(error)) => {
                let stats = Arc::clone(stats);
                drop(lease);
                self.refused(&stats, false, error);
            }
            Poll::Pending if lease.is_shared() || stats.leave_ready(Readiness::Connecting) => {
                let connects = stats.readiness() == Readiness::Connecting;
                let (key, stats) = (stats.key, Arc::downgrade(stats));
                self.waiting.push(Waiting { service, key, stats, connects });
            }
            // Another request connects.
            Poll::Pending => {}
        }
        None
    }

    fn refused(&mut self, stats: &Stats, connects: bool, error: BoxError) {
        let failure = Failure::new(error);
        if connects {
            stats.set_readiness(Readiness::Ready);
        }
        if stats.leave_ready(Readiness::Down) {
            let refused = Signal::Refused(failure.clone(), self.poll_ready);
            self.inner.shared.signal(stats, refused);
        }
        self.error = Some(failure);
    }

    /// Has endpoints probed that are down: they may be back. One for a retry, which has others to go to.
    fn want_down(&mut self) {
        let limit = if self.is_retry() { 1 } else { MAX_WANTED };
        if self.is_retry() && !self.wanted.is_empty() {
            return;
        }
        self.wanted.clear();
        let mut keys = Vec::new();
        for _ in 0..limit {
            let excluded = Excluded { keys: &keys, tried: self.record };
            let Some((_service, lease)) = self.inner.cell.pick_in(Tier::Down, excluded) else {
                return;
            };
            let stats = lease.stats();
            keys.push(stats.key);
            self.wanted.push(Arc::downgrade(stats));
            if stats.want() {
                self.inner.shared.signal(stats, Signal::Wanted(self.poll_ready));
            }
        }
    }

    /// Whether an endpoint that was not tried may become ready within the grace.
    fn has_hope(&self) -> bool {
        let is_probed = |stats: &Weak<Stats>| stats.upgrade().is_some_and(|s| s.is_wanted());
        let is_in_time = self.begun.elapsed() < GRACE;
        is_in_time
            && (self.wanted.iter().any(is_probed) || self.inner.cell.is_any_connecting(self.record))
    }

    /// How many endpoints are waited for by now: each may cost a connection attempt, and any may be a black hole.
    fn limit(&self) -> usize {
        let n_steps = self.begun.elapsed().as_millis() / STEP.as_millis();
        2 + 2 * usize::try_from(n_steps).unwrap_or(0)
    }

    fn is_retry(&self) -> bool {
        self.record.is_some_and(|record| record.len() > 0)
    }
}

/// Connecting goes on without the request: the worker takes it over.
impl<S: Clone + Send + Sync + 'static> Drop for Search<'_, S> {
    fn drop(&mut self) {
        for one in self.waiting.drain(..).filter(|one| one.connects) {
            if let Some(stats) = one.stats.upgrade() {
                let signal = Signal::Pending(one.service, self.poll_ready);
                self.inner.shared.signal(&stats, signal);
            }
        }
    }
}

/// The first that becomes ready, or refuses; that one is taken out. Pending while there is none.
///
/// Cancel safe.
async fn first_ready<S>(
    waiting: &mut Vec<Waiting<S>>,
    poll_ready: PollReady<S>,
) -> (Waiting<S>, Arc<Stats>, Result<(), BoxError>) {
    poll_fn(|cx| {
        let mut index = 0;
        while let Some(one) = waiting.get_mut(index) {
            let Poll::Ready(ready) = poll_ready(&mut one.service, cx) else {
                index += 1;
                continue;
            };
            let one = waiting.swap_remove(index);
            // It may have left, and finished, meanwhile.
            if let Some(stats) = one.stats.upgrade() {
                return Poll::Ready((one, stats, ready));
            }
        }
        Poll::Pending
    })
    .await
}

/// Any endpoint, the worse ones when no better one is left: its readiness is not polled.
pub(super) async fn obtain_any<S: Clone + Send + Sync + 'static>(
    inner: &Inner<S>,
) -> Result<(S, InFlight), NoInstances> {
    let mut versions = inner.shared.versions();
    let found = async {
        loop {
            versions.borrow_and_update();
            let mut tiers = Tier::ALL.iter();
            if let Some(found) = tiers.find_map(|tier| inner.cell.pick_in(*tier, Excluded::NOTHING))
            {
                return Ok(found);
            }
            let none = inner.shared.why_none();
            if none.is_known() {
                return Err(none);
            }
            // The sender is in `inner`.
            let _changed = versions.changed().await;
        }
    };
    let (service, mut lease) = match timeout(inner.wait, found).await {
        Ok(found) => found?,
        Err(_elapsed) => return Err(inner.shared.why_none().waited()),
    };
    lease.begin();
    Ok((service, lease))
}

/// After each step two endpoints more are waited for.
const STEP: Duration = Duration::from_millis(100);
/// Each costs a connection attempt: of 1 000 that are down, three show as much as all.
const MAX_WANTED: usize = 3;
/// As long a retry waits for an endpoint that it has not tried, while it has tried ones to go to: a few round trips.
const GRACE: Duration = Duration::from_millis(250);
