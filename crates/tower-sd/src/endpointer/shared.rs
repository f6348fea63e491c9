use std::{
    fmt, mem,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tower_sd_core::{BoxError, InstanceId, Stop, Subscription, Tasks};

use super::{
    Draining, Endpoint, EndpointerConfig, Tiers,
    state::{State, Todo, is_fit},
};
use crate::{
    NoInstances, NoInstancesReason,
    balance::Cell,
    sync::{Mutex, MutexGuard},
};

/// What all handles of one endpointer share: the state, and whoever has to learn of its changes.
pub(crate) struct Shared<S: 'static> {
    state: Mutex<State<S>>,
    cells: Mutex<Vec<Weak<Cell<S>>>>,
    /// Grows with every change of what can be picked.
    version: watch::Sender<u64>,
    /// Tells the updating task that there is a new deadline.
    pub(super) wake: Arc<Notify>,
    pub(super) subscription: Subscription,
    config: EndpointerConfig,
    tasks: Tasks,
    /// One token for each endpoint that drains.
    draining: TaskTracker,
}

impl<S: Clone + Send + Sync + 'static> Shared<S> {
    pub(super) fn new(subscription: Subscription, config: EndpointerConfig) -> Self {
        Self {
            state: Mutex::default(),
            cells: Mutex::default(),
            version: watch::Sender::new(0),
            wake: Arc::default(),
            subscription,
            config,
            tasks: Tasks::new(),
            draining: TaskTracker::new(),
        }
    }

    /// Changes the state, tells the balancers, and lets those that have left drain; what is left to be done.
    pub(super) fn update(&self, change: impl FnOnce(&mut State<S>) -> Todo<S>) -> Todo<S> {
        let mut state = self.state();
        let mut todo = change(&mut state);
        if todo.changed {
            self.publish(&state.tiers);
        }
        let gone = mem::take(&mut todo.gone);
        let until = Instant::now() + self.config.drain;
        state.draining.retain(|left| left.in_flight() > 0);
        for endpoint in &gone {
            state.draining.push(Draining::new(endpoint, until));
            // Before another change can ask for it back.
            endpoint.park(self.draining.token());
        }
        drop(state);
        if !gone.is_empty() {
            self.wake.notify_one();
        }
        todo
    }

    /// Attaches a balancer: it gets the set as it is, and every later one.
    pub(crate) fn attach(&self, cell: &Arc<Cell<S>>) {
        let state = self.state();
        cell.store(&state.tiers);
        self.cells().push(Arc::downgrade(cell));
    }

    pub(crate) fn connected(&self, id: &InstanceId, key: u64) {
        drop(self.update(|state| state.connected(id, key)));
    }

    /// A connection was refused; `true` when the endpoint has just become down, and somebody has to reconnect.
    pub(crate) fn refused(&self, id: &InstanceId, key: u64, error: BoxError) -> bool {
        tracing::debug!(instance = %id, %error, "connection refused");
        let mut newly_down = false;
        drop(self.update(|state| {
            let (todo, newly) = state.refused(id, key, error);
            newly_down = newly;
            todo
        }));
        self.subscription.refresh();
        newly_down
    }

    pub(super) fn failed(&self, id: &InstanceId, making: u64, error: BoxError) {
        tracing::debug!(instance = %id, %error, "no endpoint could be made");
        self.state().failed(id, making, error);
    }

    /// The endpoint with that key, if it is a member still.
    pub(crate) fn endpoint(&self, id: &InstanceId, key: u64) -> Option<Arc<Endpoint<S>>> {
        let state = self.state();
        let endpoint = state.members.get(id)?.endpoint.as_ref()?;
        (endpoint.stats.key == key).then(|| Arc::clone(endpoint))
    }

    /// Everybody who is listed and wants requests; while nobody is listed, those that are held.
    pub(super) fn pickable(&self) -> Vec<Arc<Endpoint<S>>> {
        let state = self.state();
        let tiers = &state.tiers;
        match tiers.ready.len() == 0 && tiers.down.is_empty() {
            true => tiers.held.to_vec(),
            false => tiers.ready.iter().chain(tiers.down.iter()).cloned().collect(),
        }
    }

    /// Waits until something can be picked that is not known to be down.
    pub(super) async fn ready(&self, bound: Duration) -> Result<(), NoInstances> {
        let mut version = self.version.subscribe();
        let usable = async {
            loop {
                version.borrow_and_update();
                {
                    let state = self.state();
                    if state.tiers.ready.len() > 0 || !state.tiers.held.is_empty() || state.closed {
                        return;
                    }
                }
                // The sender is in `self`.
                let _changed = version.changed().await;
            }
        };
        match timeout(bound, usable).await {
            Ok(()) if !self.state().closed => Ok(()),
            Ok(()) | Err(_) => Err(self.why_none().1),
        }
    }

    /// Whether it is known that there is nobody, so that waiting is of no use; and why there is nobody.
    pub(crate) fn why_none(&self) -> (bool, NoInstances) {
        let state = self.state();
        let Some(snapshot) = state.snapshot.as_ref().filter(|_| !state.closed) else {
            let reason = match state.closed {
                true => NoInstancesReason::Closed,
                false => NoInstancesReason::NeverSynced,
            };
            return (state.closed, NoInstances::new(reason, None));
        };
        let trouble = snapshot.freshness().error().cloned().map(BoxError::from);
        if !snapshot.freshness().is_synced() {
            return (false, NoInstances::new(NoInstancesReason::NeverSynced, trouble));
        }
        if state.members.is_empty() {
            return (true, NoInstances::new(NoInstancesReason::Empty, trouble));
        }
        if !state.members.values().any(|member| is_fit(&member.instance)) {
            return (true, NoInstances::new(NoInstancesReason::Unfit, trouble));
        }
        let error = state.members.values().find_map(|member| member.error.clone());
        let source = error.map(|error| BoxError::from(error.to_string()));
        (false, NoInstances::new(NoInstancesReason::NotReady, source.or(trouble)))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.state().draining.iter().map(|left| left.until).min()
    }

    /// Takes the services of those that have not finished in time.
    pub(super) fn give_up(&self, due: Instant) {
        let expired: Vec<_> =
            self.state().draining.extract_if(.., |left| left.until <= due).collect();
        for left in expired {
            let in_flight = left.give_up::<S>();
            if in_flight > 0 {
                tracing::warn!(instance = %left.instance.id(), in_flight, "not drained in time");
            }
        }
    }

    pub(super) async fn close(&self) {
        drop(self.update(State::close));
        self.tasks.close().await;
        self.draining.close();
        if timeout(self.config.drain, self.draining.wait()).await.is_err() {
            self.give_up(Instant::now());
        }
    }

    pub(super) fn republish(&self, id: &InstanceId) {
        drop(self.update(|state| state.replace(id)));
    }

    pub(crate) fn config(&self) -> &EndpointerConfig {
        &self.config
    }

    pub(crate) fn spawn<F>(&self, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, tiers: &Tiers<S>) {
        self.cells().retain(|cell| match cell.upgrade() {
            Some(cell) => {
                cell.store(tiers);
                true
            }
            None => false,
        });
        self.version.send_modify(|version| *version += 1);
    }

    fn cells(&self) -> MutexGuard<'_, Vec<Weak<Cell<S>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: 'static> Drop for Shared<S> {
    /// Nobody is left who could ask for more: requests in flight do not keep services open.
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
