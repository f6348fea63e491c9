//! Wrappers run the suite too: a combinator over a [`Publisher`] of its own, and a registrar behind two pointers.

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::select;
use tower_sd_core::{
    Freshness, InstanceId, Instancer, LossPolicy, MemoryRegistry, Publisher, PublisherConfig,
    Registrar, Sink, Snapshot, Subscription, Tasks, async_trait,
};
use tower_sd_testkit::{Clock, Fixture, TestInstancer, TestRegistrar};

/// Publishes what another instancer does: the smallest combinator there is.
#[derive(Clone)]
struct Relay {
    subscription: Subscription,
    tasks: Tasks,
}

impl Relay {
    fn new(inner: &dyn Instancer, config: PublisherConfig) -> Self {
        let mut publisher = Publisher::new(config);
        let tasks = Tasks::new();
        let subscription = publisher.subscribe().keeping_alive(Arc::new(tasks.clone()));
        let mut inner = inner.subscribe();
        relay(&mut publisher, &inner.snapshot());
        tasks.spawn(|stop| async move {
            loop {
                select! {
                    () = stop.requested() => return,
                    snapshot = inner.changed() => match snapshot {
                        Ok(snapshot) => relay(&mut publisher, &snapshot),
                        Err(_closed) => return,
                    },
                    () = publisher.refresh_requested() => inner.refresh(),
                    () = publisher.due() => inner.refresh(),
                }
            }
        });
        Self { subscription, tasks }
    }
}

fn relay(publisher: &mut Publisher, snapshot: &Snapshot) {
    if snapshot.freshness().is_synced() {
        publisher.set(snapshot.instances().to_vec());
    }
    match snapshot.freshness() {
        Freshness::NeverSynced { error: Some(error) } | Freshness::Stale { error, .. } => {
            publisher.failed(error.clone());
        }
        _ => {}
    }
}

impl Instancer for Relay {
    fn subscribe(&self) -> Subscription {
        self.subscription.clone()
    }
}

struct Wrapped(MemoryRegistry);

#[async_trait]
impl Fixture for Wrapped {
    async fn registrar(&self) -> TestRegistrar {
        let (registry, inner): (_, Arc<dyn Registrar>) = (self.0.clone(), Arc::new(self.0.clone()));
        TestRegistrar::new(Arc::new(inner), async move { registry.close().await })
    }

    /// The guard is the outermost one's.
    async fn instancer(&self, service: &str) -> TestInstancer {
        let config = PublisherConfig::new("memory", service).loss(LossPolicy::Accept);
        let inner: Arc<dyn Instancer> = Arc::new(self.0.instancer_with(config));
        let relay = Relay::new(&inner, PublisherConfig::new("relay", service));
        TestInstancer::new(relay.clone(), async move { relay.tasks.close().await })
    }

    async fn interrupt(&self) {
        self.0.interrupt();
    }

    async fn freeze(&self) {
        self.0.delay(Duration::from_secs(3600));
    }

    async fn resume(&self) {
        self.0.resume();
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        self.0.expire(service, id);
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }
}

fn main() -> ExitCode {
    tower_sd_testkit::run(|| Wrapped(MemoryRegistry::new()))
}
