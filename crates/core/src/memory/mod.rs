//! A registry inside the process: for tests and demos, and the reference that every backend is measured against.

mod announcer;
mod source;
mod store;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{announcer::MemoryAnnouncer, source::MemorySource, store::Store};
use crate::{
    AnnounceConfig, FollowConfig, Follower, Instance, InstanceId, PublisherConfig, Registrar,
    Registration, RegistrationHandle, Result, TaskGroup, announce,
};

/// A registry inside the process, with a TTL, both sides, and faults on demand.
///
/// `Clone` shares it.
///
/// ```
/// use std::time::Duration;
/// use tower_sd_core::{Instance, Instancer, MemoryRegistry, Registrar, Registration};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_sd_core::Error> {
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
    config: MemoryConfig,
    tasks: TaskGroup,
}

/// Settings of a [`MemoryRegistry`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// How long an entry lives without a renewal. Default 15 s.
    pub ttl: Duration,
    /// Settings of the announcing loop.
    pub announce: AnnounceConfig,
    /// Settings of the following loop.
    pub follow: FollowConfig,
}

impl MemoryRegistry {
    /// An empty registry with a TTL of 15 s.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// An empty registry.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self { store: Arc::default(), config, tasks: TaskGroup::new() }
    }

    /// Follows `service`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn instancer(&self, service: impl Into<String>) -> Follower {
        self.instancer_with(PublisherConfig::new("memory", service))
    }

    /// Follows the service that `publisher` names, with these settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn instancer_with(&self, publisher: PublisherConfig) -> Follower {
        let source = MemorySource::new(Arc::clone(&self.store), publisher.service.clone());
        Follower::new(source, publisher, self.config.follow.clone())
    }

    /// Ends every registration made here and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, they still end.
    pub async fn close(&self) {
        self.tasks.close().await;
    }

    /// What is registered under `service` now, whatever readers are made to see.
    #[must_use]
    pub fn entries(&self, service: &str) -> Vec<Instance> {
        self.store.entries(service)
    }

    /// How many calls (reads that answered, announcements, renewals, withdrawals) it has got, refused ones included.
    #[must_use]
    pub fn n_calls(&self) -> u64 {
        self.store.n_calls()
    }

    /// Fault: every call fails as unavailable until [`resume`](Self::resume). TTLs go on.
    pub fn interrupt(&self) {
        self.store.edit(|state| state.interrupted = true);
    }

    /// Ends [`interrupt`](Self::interrupt), [`drop_to_empty`](Self::drop_to_empty) and [`delay`](Self::delay).
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
        self.store.edit(|state| state.corrupt(service, id));
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

impl MemoryConfig {
    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(15),
            announce: AnnounceConfig::new("memory"),
            follow: FollowConfig::new("memory"),
        }
    }
}

#[async_trait]
impl Registrar for MemoryRegistry {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let announcer =
            MemoryAnnouncer::new(Arc::clone(&self.store), self.config.ttl, &registration);
        announce(announcer, registration, self.config.announce.clone(), &self.tasks).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}
