use std::{
    collections::HashMap,
    future::{self, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
};

use futures_util::FutureExt;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tower_sd_core::{BoxError, Instance, InstanceId, chain};

use super::{
    ActiveCheck, EndpointerConfig, Factory, InFlight,
    signal::{Created, Make, Probe, Unready},
    state::Event,
};
use crate::error::Failure;

/// The runs of the factory and the probes: concurrent, one of each per instance.
#[derive(Debug)]
pub(super) struct Factories<F: Factory> {
    factory: Arc<F>,
    config: EndpointerConfig,
    permits: Arc<Semaphore>,
    running: JoinSet<Event<F::Service>>,
    handles: HashMap<(InstanceId, Kind), AbortHandle>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Make,
    Probe,
}

impl<F: Factory> Factories<F> {
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

    pub(super) fn make(&mut self, make: Make) {
        let (factory, permits) = (Arc::clone(&self.factory), Arc::clone(&self.permits));
        let bound = self.config.create_timeout;
        let id = make.instance.id().clone();
        let key = (id.clone(), Kind::Make);
        let handle = self.running.spawn(async move {
            let once = async move {
                let _permit = permits.acquire().await?;
                timeout(bound, create(&*factory, make.instance)).await?
            };
            // Its drop may panic too.
            let result: Result<Created<F::Service>, BoxError> =
                match AssertUnwindSafe(once).catch_unwind().await {
                    Ok(made) => made,
                    Err(_panic) => Err("the factory panicked".into()),
                };
            if let Err(error) = &result {
                tracing::debug!(instance = %id, error = %chain(&**error), "factory failed");
            }
            Event::Created { id, run: make.run, result }
        });
        self.begun(key, handle);
    }

    pub(super) fn probe(&mut self, probe: Probe<F::Service>) {
        let bound = self.config.connect_timeout;
        let Probe { id, key, mut service, poll_ready } = probe;
        let run = (id.clone(), Kind::Probe);
        let handle = self.running.spawn(async move {
            let ready = async move {
                match timeout(bound, poll_fn(|cx| poll_ready(&mut service, cx))).await {
                    Ok(ready) => ready.map_err(|error| Unready::Refused(Failure::new(error))),
                    Err(_elapsed) => Err(Unready::Late(bound)),
                }
            };
            let result = match AssertUnwindSafe(ready).catch_unwind().await {
                Ok(result) => result,
                Err(_panic) => Err(Unready::Refused(Failure::new("the service panicked".into()))),
            };
            Event::Probed { id, key, result }
        });
        self.begun(run, handle);
    }

    pub(super) fn stop(&mut self, id: &InstanceId) {
        for kind in [Kind::Make, Kind::Probe] {
            if let Some(handle) = self.handles.remove(&(id.clone(), kind)) {
                handle.abort();
            }
        }
    }

    /// The next end of a run; pending while there is none.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Event<F::Service> {
        loop {
            match self.running.join_next().await {
                Some(Ok(event)) => return event,
                // Stopped: panics are caught inside.
                Some(Err(_)) => {}
                None => future::pending().await,
            }
        }
    }

    /// Another run that has ended already.
    pub(super) fn another(&mut self) -> Option<Event<F::Service>> {
        self.running.try_join_next()?.ok()
    }

    pub(super) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }

    /// A later run of one kind takes the place of an earlier one.
    fn begun(&mut self, key: (InstanceId, Kind), handle: AbortHandle) {
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
