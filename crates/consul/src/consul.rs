use std::{collections::BTreeMap, ops::Deref, time::Duration};

use fastrand::Rng;
use tower_sd_core::{
    Announcer, Backend, Follower, Instance, InstanceId, KeyValue, Registration, Registry,
    RegistryConfig, Result, Source,
};

use crate::{
    BACKEND, ConsulConfig, ConsulKv, Query, RegistrationOptions,
    client::ConsulClient,
    mapping, registration,
    source::{ConsulSource, KeySource},
};

/// A Consul agent: registers instances, follows services, reads and writes keys.
///
/// `Clone` shares its connections, and the registrations that [`close`](Registry::close) withdraws.
/// Nothing is sent before the first use. It is a [`Registry`], by `Deref`, with queries of its own.
///
/// An instance with the status [`Draining`](tower_sd_core::InstanceStatus::Draining), given at
/// registration or by an update of its handle, is in maintenance: it leaves `?passing` and DNS
/// immediately, and stays registered.
///
/// # Drop
///
/// Instancers and registrations outlive it.
#[derive(Clone, Debug)]
pub struct Consul {
    client: ConsulClient,
    registry: Registry,
}

/// Makes the two halves of the wire from a client.
#[derive(Clone, Debug)]
struct ConsulBackend {
    client: ConsulClient,
    options: RegistrationOptions,
}

impl Consul {
    /// Creates a client of one agent.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        let (registry, client) = (config.registry.clone(), ConsulClient::new(config)?);
        let options = RegistrationOptions::new();
        let backend = ConsulBackend { client: client.clone(), options };
        Ok(Self { client, registry: Registry::with_config(backend, registry) })
    }

    /// Creates a client of the agent that a URL names; see [`ConsulConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL, and for settings that cannot work.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(ConsulConfig::from_url(url)?)
    }

    /// Creates a client of the agent that the `CONSUL_*` variables name; see
    /// [`ConsulConfig::from_env`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed variable, and for settings that cannot work.
    pub fn from_env() -> Result<Self> {
        Self::new(ConsulConfig::from_env()?)
    }

    /// Returns a view of the agent whose registrations have these options.
    #[must_use]
    pub fn with_options(&self, options: RegistrationOptions) -> Self {
        let client = self.client.clone();
        let backend = ConsulBackend { client: client.clone(), options };
        Self { client, registry: self.registry.with_backend(backend) }
    }

    /// Follows a service.
    ///
    /// One blocking query is open at any time: a change is seen a few milliseconds after the
    /// servers agreed on it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, query: impl Into<Query>) -> Follower {
        let query = query.into();
        let (service, wanted) = (query.service.clone(), query.clone());
        let seed = self.registry.config().follow.seed;
        let source = source(&self.client, query, seed);
        let wants = move |instance: &Instance| wanted.wants(instance.status());
        self.registry.follow(service, source, |publisher| publisher.wants(wants))
    }

    /// Follows a key, or all keys below a path that ends in a slash.
    ///
    /// The empty path is the root.
    ///
    /// One blocking query is open at any time. Beyond
    /// [`max_blocking_queries`](ConsulConfig::max_blocking_queries), keys are read every 5 s
    /// instead. A path is read whole with each change, but not before 300 ms for each megabyte are
    /// over: it must fit into [`max_body`](ConsulConfig::max_body), in base 64. The token needs
    /// `key:read` of all of it: Consul leaves out other keys without an error.
    pub fn key_value(&self, path: &str) -> Box<dyn Source<Item = KeyValue>> {
        Box::new(KeySource::new(&self.client, path))
    }

    /// Returns the key-value store of the datacenter.
    ///
    /// The datacenter is the agent's, unless the settings name another.
    pub fn kv(&self) -> ConsulKv {
        ConsulKv::new(&self.client)
    }

    /// Reads all services of the catalogue.
    ///
    /// Each has the tags that its instances have, sorted.
    ///
    /// # Errors
    ///
    /// The catalogue could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn services(&self) -> Result<BTreeMap<String, Vec<String>>> {
        self.client.services().await
    }

    /// Waits until the catalogue lists the instance and all its checks pass.
    ///
    /// Waits at most `timeout`.
    ///
    /// An agent accepts a registration before the servers have it, and when they are away: a
    /// deployment that stops the old instances afterwards waits for this.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_until_visible(
        &self,
        service: &str,
        instance: &InstanceId,
        timeout: Duration,
    ) -> Result<()> {
        let id = mapping::service_id(service, instance.as_str());
        self.client.wait_until_visible(service, instance, &id, timeout).await
    }
}

fn source(client: &ConsulClient, query: Query, seed: Option<u64>) -> ConsulSource {
    let rng = seed.map_or_else(Rng::new, Rng::with_seed);
    ConsulSource::new(client.clone(), query, rng)
}

impl Backend for ConsulBackend {
    fn name(&self) -> &'static str {
        BACKEND
    }

    /// A registration takes several requests.
    fn adapt(&self, mut config: RegistryConfig) -> RegistryConfig {
        let call_timeout = &mut config.announce.call_timeout;
        *call_timeout = (*call_timeout).max(registration::CALL_TIMEOUT * 2);
        config
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        let config = self.client.config();
        let query = Query { service: service.to_owned(), ..config.query.clone() };
        Ok(Box::new(source(&self.client, query, config.registry.follow.seed)))
    }

    fn wants(&self, instance: &Instance) -> bool {
        self.client.config().query.wants(instance.status())
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        let announcer = registration::announcer(&self.client, &self.options, registration)?;
        Ok(Box::new(announcer))
    }

    fn key_value(&self, path: &str) -> Result<Box<dyn Source<Item = KeyValue>>> {
        Ok(Box::new(KeySource::new(&self.client, path)))
    }
}

impl From<Consul> for Registry {
    fn from(consul: Consul) -> Self {
        consul.registry
    }
}

impl Deref for Consul {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}
