//! Wrappers run the suite too: a combinator, a registrar behind two pointers.

mod support;

use std::{process::ExitCode, sync::Arc};

use tokio::select;
use tower_sd_core::{
    Entries, Freshness, Instancer, LossPolicy, MemoryRegistry, Publisher, ReadMode, Registrar,
    RegistryConfig, Sink, Snapshot, Subscription, TaskGroup,
};
use tower_sd_testkit::TestInstancer;

use self::support::Memory;

/// Publishes what another instancer does: the smallest combinator there is.
#[derive(Clone)]
struct Relay {
    subscription: Subscription,
    tasks: TaskGroup,
}

impl Relay {
    fn new(inner: &dyn Instancer, mut publisher: Publisher) -> Self {
        let tasks = TaskGroup::new();
        let subscription = publisher.subscribe().with_owner(Arc::new(tasks.clone()));
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
                    () = publisher.due() => {
                        inner.refresh();
                        relay(&mut publisher, &inner.snapshot());
                    }
                }
            }
        });
        Self { subscription, tasks }
    }
}

/// A fresh snapshot is a confirmed read, however old; an error leaves the set.
fn relay(publisher: &mut Publisher, snapshot: &Snapshot) {
    match snapshot.freshness() {
        Freshness::Fresh => {
            let entries = Entries::new(snapshot.instances().to_vec());
            publisher.set(entries.with_mode(ReadMode::Confirm));
        }
        freshness => {
            freshness.error().into_iter().for_each(|error| publisher.failed(error.clone()));
        }
    }
}

impl Instancer for Relay {
    fn subscribe(&self) -> Subscription {
        self.subscription.clone()
    }
}

fn registrar(registry: &MemoryRegistry) -> Arc<dyn Registrar> {
    let inner: Arc<dyn Registrar> = Arc::new(registry.clone());
    Arc::new(inner)
}

/// The guard is the outermost one's.
fn instancer(registry: &MemoryRegistry, service: &str) -> TestInstancer {
    let inner: Arc<dyn Instancer> = Arc::new(registry.instancer(service));
    let relay = Relay::new(&inner, Publisher::new("relay", service, RegistryConfig::default()));
    TestInstancer::new(relay.clone(), async move { relay.tasks.close().await })
}

fn main() -> ExitCode {
    tower_sd_testkit::run(|| {
        let accepting = RegistryConfig::default().loss(LossPolicy::Accept);
        let registry = MemoryRegistry::with_config(accepting);
        Memory::<true> { registry, registrar, instancer }
    })
}
