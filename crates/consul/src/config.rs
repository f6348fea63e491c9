//! Where an agent is and how to talk to it: by code, by environment, by URL.

mod env;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, time::Duration};

use ::url::Url;
use serde::Deserialize;
use tower_sd_core::{
    RegistryConfig, Result, Secret, TlsConfig, duration, secret,
    url::{has_user, without_user},
};
use tower_sd_net::Target;

use crate::{BACKEND, Query, error};

/// Where the agent is, and how to talk to it.
///
/// ```
/// use tower_sd::consul::ConsulConfig;
///
/// let config = ConsulConfig::new("127.0.0.1:8500").token("s3cr3t");
/// assert!(!format!("{config:?}").contains("s3cr3t"));
/// ```
#[derive(Clone, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct ConsulConfig {
    /// The agent's address. Defaults to `127.0.0.1:8500`.
    ///
    /// One of `host:port`, `http://host:port`, `https://host:port` (each with a path where a proxy
    /// serves it under a prefix), or `unix:///path/of/socket`.
    pub address: String,
    /// The ACL token, sent in a header only: addresses get logged. Defaults to none.
    pub token: Option<Secret>,
    /// A file with the ACL token. Defaults to none.
    ///
    /// It wins over [`token`](Self::token). It is read again for a request 1 s or more after the
    /// last read, and after a denial: tokens are rotated. One that is missing or empty meanwhile
    /// leaves the last token.
    pub token_file: Option<PathBuf>,
    /// User and password, for a proxy in front of the agent. Defaults to none.
    ///
    /// In a configuration file a list of both.
    #[serde(deserialize_with = "secret::deserialize")]
    pub basic_auth: Option<(String, Secret)>,
    /// The datacenter that is read from. Defaults to the agent's own.
    pub datacenter: Option<String>,
    /// The namespace, of Consul Enterprise. Defaults to the token's.
    ///
    /// A community agent refuses it.
    pub namespace: Option<String>,
    /// The admin partition, of Consul Enterprise. Defaults to the agent's.
    pub partition: Option<String>,
    /// TLS. `Some` uses TLS even where the address has `http`, as Consul's client.
    /// Needs the feature `tls-ring` or `tls`. Defaults to `None`: TLS where the address has
    /// `https`, with the operating system's authorities.
    pub tls: Option<TlsConfig>,
    /// How many services are followed by a blocking query each. Defaults to 48.
    ///
    /// More services share long polls, filtered to them. The default is 48 because an agent accepts
    /// 200 connections of one address, and others run on this machine too. Over TLS, where agents
    /// use HTTP/2, a query is a stream of a connection that it shares with 99 others, and 2 000
    /// services have one each.
    ///
    /// Followed alone, a change is seen some milliseconds after the servers agreed on it; sharing,
    /// within 50 ms when a check changes, and within 700 ms otherwise.
    pub max_blocking_queries: usize,
    /// The query of the followed services, without their names.
    ///
    /// It applies to the services that a [`Registry`](tower_sd_core::Registry) follows. Defaults to
    /// the instances that are passing or warning.
    pub query: Query,
    /// The settings that all registries have, the TTL of registrations among them.
    ///
    /// The TTL is from 1 s to 24 h, 15 s unless set.
    pub registry: RegistryConfig,
    /// An answer longer than this is an error. Defaults to 16 MiB, some 20 000
    /// instances.
    pub max_body: usize,
}

/// An address, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) base: Url,
    pub(crate) target: Target,
}

impl ConsulConfig {
    /// The defaults, with this agent.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            token: None,
            token_file: None,
            basic_auth: None,
            datacenter: None,
            namespace: None,
            partition: None,
            tls: None,
            max_blocking_queries: 48,
            query: Query::new(""),
            registry: RegistryConfig::default(),
            max_body: 16 << 20,
        }
    }

    /// Sets [`token`](Self::token).
    pub fn token(self, token: impl Into<Secret>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets [`token_file`](Self::token_file).
    pub fn token_file(self, token_file: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(token_file.into()), ..self }
    }

    /// Sets [`basic_auth`](Self::basic_auth).
    pub fn basic_auth(self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { basic_auth: Some((user.into(), password.into())), ..self }
    }

    /// Sets [`tls`](Self::tls).
    pub fn tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets [`datacenter`](Self::datacenter).
    pub fn datacenter(self, datacenter: impl Into<String>) -> Self {
        Self { datacenter: Some(datacenter.into()), ..self }
    }

    /// Sets [`namespace`](Self::namespace).
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// Sets [`partition`](Self::partition).
    pub fn partition(self, partition: impl Into<String>) -> Self {
        Self { partition: Some(partition.into()), ..self }
    }

    /// Sets [`max_blocking_queries`](Self::max_blocking_queries).
    pub fn max_blocking_queries(self, follow_alone: usize) -> Self {
        Self { max_blocking_queries: follow_alone, ..self }
    }

    /// Sets the TTL of registrations. Defaults to 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.registry.ttl = Some(ttl);
        self
    }

    /// Sets [`query`](Self::query).
    pub fn query(self, query: Query) -> Self {
        Self { query, ..self }
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
        self.endpoint().map(|_| ())
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        let (scheme, rest) = self.address.split_once("://").unwrap_or(("http", &self.address));
        if scheme != "unix" && has_user(&self.address) {
            return Err(refuse("address: has a user or password in it; use basic_auth".into()));
        }
        if self.address.contains(['?', '#']) {
            let what = "address: has a query; a token goes into token or token_file";
            return Err(refuse(what.into()));
        }
        let (scheme, socket) = match scheme {
            "unix" => ("http", Some(PathBuf::from(rest))),
            "https" => ("https", None),
            "http" if self.tls.is_some() => ("https", None),
            "http" => ("http", None),
            other => {
                let known = "http://, https:// and unix://";
                return Err(refuse(format!(
                    "address: unknown scheme {other:?}; there are {known}"
                )));
            }
        };
        let text = match &socket {
            Some(_) => "http://localhost".to_owned(),
            None => format!("{scheme}://{rest}"),
        };
        let base = Url::parse(&text).map_err(|cause| {
            refuse("address: neither host:port nor a URL".into()).with_source(cause)
        })?;
        let wildcard = match base.host() {
            Some(::url::Host::Ipv4(ip)) => ip.is_unspecified(),
            Some(::url::Host::Ipv6(ip)) => ip.is_unspecified(),
            _ => false,
        };
        if wildcard {
            let what =
                "address: a wildcard is where the agent listens, not where it is; use 127.0.0.1";
            return Err(refuse(what.into()));
        }
        let target = match (socket, base.host_str(), base.port_or_known_default()) {
            (Some(socket), ..) => Target::unix(socket),
            (None, Some(host), Some(port)) => Target::host(host, port),
            (None, ..) => return Err(refuse("address: names no host".into())),
        };
        Ok(Endpoint { base, target })
    }
}

impl fmt::Debug for ConsulConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulConfig")
            .field("address", &without_user(&self.address))
            .field("token", &self.token)
            .field("token_file", &self.token_file)
            .field("basic_auth", &self.basic_auth)
            .field("datacenter", &self.datacenter)
            .field("tls", &self.tls)
            .field("query", &self.query)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self::new("127.0.0.1:8500")
    }
}

fn refuse(message: String) -> tower_sd_core::Error {
    error::config("configure", message)
}
