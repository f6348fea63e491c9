//! A registry inside the process: for tests and demos, and the reference.

mod announcer;
mod source;
mod store;
#[cfg(test)]
mod tests;

use std::{
    ops::Deref,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use self::{announcer::MemoryAnnouncer, source::MemorySource, store::Store};
use crate::{
    Announcer, Backend, Follower, Instance, InstanceId, LossPolicy, Registration, Registry,
    RegistryConfig, Result, Source,
};

/// A registry inside the process, with a TTL, both sides, and faults on demand.
///
/// `Clone` shares it. It is a [`Registry`], by `Deref`, whose [`instancer`](Self::instancer) cannot
/// fail.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::{Instance, Instancer, MemoryRegistry, Registration};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_sd::Error> {
/// let registry = MemoryRegistry::new();
/// let instance = Instance::new("127.0.0.1", 8081);
/// let handle = registry.register(Registration::new("arithmetic", instance)).await?;
///
/// let mut subscription = registry.instancer("arithmetic").subscribe();
/// let snapshot = subscription.ready(Duration::from_secs(1)).await?;
/// assert_eq!(snapshot.instances().len(), 1);
/// handle.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryRegistry {
    store: Arc<Store>,
    registry: Registry,
}

impl Backend for Arc<Store> {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(MemorySource::new(Self::clone(self), service.to_owned())))
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        Ok(Box::new(MemoryAnnouncer::new(Self::clone(self), registration)))
    }
}

impl MemoryRegistry {
    /// An empty registry whose followers accept every change immediately.
    ///
    /// Its TTL is 15 s. It never errs, so that a test or a demo shows what was registered and
    /// deregistered. For the caution that followers of another registry have, pass its settings to
    /// [`with_config`](Self::with_config).
    pub fn new() -> Self {
        let mut config = RegistryConfig::default().loss(LossPolicy::Accept);
        (config.removal_wait, config.follow.min_interval) = (Duration::ZERO, Duration::ZERO);
        Self::with_config(config)
    }

    /// An empty registry with these settings: the default ones have the loss guard.
    pub fn with_config(config: RegistryConfig) -> Self {
        let store = Arc::<Store>::default();
        Self { registry: Registry::with_config(Arc::clone(&store), config), store }
    }

    /// Follows `service`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, service: impl Into<String>) -> Follower {
        let service = service.into();
        let source = MemorySource::new(Arc::clone(&self.store), service.clone());
        self.registry.follow(service, source, |publisher| publisher)
    }

    /// What is registered under `service` now, whatever readers are made to see.
    pub fn entries(&self, service: &str) -> Vec<Instance> {
        self.store.lock().entries(service).map(|entry| entry.instance.clone()).collect()
    }

    /// Returns the number of calls so far, refused ones included.
    ///
    /// Those are reads that answered, announcements, renewals and withdrawals.
    pub fn n_calls(&self) -> u64 {
        self.store.n_calls.load(Relaxed)
    }

    /// Fault: every call fails until [`resume`](Self::resume). TTLs go on.
    pub fn interrupt(&self) {
        self.store.edit(|state| state.interrupted = true);
    }

    /// Ends [`interrupt`](Self::interrupt), [`drop_to_empty`](Self::drop_to_empty) and
    /// [`delay`](Self::delay).
    pub fn resume(&self) {
        self.store.edit(|state| {
            (state.interrupted, state.empty, state.delay) = (false, false, Duration::ZERO);
        });
    }

    /// Fault: the entry's TTL is over now, or an operator deletes it.
    pub fn expire(&self, service: &str, id: &InstanceId) {
        self.store.edit(|state| state.remove(service, id));
    }

    /// Fault: the entry cannot be understood until it is announced again.
    pub fn corrupt(&self, service: &str, id: &InstanceId) {
        self.store.edit(|state| {
            state.get_mut(service, id).into_iter().for_each(|entry| entry.corrupt = true);
        });
    }

    /// Fault: readers see an empty set until [`resume`](Self::resume).
    ///
    /// The entries are still there.
    pub fn drop_to_empty(&self) {
        self.store.edit(|state| state.empty = true);
    }

    /// Fault: every entry is gone, as after a restart without a disk.
    pub fn wipe(&self) {
        self.store.edit(|state| state.services.clear());
    }

    /// Fault: every call takes this long, or until [`resume`](Self::resume).
    pub fn delay(&self, delay: Duration) {
        self.store.edit(|state| state.delay = delay);
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl From<MemoryRegistry> for Registry {
    fn from(memory: MemoryRegistry) -> Self {
        memory.registry
    }
}

impl Deref for MemoryRegistry {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}
