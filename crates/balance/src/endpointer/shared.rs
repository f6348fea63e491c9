use std::{
    error::Error,
    fmt, mem,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tower_sd_core::{BoxError, InstanceId, Shutdown, Subscription, TaskGroup};

use super::{
    Breaker, EndpointStats, EndpointerConfig, Readiness, Signal, Subscriber, Tier,
    contain::contain,
    drain::Draining,
    ejection::Judge,
    life::Life,
    observer::{Event as Observed, Observers},
    state::{Change, Effects, Event, State},
};
use crate::{
    error::{Failure, NoInstances, NoInstancesReason},
    sync::{Mutex, MutexGuard},
};

/// What all handles of one endpointer share: the state, and the consumers of its changes.
pub(crate) struct Shared<S: 'static> {
    state: Mutex<State<S>>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber<S>>>>,
    /// Signals on their way to the worker; few, because each endpoint has two at most.
    signals: Mutex<Vec<Event<S>>>,
    wake: Arc<Notify>,
    /// Grows with every change that waiting requests have to see.
    version: watch::Sender<u64>,
    subscription: Subscription,
    config: EndpointerConfig,
    observers: Observers,
    breaker: Arc<Breaker>,
    tasks: TaskGroup,
    /// One token for each endpoint that drains.
    draining: TaskTracker,
}

impl<S: Clone + Send + Sync + 'static> Shared<S> {
    pub(super) fn new(subscription: Subscription, config: EndpointerConfig) -> Self {
        let wake = Arc::<Notify>::default();
        let breaker = Arc::new(Breaker::new(config.limits));
        let judge = Judge::new(config.ejection, Arc::clone(&breaker), Arc::clone(&wake));
        let judge = Arc::new(judge);
        Self {
            state: Mutex::new(State::new(config.clone(), judge)),
            subscribers: Mutex::default(),
            signals: Mutex::default(),
            wake,
            version: watch::Sender::new(0),
            subscription,
            observers: Observers::of(config.observers.iter().cloned()),
            config,
            breaker,
            tasks: TaskGroup::new(),
            draining: TaskTracker::new(),
        }
    }

    /// Applies `events` and the signals of requests, publishes once, and returns what is left to be
    /// done.
    pub(super) fn apply(&self, events: impl Iterator<Item = Event<S>>) -> Effects<S> {
        let now = Instant::now();
        let mut effects = Effects::default();
        let signals = mem::take(&mut *self.signals.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.state();
        for event in events.chain(signals) {
            contain("change of the set", || state.on(event, now, &mut effects));
        }
        contain("judgement", || state.judge(now, &mut effects));
        // Whatever has woken the worker, so that signals without a pause postpone no deadline.
        contain("deadline", || state.expire(now, &mut effects));
        state.draining.retain(|left| left.in_flight() > 0);
        let until = now.checked_add(self.config.drain_timeout);
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
            contain("drop of a service", || self.give_up(&left));
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
    pub(crate) fn signal(&self, stats: &EndpointStats, signal: Signal<S>) {
        let event = Event::Signal { id: stats.id.clone(), key: stats.key, signal };
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
        let usable = async {
            loop {
                version.borrow_and_update();
                {
                    let state = self.state();
                    let is_usable = |tier| state.tiers.get(tier).len() > 0;
                    if is_usable(Tier::Ready)
                        || is_usable(Tier::Ejected)
                        || is_usable(Tier::Held)
                        || state.closed
                    {
                        return;
                    }
                }
                // The sender is in `self`.
                let _changed = version.changed().await;
            }
        };
        match timeout(bound, usable).await {
            Ok(()) if !self.state().closed => Ok(()),
            Ok(()) | Err(_) => Err(self.why_none()),
        }
    }

    /// Why a request finds no endpoint now.
    pub(crate) fn why_none(&self) -> NoInstances {
        let state = self.state();
        let Some(snapshot) = state.snapshot.as_ref().filter(|_| !state.closed) else {
            let reason = match state.closed {
                true => NoInstancesReason::Closed,
                false => NoInstancesReason::NeverSynced,
            };
            return NoInstances::new(reason, None);
        };
        let trouble = snapshot.freshness().error().cloned().map(BoxError::from);
        if !snapshot.freshness().is_synced() {
            return NoInstances::new(NoInstancesReason::NeverSynced, trouble);
        }
        let mut members = state.members.values();
        if members.len() == 0 {
            return NoInstances::new(NoInstancesReason::Empty, trouble);
        }
        if !members.clone().any(|member| member.instance.weight() > 0) {
            return NoInstances::new(NoInstancesReason::Ineligible, trouble);
        }
        let mut endpoints = members.clone().filter_map(|member| member.endpoint.as_ref());
        let reason = match endpoints.clone().count() {
            0 => NoInstancesReason::NotReady,
            _ if endpoints.any(|endpoint| endpoint.is(Readiness::Ready)) => NoInstancesReason::Busy,
            _ => NoInstancesReason::Refused,
        };
        let failure = members.find_map(|member| member.error.clone());
        NoInstances::new(reason, failure.map(BoxError::from).or(trouble))
    }

    pub(super) async fn close(&self) {
        drop(self.apply([Event::Close].into_iter()));
        self.tasks.close().await;
        self.draining.close();
        if timeout(self.config.drain_timeout, self.draining.wait()).await.is_err() {
            let left = mem::take(&mut self.state().draining);
            left.iter().for_each(|left| self.give_up(left));
        }
    }

    pub(super) fn republish(&self, id: &InstanceId) {
        drop(self.apply([Event::Replace(id.clone())].into_iter()));
    }

    /// Requests a new read of the registry; its loop limits the rate.
    pub(crate) fn refresh(&self) {
        self.subscription.refresh();
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.observers
    }

    pub(crate) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    pub(super) fn spawn<F>(&self, task: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.state().next_deadline()
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

    /// Takes the service of one that has not finished in time.
    #[expect(clippy::unused_self, reason = "names the type of the service")]
    fn give_up(&self, left: &Draining) {
        let in_flight = left.give_up::<S>();
        if in_flight > 0 {
            tracing::warn!(instance = %left.instance.id(), in_flight, "not drained in time");
        }
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

    fn subscribers(&self) -> MutexGuard<'_, Vec<Weak<dyn Subscriber<S>>>> {
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

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}
