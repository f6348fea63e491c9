use tower_sd_core::{Backend, Follower, Instance, Registry, Result, Source};

use crate::{BACKEND, DnsConfig, Query, client::DnsClient, query::shown, source::DnsSource};

/// Name servers: follows services.
///
/// `Clone` shares their connections. Nothing is sent before the first use. [`Registry`] is the same
/// for any kind of registry; there, a service is a [`Query`] as text.
///
/// The next lookup is due after the least TTL of the answer, within 10 %: not before
/// [`FollowConfig::min_refresh`](tower_sd_core::FollowConfig::min_refresh) (5 s, the TTL of CoreDNS
/// in Kubernetes; Consul's is 0), and not after
/// [`max_refresh`](tower_sd_core::FollowConfig::max_refresh) (5 min). After a negative answer, the
/// negative TTL of the zone's SOA counts, at most 60 s.
///
/// # Drop
///
/// Instancers outlive it.
#[derive(Clone, Debug)]
pub struct Dns {
    client: DnsClient,
    registry: Registry,
}

/// Makes the reading half of the wire from a client.
#[derive(Debug)]
struct DnsBackend(DnsClient);

impl Dns {
    /// Creates a client of these name servers.
    pub fn new(config: DnsConfig) -> Self {
        let registry = config.registry.clone();
        let client = DnsClient::new(config);
        let registry = Registry::with_config(DnsBackend(client.clone()), registry);
        Self { client, registry }
    }

    /// Creates a client of the name servers in a URL; see [`DnsConfig::from_url`].
    ///
    /// # Errors
    ///
    /// `Config` for a malformed URL.
    pub fn from_url(url: &str) -> Result<Self> {
        Ok(Self::new(DnsConfig::from_url(url)?))
    }

    /// Follows the instances of a query.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn instancer(&self, query: Query) -> Follower {
        let (service, retention) = (shown(&query.name), query.retention);
        let source = DnsSource::new(self.client.clone(), query);
        self.registry.follow(service, source, |publisher| publisher.min_removal_wait(retention))
    }
}

impl Backend for DnsBackend {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn source(&self, service: &str) -> Result<Box<dyn Source<Item = Instance>>> {
        Ok(Box::new(DnsSource::new(self.0.clone(), service.parse()?)))
    }
}

impl From<Dns> for Registry {
    fn from(dns: Dns) -> Self {
        dns.registry
    }
}
