//! A registry as one value.

mod backend;
mod fixed;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use self::backend::Backend;
use self::fixed::FixedBackend;
use crate::{
    Follower, Instance, KeyValue, Publisher, Registrar, Registration, RegistrationHandle,
    RegistryConfig, RegistryUrl, Result, Source, TaskGroup, announce,
};

/// A registry of any kind: registers instances, and follows services.
///
/// `Clone` shares it: its connections, and the registrations that [`close`](Self::close) withdraws.
/// Nothing is sent before the first use.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::{Instance, Instancer, MemoryRegistry, Registration, Registry};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_sd::Error> {
/// let registry = Registry::from(MemoryRegistry::new());
/// let instance = Instance::new("10.0.0.7", 8081);
/// let handle = registry.register(Registration::new("orders", instance)).await?;
///
/// let orders = registry.instancer("orders")?;
/// let snapshot = orders.subscribe().ready(Duration::from_secs(1)).await?;
/// assert_eq!(snapshot.instances().len(), 1);
/// handle.deregister().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Drop
///
/// Instancers and registrations outlive it.
#[derive(Clone)]
pub struct Registry {
    backend: Arc<dyn Backend>,
    config: Arc<RegistryConfig>,
    tasks: TaskGroup,
}

impl Registry {
    /// Creates a registry with the default settings.
    pub fn new(backend: impl Backend) -> Self {
        Self::with_config(backend, RegistryConfig::default())
    }

    /// Creates a registry.
    pub fn with_config(backend: impl Backend, config: RegistryConfig) -> Self {
        let config = Arc::new(backend.adapt(config));
        Self { backend: Arc::new(backend), config, tasks: TaskGroup::new() }
    }

    /// Creates a registry, read only, in which every service has these instances.
    pub fn fixed(instances: impl IntoIterator<Item = impl Into<Instance>>) -> Self {
        Self::new(FixedBackend(instances.into_iter().map(Into::into).collect()))
    }

    pub(crate) fn fixed_from_url(url: &str) -> Result<Self> {
        let url = RegistryUrl::parse(FixedBackend::NAME, url)?;
        url.no_path()?;
        let instances = url.addresses(0).into_iter().map(|address| address.parse::<Instance>());
        let instances = instances.collect::<Result<Vec<_>>>()?;
        url.finish()?;
        Ok(Self::fixed(instances))
    }

    /// Returns another view, which shares settings and tasks: for backends.
    #[must_use]
    pub fn with_backend(&self, backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend), ..self.clone() }
    }

    /// Returns the backend's name: `"consul"`.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// Returns the settings, as adapted to the backend.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Follows a service.
    ///
    /// # Errors
    ///
    /// `Config`: the backend cannot follow a service of this name.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, service: impl Into<String>) -> Result<Follower> {
        let service = service.into();
        let (source, backend) = (self.backend.source(&service)?, Arc::clone(&self.backend));
        Ok(self.follow(service, source, |publisher| {
            publisher.wants(move |instance| backend.wants(instance))
        }))
    }

    /// Follows a source with the settings of this registry.
    ///
    /// For backends with queries of their own; `adapt` adds filters.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn follow(
        &self,
        service: impl Into<String>,
        source: impl Source<Item = Instance>,
        adapt: impl FnOnce(Publisher) -> Publisher,
    ) -> Follower {
        let config = RegistryConfig::clone(&self.config);
        Follower::new(source, adapt(Publisher::new(self.name(), service, config)))
    }

    /// Follows a key, or all keys below a path that ends in a slash.
    ///
    /// The empty path is the root of the registry's key-value store.
    ///
    /// # Errors
    ///
    /// `Config`: the registry has no such store.
    pub fn key_value(&self, path: &str) -> Result<Box<dyn Source<Item = KeyValue>>> {
        self.backend.key_value(path)
    }

    /// Registers an instance until the handle is deregistered or dropped.
    ///
    /// # Errors
    ///
    /// `Config` for an instance that no client could reach (a wildcard address, port 0), and for a
    /// registry that is read only. Unless [`Registration::retry_in_background`] is set, the error
    /// of the first attempts.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the instance is withdrawn in the background, as for a dropped handle.
    pub async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let registration = registration.or_ttl(self.config.ttl);
        let announcer = self.backend.announcer(&registration)?;
        let config = self.config.announce.clone();
        announce(self.name(), announcer, registration, config, &self.tasks).await
    }

    /// Withdraws all registrations made here, and waits until that is done.
    ///
    /// Instancers stay, for the requests that a stopping server still makes: each ends when it is
    /// dropped or closed.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, they are still withdrawn; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

#[async_trait]
impl Registrar for Registry {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        Self::register(self, registration).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("backend", &self.name()).finish_non_exhaustive()
    }
}
