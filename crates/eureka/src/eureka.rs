use std::ops::Deref;

use tower_sd_core::{
    Announcer, Backend, Follower, Instance, Registration, Registry, RegistryConfig, Result, Source,
};

use crate::{
    BACKEND, EurekaConfig, Query, RegistrationOptions, client::EurekaClient, config::LEASE,
    registration, source::EurekaSource,
};

/// The Eureka servers of one registry: registers instances, follows applications.
///
/// `Clone` shares its connections, and the registrations that [`close`](Registry::close) withdraws.
/// Nothing is sent before the first use. It is a [`Registry`], by `Deref`, with queries of its own.
///
/// An instance with the status [`Draining`](tower_sd_core::InstanceStatus::Draining), given at
/// registration or by an update of its handle, is `OUT_OF_SERVICE` and stays registered.
///
/// # Drop
///
/// Instancers and registrations outlive it.
#[derive(Clone, Debug)]
pub struct Eureka {
    client: EurekaClient,
    registry: Registry,
}

/// Makes the two halves of the wire from a client.
#[derive(Clone, Debug)]
struct EurekaBackend {
    client: EurekaClient,
    options: RegistrationOptions,
}

impl Eureka {
    /// Creates a client of the servers of one registry.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work.
    pub fn new(config: EurekaConfig) -> Result<Self> {
        let (registry, client) = (config.registry.clone(), EurekaClient::new(config)?);
        let options = RegistrationOptions::new();
        let backend = EurekaBackend { client: client.clone(), options };
        Ok(Self { client, registry: Registry::with_config(backend, registry) })
    }

    /// Creates a client of the servers that a URL names.
    ///
    /// See [`EurekaConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL, and for settings that cannot work.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(EurekaConfig::from_url(url)?)
    }

    /// Creates a client of the servers that the environment names.
    ///
    /// See [`EurekaConfig::from_env`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed variable, and for settings that cannot work.
    pub fn from_env() -> Result<Self> {
        Self::new(EurekaConfig::from_env()?)
    }

    /// Returns a view of the registry whose registrations have these options.
    #[must_use]
    pub fn with_options(&self, options: RegistrationOptions) -> Self {
        let client = self.client.clone();
        let backend = EurekaBackend { client: client.clone(), options };
        Self { client, registry: self.registry.with_backend(backend) }
    }

    /// Follows an application or a virtual address.
    ///
    /// It is read every 30 s, and soon after an endpoint has failed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, query: impl Into<Query>) -> Follower {
        let query = query.into();
        let (service, wanted) = (query.name.clone(), query.clone());
        let source = EurekaSource::new(self.client.clone(), query);
        let wants = move |instance: &Instance| wanted.wants(instance.status());
        self.registry.follow(service, source, |publisher| publisher.wants(wants))
    }
}

impl Backend for EurekaBackend {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn adapt(&self, mut config: RegistryConfig) -> RegistryConfig {
        let (eureka, announce) = (self.client.config(), &mut config.announce);
        // So that a server that hangs leaves time for another one.
        let several = eureka.timeout.saturating_mul(2);
        announce.call_timeout = announce.call_timeout.max(several);
        config.follow.read_timeout = config.follow.read_timeout.max(several);
        config.follow.min_refresh = config.follow.min_refresh.min(eureka.query.poll_interval);
        config.ttl.get_or_insert(LEASE);
        config
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        let query = Query { name: service.to_owned(), ..self.client.config().query.clone() };
        Ok(Box::new(EurekaSource::new(self.client.clone(), query)))
    }

    fn wants(&self, instance: &Instance) -> bool {
        self.client.config().query.wants(instance.status())
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        let announcer = registration::announcer(&self.client, &self.options, registration)?;
        Ok(Box::new(announcer))
    }
}

impl From<Eureka> for Registry {
    fn from(eureka: Eureka) -> Self {
        eureka.registry
    }
}

impl Deref for Eureka {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}
