use std::{
    collections::HashMap,
    future::poll_fn,
    iter, mem,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Weak},
};

use futures_util::FutureExt;
use tokio::{
    select,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tower_sd_core::{BoxError, Instance, InstanceId, Shutdown, Subscription, chain};
use tracing::Instrument;

use super::{
    ActiveCheck, EndpointerConfig, Factory, InFlight, Shared,
    contain::contain,
    signal::{Created, Make, Probe, Unready},
    state::Event,
};
use crate::error::Failure;

/// Applies what the registry, the runs and the requests bring, while no request flows too.
///
/// It owns no service: with the last handle they are all dropped, whatever this task is doing.
pub(super) async fn work<F: Factory>(
    shared: Weak<Shared<F::Service>>,
    mut subscription: Subscription,
    mut runs: Runs<F>,
    stop: Shutdown,
) {
    let Some(wake) = shared.upgrade().map(|shared| Arc::clone(&shared.wake)) else {
        return;
    };
    let mut following = true;
    let mut event = Some(Event::Snapshot(subscription.snapshot()));
    while let Some(deadline) = step(&shared, &mut runs, event.take()) {
        event = select! {
            biased;
            () = stop.requested() => break,
            changed = subscription.changed(), if following => match changed {
                Ok(snapshot) => Some(Event::Snapshot(snapshot)),
                // Its loop was closed: the set stays what it is.
                Err(_) => {
                    following = false;
                    None
                }
            },
            // An error: it was stopped. Panics are caught inside.
            Some(ended) = runs.running.join_next() => ended.ok(),
            () = wake.notified() => None,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => None,
        };
    }
    runs.running.shutdown().await;
}

/// The next deadline. `None`: no handle is left.
fn step<F: Factory>(
    shared: &Weak<Shared<F::Service>>,
    runs: &mut Runs<F>,
    event: Option<Event<F::Service>>,
) -> Option<Option<Instant>> {
    let shared = shared.upgrade()?;
    let ended = iter::from_fn(|| runs.running.try_join_next()).flatten().collect::<Vec<_>>();
    let mut effects = shared.apply(event.into_iter().chain(ended));
    effects.stop.iter().for_each(|id| runs.stop(id));
    mem::take(&mut effects.make).into_iter().for_each(|make| runs.make(make));
    mem::take(&mut effects.probe).into_iter().for_each(|probe| runs.probe(probe));
    contain("drop of a service", || drop(effects));
    Some(shared.state().next_deadline())
}

/// The runs of the factory and the probes: concurrent, one of each per instance.
pub(super) struct Runs<F: Factory> {
    factory: Arc<F>,
    config: EndpointerConfig,
    permits: Arc<Semaphore>,
    running: JoinSet<Event<F::Service>>,
    handles: HashMap<(InstanceId, Kind), AbortHandle>,
}

#[derive(Eq, Hash, PartialEq)]
enum Kind {
    Make,
    Probe,
}

impl<F: Factory> Runs<F> {
    pub(super) fn new(factory: F, config: EndpointerConfig) -> Self {
        let n_permits = config.max_concurrent_creations.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            factory: Arc::new(factory),
            permits: Arc::new(Semaphore::new(n_permits)),
            config,
            running: JoinSet::new(),
            handles: HashMap::new(),
        }
    }

    fn make(&mut self, make: Make) {
        let (factory, permits) = (Arc::clone(&self.factory), Arc::clone(&self.permits));
        let bound = self.config.create_timeout;
        let id = make.instance.id().clone();
        let key = (id.clone(), Kind::Make);
        let made = async move {
            let once = async move {
                let _permit = permits.acquire().await?;
                timeout(bound, create(&*factory, make.instance)).await?
            };
            // Its drop may panic too.
            let once = AssertUnwindSafe(once).catch_unwind();
            let panicked = |_| Err(BoxError::from("the factory panicked"));
            let result = once.await.unwrap_or_else(panicked);
            if let Err(error) = &result {
                tracing::debug!(instance = %id, error = %chain(&**error), "factory failed");
            }
            Event::Created { id, run: make.run, result }
        };
        self.begin(key, made);
    }

    fn probe(&mut self, probe: Probe<F::Service>) {
        let bound = self.config.connect_timeout;
        let Probe { id, key, mut service, poll_ready } = probe;
        let run = (id.clone(), Kind::Probe);
        let probed = async move {
            let ready = async move {
                match timeout(bound, poll_fn(|cx| poll_ready(&mut service, cx))).await {
                    Ok(ready) => ready.map_err(|error| Unready::Refused(Failure::new(error))),
                    Err(_elapsed) => Err(Unready::Late(bound)),
                }
            };
            let panicked = |_| Err(Unready::Refused(Failure::new("the service panicked".into())));
            let result = AssertUnwindSafe(ready).catch_unwind().await.unwrap_or_else(panicked);
            Event::Probed { id, key, result }
        };
        self.begin(run, probed);
    }

    fn stop(&mut self, id: &InstanceId) {
        for kind in [Kind::Make, Kind::Probe] {
            if let Some(handle) = self.handles.remove(&(id.clone(), kind)) {
                handle.abort();
            }
        }
    }

    /// A later run of one kind takes the place of an earlier one.
    fn begin(
        &mut self,
        key: (InstanceId, Kind),
        run: impl Future<Output = Event<F::Service>> + Send + 'static,
    ) {
        let handle = self.running.spawn(run.in_current_span());
        if let Some(before) = self.handles.insert(key, handle) {
            before.abort();
        }
    }
}

async fn create<F: Factory>(
    factory: &F,
    instance: Instance,
) -> Result<Created<F::Service>, BoxError> {
    // What it does before its first await belongs to it as well.
    let making = async move { factory.make(instance).await };
    let (mut making, mut takes_guards, mut check) = (pin!(making), false, None);
    let made = poll_fn(|cx| {
        let poll = || InFlight::enables(|| making.as_mut().poll(cx));
        let ((polled, enables), begun) = ActiveCheck::collect(poll);
        takes_guards |= enables;
        check = begun.or_else(|| check.take());
        polled
    });
    let service = made.await?;
    Ok(Created { service, takes_guards, check })
}
