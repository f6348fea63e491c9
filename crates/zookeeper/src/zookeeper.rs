use std::{ops::Deref, sync::Arc};

use tower_sd_core::{
    Announcer, Backend, Follower, Instance, KeyValue, Registration, Registry, Result, Source, url,
};
use tower_sd_net::{Dialer, Target, TlsClient};

use crate::{
    BACKEND, ZooKeeperConfig,
    client::{Client, Credentials, Server, Settings},
    config::refused,
    error::error,
    registration::ZooKeeperAnnouncer,
    source,
};

/// A ZooKeeper ensemble: registers instances, follows services and nodes.
///
/// `Clone` shares its one session, and the registrations that [`close`](Registry::close) withdraws.
/// Nothing is sent before the first use. It is a [`Registry`], by `Deref`, whose registrations are
/// nodes that end with the session.
///
/// # Drop
///
/// Instancers and registrations outlive it; with the last of them the session is closed.
#[derive(Clone, Debug)]
pub struct ZooKeeper {
    backend: Arc<ZooKeeperBackend>,
    registry: Registry,
}

/// Makes the two halves of the wire from a client.
#[derive(Debug)]
struct ZooKeeperBackend {
    client: Client,
    config: ZooKeeperConfig,
}

impl ZooKeeper {
    /// Creates a client of an ensemble.
    ///
    /// # Errors
    ///
    /// `Config`: the settings cannot work.
    pub fn new(config: ZooKeeperConfig) -> Result<Self> {
        let config = config.validated()?;
        let client = Client::new(BACKEND, settings(&config)?);
        let registry = config.registry.clone();
        let backend = Arc::new(ZooKeeperBackend { client, config });
        let registry = Registry::with_config(Shared(Arc::clone(&backend)), registry);
        Ok(Self { backend, registry })
    }

    /// Creates a client of the ensemble that a URL names.
    ///
    /// See [`ZooKeeperConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL, and for settings that cannot work.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(ZooKeeperConfig::from_url(url)?)
    }

    /// Creates a client of the ensemble that the environment names.
    ///
    /// See [`ZooKeeperConfig::from_env`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed variable, and for settings that cannot work.
    pub fn from_env() -> Result<Self> {
        Self::new(ZooKeeperConfig::from_env()?)
    }

    /// Follows a service: its nodes and their data, with watches.
    ///
    /// A service without a parent node is empty, and is noticed when that is made.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, service: impl Into<String>) -> Follower {
        let service = service.into();
        let ZooKeeperBackend { client, config } = &*self.backend;
        let source = source::instances(client, config, &service);
        self.registry.follow(service, source, |publisher| publisher)
    }

    /// Follows the data of a node, or of all children of a node.
    ///
    /// A path that ends in a slash means the children. The path is below the chroot. The empty
    /// path is the root.
    pub fn key_value(&self, path: &str) -> Box<dyn Source<Item = KeyValue>> {
        let ZooKeeperBackend { client, config } = &*self.backend;
        Box::new(source::keys(client, config, path))
    }

    /// Connects, and reads whether the parent of all services exists.
    ///
    /// # Errors
    ///
    /// The reason why that failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn check(&self) -> Result<()> {
        let ZooKeeperBackend { client, config } = &*self.backend;
        let path = format!("{}{}", config.chroot, config.path);
        let path = if path.is_empty() { "/" } else { path.as_str() };
        let read = client.session().exists(path).await;
        read.map(drop).map_err(|cause| error(cause, "check", path))
    }
}

/// What the registry owns.
struct Shared(Arc<ZooKeeperBackend>);

impl Backend for Shared {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(source::instances(&self.0.client, &self.0.config, service)))
    }

    fn announcer(&self, registration: &Registration) -> Result<Box<dyn Announcer>> {
        Ok(Box::new(ZooKeeperAnnouncer::new(&self.0.client, &self.0.config, registration)?))
    }

    fn key_value(&self, path: &str) -> Result<Box<dyn Source<Item = KeyValue>>> {
        Ok(Box::new(source::keys(&self.0.client, &self.0.config, path)))
    }
}

impl From<ZooKeeper> for Registry {
    fn from(zookeeper: ZooKeeper) -> Self {
        zookeeper.registry
    }
}

impl Deref for ZooKeeper {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

/// The settings of the client, of those of the registry.
fn settings(config: &ZooKeeperConfig) -> Result<Settings> {
    let mut servers = config.servers.iter().map(|it| server(it)).collect::<Result<Vec<_>>>()?;
    fastrand::shuffle(&mut servers);
    let credentials = config.user.clone().map(|user| -> Credentials {
        Arc::new(move || {
            let password = user.password()?;
            Ok(format!("{}:{}", user.name, password.expose()).into())
        })
    });
    Ok(Settings {
        servers,
        dialer: Dialer::new().connect_timeout(config.connect_timeout),
        tls: config.tls.clone().map(TlsClient::new).transpose()?,
        credentials,
        session_timeout: config.session_timeout,
        connect_timeout: config.connect_timeout,
        request_timeout: config.request_timeout,
        max_reply: config.max_reply,
        max_request: config.max_request,
    })
}

fn server(address: &str) -> Result<Server> {
    if url::has_user(address) {
        return Err(refused("a server has user information; use ZooKeeperConfig::user"));
    }
    let (host, port) = url::host_and_port(address)
        .ok_or_else(|| refused(format!("server {address:?} is not host:port")))?;
    Ok(Server { name: address.into(), target: Target::host(host, port) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn clients_begin_with_different_servers() {
        let config = ZooKeeperConfig::new((1..=8).map(|n| format!("h{n}:2181")));
        let first = |_| settings(&config).expect("it can work").servers[0].name.to_string();
        assert!((0..100).map(first).collect::<BTreeSet<_>>().len() > 4);
    }
}
