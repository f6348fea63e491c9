use tower_sd_core::{
    Announcer, Backend, Error, ErrorKind, Follower, Instance, Registration, Registry, Result,
    Source,
};

use crate::{BACKEND, KubernetesConfig, Query, client::KubernetesClient, source::KubernetesSource};

/// A namespace of Kubernetes: follows services.
///
/// `Clone` shares its connections. Nothing is sent before the first use. [`Registry`] is the same
/// for any kind of registry; there, a service is a [`Query`] as text.
///
/// # Drop
///
/// Instancers outlive it.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    client: KubernetesClient,
    registry: Registry,
}

/// Makes the reading half of the wire from a client.
#[derive(Debug)]
struct KubernetesBackend(KubernetesClient);

impl Kubernetes {
    /// Creates a client of one namespace.
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work, and for files that cannot be read.
    pub fn new(config: KubernetesConfig) -> Result<Self> {
        let (registry, client) = (config.registry.clone(), KubernetesClient::new(config)?);
        let registry = Registry::with_config(KubernetesBackend(client.clone()), registry);
        Ok(Self { client, registry })
    }

    /// Creates a client of the namespace that a URL names.
    ///
    /// See [`KubernetesConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL, and for settings that cannot work.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(KubernetesConfig::from_url(url)?)
    }

    /// Follows a Service by its EndpointSlices.
    ///
    /// A name that no Service can have is a `Config` error of the snapshots;
    /// [`Registry::instancer`] refuses it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, query: impl Into<Query>) -> Follower {
        let query = query.into();
        let service = query.service.clone();
        let source = KubernetesSource::new(self.client.clone(), query);
        self.registry.follow(service, source, |publisher| publisher)
    }
}

impl Backend for KubernetesBackend {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(KubernetesSource::new(self.0.clone(), service.parse()?)))
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        let message = "registering is the platform's: a pod is listed when its Service selects it \
                       and it is ready; Kubernetes is followed only";
        let error = Error::new(ErrorKind::Config, BACKEND, "register").with_message(message);
        Err(error.with_instance(registration.instance().id().clone()))
    }
}

impl From<Kubernetes> for Registry {
    fn from(kubernetes: Kubernetes) -> Self {
        kubernetes.registry
    }
}
