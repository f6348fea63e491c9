use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use tower_sd_core::{RegistryConfig, duration};

/// The name servers that are queried, and the way of querying them.
///
/// ```
/// use tower_sd::dns::{DnsConfig, Transport};
///
/// let consul = DnsConfig::new(["127.0.0.1:8600".parse()?]).transport(Transport::TcpFirst);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct DnsConfig {
    /// The name servers. Defaults to none: those of the system.
    ///
    /// On Unix the system's are read from `/etc/resolv.conf`, again after a change, at most once a
    /// second. See the crate's documentation for the lines that are obeyed.
    pub servers: Vec<SocketAddr>,
    /// The first transport of a query.
    ///
    /// Defaults to the system's (`options use-vc`), or else to [`Transport::UdpFirst`].
    pub transport: Option<Transport>,
    /// The time of one server for one response, over all transports and repetitions.
    ///
    /// Defaults to the system's (`options timeout:n`), or else to 2 s. That is four times the usual
    /// time of a recursive server, and leaves room for three servers within the bound of a read.
    /// A query behind 32 others to the same server waits for its turn, as long again at most. Less
    /// than 100 ms is 100 ms.
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub timeout: Option<Duration>,
    /// The number of times that all servers are queried in one read.
    ///
    /// Defaults to the system's (`options attempts:n`), or else to 1: a failed read is repeated
    /// with backoff anyway.
    pub attempts: Option<u32>,
    /// The settings of all registries.
    ///
    /// The TTL among them is not used: DNS is read only.
    pub registry: RegistryConfig,
}

/// The first transport of a query.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// UDP with EDNS (1232 bytes). TCP follows a truncated response.
    ///
    /// After half of the timeout without a response, UDP without EDNS and TCP are tried as well.
    #[default]
    UdpFirst,
    /// TCP for every query.
    ///
    /// For Consul, which truncates a response over UDP without setting the flag: of 60 instances it
    /// returns 19 within 1232 bytes, others every time. For the same reason UDP is never tried.
    TcpFirst,
}

impl DnsConfig {
    /// Returns the defaults with these name servers; with none, those of the system.
    pub fn new(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { servers: servers.into_iter().collect(), ..Self::default() }
    }

    /// Sets [`registry`](Self::registry).
    pub fn registry(self, registry: RegistryConfig) -> Self {
        Self { registry, ..self }
    }

    /// Sets [`transport`](Self::transport).
    pub fn transport(self, transport: Transport) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Sets [`timeout`](Self::timeout).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets [`attempts`](Self::attempts); zero counts as one.
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: Some(attempts), ..self }
    }
}
