//! The slow path: nothing to pick, or the picked endpoint is not ready.
//!
//! It owns handles, and may wait.

use std::{
    mem,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use tokio::{
    select,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::BoxError;

use super::{
    inner::{First, Inner},
    request::{Labels, Purpose, Request},
    shards::{OutOfRange, Picked},
    waiting::{Own, Waiting, first_ready, poll_now},
};
use crate::{
    Limit, NoInstances, NoInstancesReason, Overloaded, RequestScope,
    endpointer::{
        EndpointStats, Held, InFlight, Place, PollReady, Readiness, Signal, Started, Tier,
        observer::Event,
    },
    error::Failure,
};

/// A service that is ready, with its guard. Waits for one no longer than `inner.wait`.
///
/// Endpoints that are busy or connect let others be tried immediately; then the first that becomes
/// ready is taken.
pub(super) async fn obtain<S: Clone + Send + Sync + 'static>(
    inner: Arc<Inner<S>>,
    poll_ready: PollReady<S>,
    first: First<S>,
    (scope, held): (Option<RequestScope>, Option<Box<Held>>),
) -> Result<(S, InFlight), BoxError> {
    let is_behind = held.as_ref().is_some_and(|held| held.is_behind);
    let mut search = Search {
        inner: &inner,
        poll_ready,
        scope: scope.as_ref(),
        begun: Instant::now(),
        waiting: Vec::new(),
        wanted: Vec::new(),
        own: Own::NotYet,
        error: None,
        is_out_of_range: false,
        held,
        overloaded: None,
    };
    if let Some(scope) = &scope {
        let shared = Arc::clone(&inner.shared);
        scope.search(Box::new(move || shared.why_none()));
    }
    let wait = if search.is_hedge() { Duration::ZERO } else { inner.wait };
    let found = timeout(wait, async {
        if is_behind {
            // Those that were woken for a free place come first.
            yield_now().await;
        }
        search.run(first).await
    });
    let found = found.await;
    let (error, time) = (search.error.take().map(BoxError::from), search.begun.elapsed());
    let none = match found {
        Ok(Ok((service, stats, mut trace))) => {
            trace.held = search.held.take();
            if let Some(held) = &mut trace.held {
                // Its wait is over.
                held.waits = None;
            }
            // What it has waited is no latency of the endpoint.
            trace.started = trace.started.map(|_| Started::new(stats.age(Instant::now())));
            inner.observers.on(&Event::Waited { time, none: None });
            let guard = inner.begin(stats, scope.as_ref(), trace);
            return Ok((service, guard));
        }
        Ok(Err(none)) => none,
        Err(_elapsed) => inner.shared.why_none().waited(),
    };
    if let Some(scope) = &scope {
        drop(scope.give_up());
    }
    if let Some(error) = search.overloaded.take() {
        inner.observers.on(&Event::Refused { error: &error });
        return Err(error.into());
    }
    let none = match search.is_any_full(&[Tier::Ready], search.scope) || !search.waiting.is_empty()
    {
        true => none,
        false => none.of_label(scope.as_ref().and_then(RequestScope::label)),
    };
    let none = none.with_source(error).of_request(scope.as_ref().map(RequestScope::id));
    inner.observers.on(&Event::Waited { time, none: Some(&none) });
    Err(none.into())
}

struct Search<'a, S: Clone + Send + Sync + 'static> {
    inner: &'a Inner<S>,
    poll_ready: PollReady<S>,
    scope: Option<&'a RequestScope>,
    begun: Instant,
    /// Pending: busy, or connecting.
    waiting: Vec<Waiting<S>>,
    /// Down, and probed on behalf of this request.
    wanted: Vec<Weak<EndpointStats>>,
    own: Own<S>,
    /// The last refusal.
    error: Option<Failure>,
    is_out_of_range: bool,
    /// By the limits.
    held: Option<Box<Held>>,
    /// It would have to wait, and too many do.
    overloaded: Option<Overloaded>,
}

impl<S: Clone + Send + Sync + 'static> Search<'_, S> {
    async fn run(&mut self, first: First<S>) -> Result<Picked<S>, NoInstances> {
        let mut versions = self.inner.shared.versions();
        match first {
            First::Nothing => {}
            First::Ready(picked) => return Ok(picked),
            First::Pending(picked) => self.wait_for(picked),
            First::Refused(stats, error) => self.refused(&stats, false, error),
        }
        let (mut is_asked, mut is_woken, mut passed) = (false, false, 0);
        loop {
            versions.borrow_and_update();
            if let Some(found) = self.look() {
                return Ok(found);
            }
            if mem::take(&mut is_woken) {
                self.inner.shared.breaker.pass_on(&mut passed);
            }
            if self.is_out_of_range {
                return Err(NoInstances::new(NoInstancesReason::OutOfRange, None));
            }
            let none = self.inner.shared.why_none();
            if none.is_known() {
                return Err(none);
            }
            if none.reason() == NoInstancesReason::NeverSynced && !is_asked {
                self.inner.shared.subscription.refresh();
                is_asked = true;
            }
            if !self.may_wait() {
                return Err(none);
            }
            select! {
                biased;
                found = first_ready(&mut self.waiting, self.poll_ready) => {
                    let (one, stats, ready) = found;
                    match ready {
                        Ok(()) => if let Some(found) = self.placed(self.found(one, stats)) {
                            return Ok(found);
                        },
                        Err(error) => self.refused(&stats, one.connects, error),
                    }
                }
                _changed = versions.changed() => {}
                () = self.inner.shared.breaker.freed.notified() => is_woken = true,
                // Time for more endpoints, or for those that were tried.
                () = sleep(self.own.left().unwrap_or(STEP)) => {}
            }
        }
    }

    /// Whether it may wait, by the limits. A hedge does not wait.
    fn may_wait(&mut self) -> bool {
        if self.is_hedge() {
            return false;
        }
        if let Some(held) = self.held.as_mut().filter(|held| held.waits.is_none()) {
            match self.inner.shared.breaker.admit(Limit::Pending) {
                Ok(ticket) => held.waits = Some(ticket),
                Err(error) => self.overloaded = Some(error),
            }
        }
        self.overloaded.is_none()
    }

    /// It has become ready; other requests wait for that too, if it connected.
    fn found(&self, one: Waiting<S>, stats: Arc<EndpointStats>) -> Picked<S> {
        if one.connects {
            stats.set_readiness(Readiness::Ready);
            self.inner.shared.signal(&stats, Signal::Connected, self.poll_ready);
        }
        (one.service, stats, one.trace)
    }

    /// Takes a place at the endpoint; `None`: it is full.
    fn placed(&self, (service, stats, mut trace): Picked<S>) -> Option<Picked<S>> {
        trace.place = Place::take(&stats).ok()?;
        if trace.place.is_some() {
            // There may be more than one that waits.
            self.inner.shared.breaker.freed.notify_one();
        }
        Some((service, stats, trace))
    }

    /// Tries what is ready, best first; endpoints that were tried for this request come last.
    fn look(&mut self) -> Option<Picked<S>> {
        match self.own.turn(&self.inner.shards, self.scope) {
            Poll::Pending => return None,
            Poll::Ready(Some(own)) if self.waiting.iter().all(|one| one.key != own.1.key) => {
                if let Some(found) = self.attempt(own) {
                    return Some(found);
                }
            }
            Poll::Ready(_) => {}
        }
        if self.is_hedge() {
            return self.look_in(Tier::Ready, false);
        }
        for tier in FRESH {
            if tier == Tier::Ejected && self.awaits_better() {
                continue;
            }
            if let Some(found) = self.look_in(tier, false) {
                return Some(found);
            }
        }
        self.want_down(&[Tier::Down]);
        if self.has_hope() {
            return None;
        }
        let is_busy =
            self.waiting.iter().any(|one| !one.connects) || self.is_any_full(&FRESH, None);
        let found = LAST_RESORT
            .into_iter()
            .filter(|tier| !is_busy || FRESH.contains(tier))
            .find_map(|tier| self.look_in(tier, false).or_else(|| self.look_in(tier, true)));
        if found.is_none() && !is_busy {
            self.want_down(&[Tier::Draining, Tier::Ineligible]);
        }
        found
    }

    fn look_in(&mut self, tier: Tier, allows_tried: bool) -> Option<Picked<S>> {
        while self.waiting.len() < self.limit() {
            let waiting: Vec<_> = self.waiting.iter().map(|one| one.key).collect();
            let request = Request { allows_tried, excluded: &waiting, ..Request::ANY };
            let picked = self.pick_in(tier, request)?;
            if let Some(found) = self.attempt(picked) {
                return Some(found);
            }
        }
        None
    }

    fn pick_in(&mut self, tier: Tier, request: Request<'_>) -> Option<Picked<S>> {
        let mut request = Request { scope: self.scope, ..request };
        if request.is_labelled() && (self.is_hedge() || self.has_hope()) {
            request.labels = Labels::All;
        }
        let picked = self.inner.shards.pick_in(tier, &request);
        picked.inspect_err(|OutOfRange| self.is_out_of_range = true).ok().flatten()
    }

    /// Polls the readiness of one; waits for it if it is pending.
    fn attempt(&mut self, (mut service, stats, trace): Picked<S>) -> Option<Picked<S>> {
        match poll_now(|cx| (self.poll_ready)(&mut service, cx)) {
            Poll::Ready(Ok(())) => return self.placed((service, stats, trace)),
            Poll::Ready(Err(error)) => self.refused(&stats, false, error),
            Poll::Pending => self.wait_for((service, stats, trace)),
        }
        None
    }

    /// Its readiness is pending: it is busy when it has other requests in flight, and connects
    /// else.
    fn wait_for(&mut self, (service, stats, trace): Picked<S>) {
        // One is the endpoint's own, and one is this.
        let is_busy = Arc::strong_count(&stats) > 2;
        // Otherwise another request connects.
        if is_busy || stats.leave_ready(Readiness::Connecting) {
            let connects = stats.readiness() == Readiness::Connecting;
            let (key, stats) = (stats.key, Arc::downgrade(&stats));
            self.waiting.push(Waiting { service, key, stats, trace, connects });
        }
    }

    fn refused(&mut self, stats: &EndpointStats, connects: bool, error: BoxError) {
        let failure = Failure::new(error);
        if connects {
            stats.set_readiness(Readiness::Ready);
        }
        if stats.leave_ready(Readiness::Down) {
            let refused = Signal::Refused(failure.clone());
            self.inner.shared.signal(stats, refused, self.poll_ready);
        }
        self.error = Some(failure);
    }

    /// Has endpoints probed that are down: they may be back. One for a retry, which has others to
    /// go to.
    fn want_down(&mut self, tiers: &[Tier]) {
        let limit = if self.is_retry() { 1 } else { MAX_WANTED };
        if self.is_retry() && !self.wanted.is_empty() {
            return;
        }
        self.wanted.clear();
        let mut keys = Vec::new();
        for _ in 0..limit {
            let down = Request { purpose: Purpose::Down, excluded: &keys, ..Request::ANY };
            let picked = tiers.iter().find_map(|tier| self.pick_in(*tier, down));
            let Some((_, stats, _)) = picked else {
                return;
            };
            keys.push(stats.key);
            if stats.want() {
                self.inner.shared.signal(&stats, Signal::Wanted, self.poll_ready);
            }
            self.wanted.push(Arc::downgrade(&stats));
        }
    }

    /// Whether an endpoint that was not tried may become ready within the grace.
    fn has_hope(&self) -> bool {
        let is_probed =
            |stats: &Weak<EndpointStats>| stats.upgrade().is_some_and(|s| s.is_wanted());
        self.begun.elapsed() < GRACE
            && (!self.waiting.is_empty()
                || self.wanted.iter().any(is_probed)
                || self.is_any_full(&[Tier::Ready], self.scope)
                || self.is_any_connecting(&Tier::ALL))
    }

    /// Whether there may be better ones than those that are ejected.
    ///
    /// A retry has those of the best tier to go to that were tried; within the grace, one of them
    /// may be ready that is busy or connects.
    fn awaits_better(&self) -> bool {
        (self.is_retry() && self.inner.shards.is_any_in(Tier::Ready))
            || (self.begun.elapsed() < GRACE
                && (self.waiting.iter().any(|one| one.trace.tier == Tier::Ready)
                    || self.is_any_full(&[Tier::Ready], self.scope)
                    || self.is_any_connecting(&[Tier::Ready])))
    }

    fn is_any_full(&self, tiers: &[Tier], scope: Option<&RequestScope>) -> bool {
        self.inner.shards.any(tiers, scope, EndpointStats::is_full)
    }

    fn is_any_connecting(&self, tiers: &[Tier]) -> bool {
        let connects = |stats: &EndpointStats| stats.readiness() == Readiness::Connecting;
        self.inner.shards.any(tiers, self.scope, connects)
    }

    /// How many endpoints are waited for by now: each may cost a connection attempt, and any may be
    /// a black hole.
    fn limit(&self) -> usize {
        let n_steps = self.begun.elapsed().as_millis() / STEP.as_millis();
        2 + 2 * usize::try_from(n_steps).unwrap_or(0)
    }

    /// Whether it takes no endpoint but a good one that was not tried, and does not wait for it.
    fn is_hedge(&self) -> bool {
        self.scope.is_some_and(RequestScope::is_hedge)
    }

    fn is_retry(&self) -> bool {
        self.scope.is_some_and(|scope| scope.n_tried() > 0)
    }
}

/// Connecting goes on without the request: the worker takes it over.
impl<S: Clone + Send + Sync + 'static> Drop for Search<'_, S> {
    fn drop(&mut self) {
        for one in self.waiting.drain(..).filter(|one| one.connects) {
            if let Some(stats) = one.stats.upgrade() {
                let pending = Signal::Pending(one.service);
                self.inner.shared.signal(&stats, pending, self.poll_ready);
            }
        }
    }
}

/// After each step two endpoints more are waited for.
const STEP: Duration = Duration::from_millis(100);
/// Each costs a connection attempt: of 1 000 that are down, three show as much as all.
const MAX_WANTED: usize = 3;
/// How long a retry prefers waiting for an endpoint that it has not tried to one that it has.
///
/// Any request prefers waiting for a good one to an ejected one as long: a few round trips.
const GRACE: Duration = Duration::from_millis(250);
/// In this order, those that were not tried for the request.
const FRESH: [Tier; 3] = [Tier::Ready, Tier::Ejected, Tier::Held];
/// Then those that were tried, too, and at last those that are better than nothing.
const LAST_RESORT: [Tier; 5] =
    [Tier::Ready, Tier::Ejected, Tier::Held, Tier::Draining, Tier::Ineligible];
