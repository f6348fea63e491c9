//! Where the servers are and how to use them: by code, by environment, by URL.

mod env;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, time::Duration};

use ::url::Url;
use serde::Deserialize;
use tower_sd_core::{
    RegistryConfig, Result, Secret, TlsConfig, duration, secret, url::without_user,
};
use tower_sd_net::Target;

use crate::{BACKEND, Query, error};

/// Where the servers are, and how to use them.
///
/// ```
/// use tower_sd::eureka::EurekaConfig;
///
/// let config = EurekaConfig::new("http://10.0.0.1:8761/eureka").basic_auth("app", "s3cr3t");
/// assert!(!format!("{config:?}").contains("s3cr3t"));
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct EurekaConfig {
    /// The servers, which replicate to each other.
    ///
    /// Defaults to `http://127.0.0.1:8761/eureka`.
    ///
    /// One of them is used until it fails, and at most for 20 min: those of the own
    /// [`zone`](Self::zone) first, in random order.
    #[serde(deserialize_with = "secret::deserialize")]
    pub servers: Vec<EurekaServer>,
    /// The zone of this process. Defaults to none.
    ///
    /// An instance that is registered without a zone of its own is in this zone.
    pub zone: Option<String>,
    /// The user of Basic authentication. Defaults to none.
    pub user: Option<String>,
    /// The password of Basic authentication. Defaults to none.
    pub password: Option<Secret>,
    /// A file with the password. Defaults to none.
    ///
    /// It wins over [`password`](Self::password). It is read again for a request 1 s or more after
    /// the last read, and after a refusal.
    pub password_file: Option<PathBuf>,
    /// TLS of the servers whose URL has `https`.
    ///
    /// Defaults to the system's authorities.
    ///
    /// Needs the feature `tls-ring` or `tls`.
    pub tls: Option<TlsConfig>,
    /// The bound of one request to one server. Defaults to 5 s; zero is refused.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How many applications are read one by one. Defaults to 16.
    ///
    /// More share one read of the whole registry, and of its changes from then on.
    pub max_single_reads: usize,
    /// The query of the followed services, without their names.
    ///
    /// It applies to the services that a [`Registry`](tower_sd_core::Registry) follows. Defaults to
    /// applications, read every 30 s.
    pub query: Query,
    /// The settings that all registries have, the TTL of registrations among them.
    ///
    /// The TTL is the duration of the lease in whole seconds, from 1 s to 24 h. It defaults to
    /// 90 s, as in all clients of Eureka: servers compare the number of renewals with one per 30 s.
    pub registry: RegistryConfig,
    /// The longest accepted answer, once decompressed too.
    ///
    /// Defaults to 64 MiB, some 50 000 instances.
    pub max_body: usize,
}

/// One Eureka server.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(deny_unknown_fields)]
pub struct EurekaServer {
    /// Its URL with the base path: `http://10.0.0.1:8761/eureka` of Spring Cloud's,
    /// `http://10.0.0.1:8080/eureka/v2` of Netflix's.
    pub url: String,
    /// Its zone. Defaults to none.
    #[serde(default)]
    pub zone: Option<String>,
}

/// The URL of a server, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) base: Url,
    pub(crate) target: Target,
}

impl EurekaServer {
    /// Creates a server without a zone.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), zone: None }
    }

    /// Sets [`zone`](Self::zone).
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        let base = Url::parse(&self.url).map_err(|cause| {
            refuse("server: not a URL such as http://host:8761/eureka".into()).with_source(cause)
        })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(refuse("server: there are http:// and https://".into()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(refuse("server: has a user or password in it; use basic_auth".into()));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(refuse(
                "server: has a query, which no server of Eureka reads; use basic_auth for secrets"
                    .into(),
            ));
        }
        let target = match (base.host_str(), base.port_or_known_default()) {
            (Some(host), Some(port)) => Target::host(host, port),
            _ => return Err(refuse("server: names no host".into())),
        };
        Ok(Endpoint { base, target })
    }
}

impl fmt::Debug for EurekaServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaServer")
            .field("url", &without_user(&self.url))
            .field("zone", &self.zone)
            .finish()
    }
}

impl EurekaConfig {
    /// Creates the defaults, with this server.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            servers: vec![EurekaServer::new(server)],
            zone: None,
            user: None,
            password: None,
            password_file: None,
            tls: None,
            timeout: Duration::from_secs(5),
            max_single_reads: 16,
            query: Query::default(),
            registry: RegistryConfig::default(),
            max_body: 64 << 20,
        }
    }

    /// Adds a server.
    pub fn server(mut self, server: EurekaServer) -> Self {
        self.servers.push(server);
        self
    }

    /// Sets [`zone`](Self::zone).
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Sets [`user`](Self::user) and [`password`](Self::password).
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.user = Some(user.into());
        self.password = Some(password.into());
        self
    }

    /// Sets [`user`](Self::user) and [`password_file`](Self::password_file).
    pub fn password_file(
        mut self,
        user: impl Into<String>,
        password_file: impl Into<PathBuf>,
    ) -> Self {
        self.user = Some(user.into());
        self.password_file = Some(password_file.into());
        self
    }

    /// Sets [`tls`](Self::tls).
    pub fn tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets [`timeout`](Self::timeout).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets [`max_single_reads`](Self::max_single_reads).
    pub fn max_single_reads(self, max_single_reads: usize) -> Self {
        Self { max_single_reads, ..self }
    }

    /// Sets [`query`](Self::query).
    pub fn query(self, query: Query) -> Self {
        Self { query, ..self }
    }

    /// Sets the TTL of registrations. Defaults to 90 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.registry.ttl = Some(ttl);
        self
    }

    /// Sets [`registry`](Self::registry).
    pub fn registry(self, registry: RegistryConfig) -> Self {
        Self { registry, ..self }
    }

    /// Sets [`max_body`](Self::max_body).
    pub fn max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(ttl) = self.registry.ttl {
            duration::check_ttl(BACKEND, "configure", ttl)?;
        }
        if self.servers.is_empty() {
            return Err(refuse("servers: there are none".into()));
        }
        if self.user.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            return Err(refuse("password: given without a user".into()));
        }
        if self.timeout.is_zero() {
            return Err(refuse("timeout: zero lets nothing succeed".into()));
        }
        if !(MIN_POLL..=MAX_POLL).contains(&self.query.poll_interval) {
            return Err(refuse("query: the poll interval has to be between 100 ms and 1 h".into()));
        }
        self.servers.iter().try_for_each(|server| server.endpoint().map(drop))
    }
}

impl Default for EurekaConfig {
    fn default() -> Self {
        Self::new("http://127.0.0.1:8761/eureka")
    }
}

pub(crate) fn refuse(message: String) -> tower_sd_core::Error {
    error::config("configure", message)
}

/// The default of Netflix's client (`leaseExpirationDurationInSeconds`).
pub(crate) const LEASE: Duration = Duration::from_secs(90);
/// A shorter pause between reads is a load test.
const MIN_POLL: Duration = Duration::from_millis(100);
pub(crate) const MAX_POLL: Duration = Duration::from_secs(60 * 60);
