use std::{
    collections::HashMap,
    future,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
};

use futures_util::FutureExt;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tower_sd_core::{Backoff, BoxError, InstanceId};

use super::{EndpointerConfig, Factory, shared::Shared, state::Make};

/// Runs factories: some at once, each again until it succeeds or its instance leaves.
#[derive(Debug)]
pub(super) struct Making<F: Factory> {
    factory: Arc<F>,
    shared: Weak<Shared<F::Service>>,
    config: EndpointerConfig,
    permits: Arc<Semaphore>,
    runs: JoinSet<Made<F::Service>>,
    handles: HashMap<InstanceId, (u64, AbortHandle)>,
}

pub(super) struct Made<S> {
    pub(super) id: InstanceId,
    pub(super) making: u64,
    pub(super) service: S,
}

impl<F: Factory> Making<F> {
    pub(super) fn new(
        factory: F,
        shared: Weak<Shared<F::Service>>,
        config: EndpointerConfig,
    ) -> Self {
        Self {
            factory: Arc::new(factory),
            shared,
            permits: Arc::new(Semaphore::new(config.max_making.max(1))),
            config,
            runs: JoinSet::new(),
            handles: HashMap::new(),
        }
    }

    pub(super) fn start(&mut self, make: Make) {
        let run = Run {
            factory: Arc::clone(&self.factory),
            shared: Weak::clone(&self.shared),
            permits: Arc::clone(&self.permits),
            config: self.config.clone(),
            make,
        };
        let (id, making) = (run.make.instance.id().clone(), run.make.making);
        let handle = self.runs.spawn(run.until_made());
        self.handles.insert(id, (making, handle));
    }

    pub(super) fn stop(&mut self, id: &InstanceId) {
        if let Some((_, handle)) = self.handles.remove(id) {
            handle.abort();
        }
    }

    /// The next that is made; pending while there is none.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Made<F::Service> {
        loop {
            match self.runs.join_next().await {
                Some(Ok(made)) => return self.forget(made),
                // Stopped: a factory's panic is caught inside.
                Some(Err(_)) => {}
                None => future::pending().await,
            }
        }
    }

    /// Another that is made already.
    pub(super) fn another(&mut self) -> Option<Made<F::Service>> {
        let made = self.runs.try_join_next()?.ok()?;
        Some(self.forget(made))
    }

    pub(super) async fn shutdown(&mut self) {
        self.runs.shutdown().await;
    }

    fn forget(&mut self, made: Made<F::Service>) -> Made<F::Service> {
        if self.handles.get(&made.id).is_some_and(|(making, _)| *making == made.making) {
            self.handles.remove(&made.id);
        }
        made
    }
}

struct Run<F: Factory> {
    factory: Arc<F>,
    shared: Weak<Shared<F::Service>>,
    permits: Arc<Semaphore>,
    config: EndpointerConfig,
    make: Make,
}

impl<F: Factory> Run<F> {
    async fn until_made(self) -> Made<F::Service> {
        let mut backoff = Backoff::new(self.config.first_pause, self.config.max_pause);
        loop {
            match self.once().await {
                Ok(service) => {
                    return Made {
                        id: self.make.instance.id().clone(),
                        making: self.make.making,
                        service,
                    };
                }
                Err(error) => {
                    if let Some(shared) = self.shared.upgrade() {
                        shared.failed(self.make.instance.id(), self.make.making, error);
                    }
                }
            }
            // Without a permit: one that fails does not keep the others waiting.
            sleep(backoff.next_pause()).await;
        }
    }

    async fn once(&self) -> Result<F::Service, BoxError> {
        let _permit = self.permits.acquire().await?;
        let make = async { self.factory.make(self.make.instance.clone()).await };
        match timeout(self.config.make_timeout, AssertUnwindSafe(make).catch_unwind()).await {
            Ok(Ok(made)) => made,
            Ok(Err(_panic)) => Err("the factory panicked".into()),
            Err(elapsed) => Err(elapsed.into()),
        }
    }
}
