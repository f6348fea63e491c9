use std::ops::Deref;

use tower_sd_core::{
    Announcer, Backend, Follower, Instance, KeyValue, Registration, Registry, Result, Source,
};

use crate::{BACKEND, EtcdConfig, client::EtcdClient, registration::EtcdAnnouncer, source};

/// An etcd cluster: registers instances, follows services and keys.
///
/// `Clone` shares its connections, and the registrations that [`close`](Registry::close) withdraws.
/// Hundreds of registrations and thousands of followed services use a few TCP connections and one
/// watch stream; each registration has a lease of its own. Nothing is sent before the first use. It
/// is a [`Registry`], by `Deref`.
///
/// # Drop
///
/// Instancers and registrations outlive it; with the last of them its connections close.
#[derive(Clone, Debug)]
pub struct Etcd {
    client: EtcdClient,
    registry: Registry,
}

/// Makes the two halves of the wire from a client.
#[derive(Debug)]
struct EtcdBackend(EtcdClient);

impl Etcd {
    /// Creates a client of a cluster.
    ///
    /// # Errors
    ///
    /// `Config`: the settings cannot work.
    pub fn new(config: EtcdConfig) -> Result<Self> {
        let registry = config.registry.clone();
        let client = EtcdClient::new(config)?;
        let registry = Registry::with_config(EtcdBackend(client.clone()), registry);
        Ok(Self { client, registry })
    }

    /// Creates a client of the cluster that a URL names; see [`EtcdConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL, and for settings that cannot work.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(EtcdConfig::from_url(url)?)
    }

    /// Follows a service: a list at a revision, and a watch from the next one.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, service: impl Into<String>) -> Follower {
        let service = service.into();
        let source = source::instances(&self.client, &service);
        self.registry.follow(service, source, |publisher| publisher)
    }

    /// Follows a key, or all keys below a path that ends in a slash.
    ///
    /// The empty path is the root.
    ///
    /// The keys are etcd's own, as `etcdctl` shows them; the prefix of services does not apply. A
    /// request has at most 1.5 MiB (the servers' `--max-request-bytes`), and with it a value.
    pub fn key_value(&self, path: &str) -> Box<dyn Source<Item = KeyValue>> {
        source::keys(&self.client, path)
    }

    /// Connects, authenticates, and reads one key.
    ///
    /// The read has the agreement of the cluster's majority.
    ///
    /// # Errors
    ///
    /// The reason why that failed; `Denied` when the user may not read below the prefix.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn check(&self) -> Result<()> {
        self.client.check().await
    }
}

impl Backend for EtcdBackend {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(source::instances(&self.0, service)))
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        Ok(Box::new(EtcdAnnouncer::new(&self.0, registration)?))
    }

    fn key_value(&self, path: &str) -> Result<Box<dyn Source<Item = KeyValue>>> {
        Ok(source::keys(&self.0, path))
    }
}

impl From<Etcd> for Registry {
    fn from(etcd: Etcd) -> Self {
        etcd.registry
    }
}

impl Deref for Etcd {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}
