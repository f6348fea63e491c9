use std::{
    error::Error,
    mem,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tower_sd_core::{BoxError, Freshness, Snapshot, Subscription, TaskGroup};

use super::{
    EndpointStats, EndpointerConfig, PollReady, Readiness, Signal, Subscriber, Tier,
    contain::contain,
    drain::Draining,
    ejection::Judge,
    life::Life,
    observer::{Event as Observed, Observers},
    state::{Change, Effects, Event, Member, State},
};
use crate::{
    error::{Failure, NoInstances, NoInstancesReason},
    limits::Breaker,
    sync::{Mutex, MutexGuard},
};

/// What all handles of one endpointer share: the state, and the consumers of its changes.
pub(crate) struct Shared<S: 'static> {
    state: Mutex<State<S>>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber<S>>>>,
    /// Signals on their way to the worker; few, because each endpoint has two at most.
    signals: Mutex<Vec<Event<S>>>,
    pub(super) wake: Arc<Notify>,
    /// Grows with every change that waiting requests have to see.
    version: watch::Sender<u64>,
    pub(crate) subscription: Subscription,
    config: EndpointerConfig,
    pub(crate) observers: Observers,
    pub(crate) breaker: Arc<Breaker>,
    pub(super) tasks: TaskGroup,
    /// One token for each endpoint that drains.
    draining: TaskTracker,
}

impl<S: Clone + Send + Sync + 'static> Shared<S> {
    pub(super) fn new(subscription: Subscription, config: EndpointerConfig) -> Self {
        let wake = Arc::<Notify>::default();
        let breaker = Arc::new(Breaker::new(config.limits));
        let (of, bounded_by) = (subscription.service(), Arc::clone(&breaker));
        let judge = Arc::new(Judge::new(of, config.ejection, bounded_by, Arc::clone(&wake)));
        Self {
            state: Mutex::new(State::new(config.clone(), judge)),
            subscribers: Mutex::default(),
            signals: Mutex::default(),
            wake,
            version: watch::Sender::new(0),
            subscription,
            observers: config.observers.clone(),
            config,
            breaker,
            tasks: TaskGroup::new(),
            draining: TaskTracker::new(),
        }
    }

    /// Applies `events` and the signals of requests, publishes once, and returns what is left to be
    /// done.
    pub(super) fn apply(&self, events: impl Iterator<Item = Event<S>>) -> Effects<S> {
        let signals = mem::take(&mut *self.signals.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.state();
        state.now = Instant::now();
        for event in events.chain(signals) {
            contain("change of the set", || state.on(event));
        }
        contain("judgement", || state.judge());
        // Whatever has woken the worker, so that signals without a pause postpone no deadline.
        contain("deadline", || state.expire());
        state.draining.retain(|left| left.in_flight() > 0);
        let mut effects = mem::take(&mut state.effects);
        let until = state.now.checked_add(self.config.drain_timeout);
        for endpoint in &effects.gone {
            state.draining.push(Draining::new(endpoint, until));
            // Before another change can need it again.
            contain("clone of a service", || endpoint.park(self.draining.token()));
        }
        let panic = state.enter_panic();
        drop(state);
        match panic {
            Some(true) => tracing::warn!("no other endpoint is usable: ejected ones get requests"),
            Some(false) => tracing::info!("ejected endpoints get no more requests"),
            None => {}
        }
        for left in mem::take(&mut effects.expired) {
            contain("drop of a service", || give_up::<S>(&left));
        }
        if effects.publish {
            self.publish();
        }
        if effects.publish || effects.wake {
            self.version.send_modify(|version| *version += 1);
        }
        if effects.refresh {
            self.subscription.refresh();
        }
        mem::take(&mut effects.changes).into_iter().for_each(|change| self.observe(change));
        effects
    }

    /// Reports what a request has found out to the worker.
    pub(crate) fn signal(
        &self,
        stats: &EndpointStats,
        signal: Signal<S>,
        poll_ready: PollReady<S>,
    ) {
        let event = Event::Signal { id: stats.id.clone(), key: stats.key, signal, poll_ready };
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.wake.notify_one();
    }

    /// Attaches a balancer: it gets the set as it is, and every later one.
    pub(crate) fn attach(&self, subscriber: &Arc<impl Subscriber<S> + 'static>) {
        let mut subscribers = self.subscribers();
        let tiers = self.state().tiers.clone();
        subscriber.publish(&tiers);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        let subscriber: Weak<dyn Subscriber<S>> = Arc::downgrade(subscriber) as Weak<_>;
        subscribers.push(subscriber);
    }

    /// Waits until there is an endpoint that is not known to be down.
    pub(super) async fn ready(&self, bound: Duration) -> Result<(), NoInstances> {
        let mut version = self.version.subscribe();
        let is_over = |_: &u64| {
            let state = self.state();
            let has_any = |tier| state.tiers.get(tier).len() > 0;
            state.closed || [Tier::Ready, Tier::Ejected, Tier::Held].into_iter().any(has_any)
        };
        let is_over = timeout(bound, version.wait_for(is_over)).await.is_ok();
        match is_over && !self.state().closed {
            true => Ok(()),
            false => Err(self.why_none()),
        }
    }

    /// Why a request finds no endpoint now.
    pub(crate) fn why_none(&self) -> NoInstances {
        let state = self.state();
        if state.closed {
            return NoInstances::new(NoInstancesReason::Closed, None);
        }
        let freshness = state.snapshot.as_ref().map(Snapshot::freshness);
        let trouble = freshness.and_then(Freshness::error).cloned().map(BoxError::from);
        if !freshness.is_some_and(Freshness::is_synced) {
            return NoInstances::new(NoInstancesReason::NeverSynced, trouble);
        }
        let members = state.members.values();
        if members.len() == 0 {
            return NoInstances::new(NoInstancesReason::Empty, trouble);
        }
        if !members.clone().any(|member| member.instance.weight() > 0) {
            return NoInstances::new(NoInstancesReason::Ineligible, trouble);
        }
        let endpoints = members.clone().filter_map(|member| member.endpoint.as_ref());
        let is_any = |readiness| endpoints.clone().any(|endpoint| endpoint.is(readiness));
        let failure = members.clone().find_map(|member| member.error.clone());
        // One that connects may be probed after a failure.
        let connecting = |it: &&Member<S>| {
            it.endpoint.as_ref().is_some_and(|endpoint| endpoint.is(Readiness::Connecting))
        };
        let has_failed = members.clone().filter(connecting).any(|it| it.error.is_some());
        let reason = match is_any(Readiness::Ready) {
            true => NoInstancesReason::Busy,
            false if has_failed || is_any(Readiness::Down) => NoInstancesReason::Refused,
            false => NoInstancesReason::NotReady,
        };
        NoInstances::new(reason, failure.map(BoxError::from).or(trouble))
    }

    pub(super) async fn close(&self) {
        drop(self.apply([Event::Close].into_iter()));
        self.tasks.close().await;
        self.draining.close();
        if timeout(self.config.drain_timeout, self.draining.wait()).await.is_err() {
            let left = mem::take(&mut self.state().draining);
            left.iter().for_each(give_up::<S>);
        }
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, Change { stats, from, to }: Change) {
        let Life { state: to, why, .. } = to;
        let (instance, error) = (&stats.id, why.as_ref().map(Failure::shown));
        tracing::debug!(%instance, %from, %to, error, "endpoint changed its state");
        let why = why.as_ref().map(|why| -> &(dyn Error + 'static) { why });
        let observe = || self.observers.on(&Observed::State { endpoint: &stats, from, to, why });
        contain("observer", observe);
    }

    /// Always with the newest set, whichever thread publishes: the lock of the subscribers comes
    /// first.
    fn publish(&self) {
        let mut subscribers = self.subscribers();
        let tiers = self.state().tiers.clone();
        subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(subscriber) => {
                contain("balancer", || subscriber.publish(&tiers));
                true
            }
            None => false,
        });
    }

    pub(super) fn subscribers(&self) -> MutexGuard<'_, Vec<Weak<dyn Subscriber<S>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: 'static> Drop for Shared<S> {
    /// No handle is left that could send more: requests in flight do not keep services open.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for left in &state.draining {
            left.give_up::<S>();
        }
    }
}

/// Takes the service of one that has not finished in time.
fn give_up<S: 'static>(left: &Draining) {
    let in_flight = left.give_up::<S>();
    if in_flight > 0 {
        tracing::warn!(instance = %left.instance.id(), in_flight, "not drained in time");
    }
}
