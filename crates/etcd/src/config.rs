//! Settings, checked once.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use tower_sd_core::{
    Error, ErrorKind, RegistryConfig, Result, Secret, TlsConfig, duration, secret, url,
};

use crate::{BACKEND, Codec, NamingJson};
pub use tower_sd_core::User;

/// Settings of an [`Etcd`](crate::Etcd).
#[derive(Clone, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct EtcdConfig {
    /// The members, as `host:port`. Defaults to none.
    ///
    /// `http://` or `https://` may come first if it agrees with [`tls`](Self::tls). One member is
    /// used at a time, on trouble the next; their order is shuffled, so that clients spread over
    /// them. Names are looked up for every connection. No other default would fit.
    #[serde(deserialize_with = "secret::deserialize")]
    pub endpoints: Vec<String>,
    /// Credentials. Defaults to `None`, no authentication, as etcd's own client.
    #[serde(deserialize_with = "secret::deserialize")]
    pub user: Option<User>,
    /// TLS of the connections. Defaults to none, as etcd's own.
    ///
    /// Its files are read again when they change. With `--client-cert-auth` etcd takes the common
    /// name of the client certificate for the user, and no password is needed.
    pub tls: Option<TlsConfig>,
    /// What comes before the service in every key. Defaults to `tower-sd`.
    ///
    /// It is without the slash that follows, and may be empty. With the default, no other program's
    /// keys are taken for instances.
    pub prefix: String,
    /// How values are written and read. Defaults to [`NamingJson`] alone.
    ///
    /// The first codec writes, and the first that understands a value reads it. grpc-go reads
    /// [`NamingJson`].
    #[serde(skip, default = "codecs")]
    pub codecs: Vec<Arc<dyn Codec>>,
    /// The bound on making a connection, authentication included. Defaults to 2 s.
    ///
    /// A handshake takes milliseconds, and the next member waits.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// The bound on every call to one member. Defaults to 2 s.
    ///
    /// A write into an election hangs for 5 s and two elections unless it is given up and repeated.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// The time between HTTP/2 pings. Defaults to 10 s.
    ///
    /// Pings notice a connection that swallows everything; one that is unanswered for 5 s ends it.
    /// The time has nothing to do with the renewal of leases, which follows from their TTL. Less
    /// than 10 s is refused, because servers end connections that ping faster than every 5 s. More
    /// than a day is a day.
    #[serde(deserialize_with = "duration::deserialize")]
    pub ping_interval: Duration,
    /// The settings that all registries have, the TTL of registrations among them.
    ///
    /// Defaults to theirs, because etcd needs no others.
    ///
    /// The TTL is from 1 s to 24 h in whole seconds, rounded up. The server may grant more (it
    /// never grants less than 2 s with its defaults), and what it grants is used.
    pub registry: RegistryConfig,
}

impl EtcdConfig {
    /// The defaults, for these members.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            tls: None,
            prefix: "tower-sd".to_owned(),
            codecs: codecs(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(2),
            ping_interval: MIN_PING_INTERVAL,
            registry: RegistryConfig::default(),
        }
    }

    /// Sets [`user`](Self::user).
    pub fn user(self, name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { user: Some(User::new(name, password)), ..self }
    }

    /// Sets [`user`](Self::user) with a password from a file, which is read for every
    /// authentication.
    pub fn user_from_file(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { user: Some(User::from_file(name, path)), ..self }
    }

    /// Sets [`tls`](Self::tls).
    pub fn tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets [`prefix`](Self::prefix).
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Sets [`codecs`](Self::codecs) to this one.
    pub fn codec(self, codec: impl Codec) -> Self {
        Self { codecs: vec![Arc::new(codec)], ..self }
    }

    /// Adds a codec that only reads, for the time of a migration.
    pub fn fallback_codec(mut self, codec: impl Codec) -> Self {
        self.codecs.push(Arc::new(codec));
        self
    }

    /// Sets the TTL of registrations. Defaults to 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.registry.ttl = Some(ttl);
        self
    }

    /// Sets [`registry`](Self::registry).
    pub fn registry(self, registry: RegistryConfig) -> Self {
        Self { registry, ..self }
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    pub fn connect_timeout(self, bound: Duration) -> Self {
        Self { connect_timeout: bound, ..self }
    }

    /// Sets [`request_timeout`](Self::request_timeout).
    pub fn request_timeout(self, bound: Duration) -> Self {
        Self { request_timeout: bound, ..self }
    }

    /// Sets [`ping_interval`](Self::ping_interval).
    pub fn ping_interval(self, interval: Duration) -> Self {
        Self { ping_interval: interval, ..self }
    }

    /// Checks the settings, and brings endpoints and prefix into the form that is used.
    pub(crate) fn validated(mut self) -> Result<Self> {
        if self.endpoints.is_empty() {
            return Err(refused("no endpoint given; name at least one member"));
        }
        if let Some(tls) = &self.tls {
            tls.load()?;
        }
        if let Some(user) = &self.user {
            user.password()?;
        }
        for endpoint in &mut self.endpoints {
            *endpoint = normal_endpoint(endpoint, self.tls.is_some())?;
        }
        if self.codecs.is_empty() {
            return Err(refused("no codec given; the first one writes"));
        }
        if self.ping_interval < MIN_PING_INTERVAL {
            let message = "ping_interval below 10 s; etcd ends connections that ping too often";
            return Err(refused(message));
        }
        // An instant cannot be as far away as a duration is long.
        self.ping_interval = self.ping_interval.min(MAX_PING_INTERVAL);
        if let Some(ttl) = self.registry.ttl {
            duration::check_ttl(BACKEND, "configure", ttl)?;
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(refused("a timeout of zero lets nothing succeed"));
        }
        self.prefix.truncate(self.prefix.trim_end_matches('/').len());
        // The connections that calls share are not tried in the same order by all clients.
        fastrand::shuffle(&mut self.endpoints);
        Ok(self)
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.endpoints.iter().map(|endpoint| url::without_user(endpoint));
        f.debug_struct("EtcdConfig")
            .field("endpoints", &endpoints.collect::<Vec<_>>())
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .field("codecs", &self.codecs)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// For a file, which cannot name any.
impl Default for EtcdConfig {
    fn default() -> Self {
        Self::new(Vec::<String>::new())
    }
}

fn codecs() -> Vec<Arc<dyn Codec>> {
    vec![Arc::new(NamingJson)]
}

/// `host:port` with the scheme that etcd-client requires.
fn normal_endpoint(endpoint: &str, is_secure: bool) -> Result<String> {
    if url::has_user(endpoint) {
        let message = "an endpoint has user information; use EtcdConfig::user, which is not logged";
        return Err(refused(message));
    }
    let scheme = if is_secure { "https" } else { "http" };
    let (given, authority) = endpoint.split_once("://").unwrap_or((scheme, endpoint));
    let authority = authority.trim_end_matches('/');
    if url::host_and_port(authority).is_none() {
        return Err(refused(format!("endpoint {endpoint:?} is not host:port")));
    }
    if given != scheme {
        let message =
            format!("endpoint {endpoint:?} does not agree with tls, which wants {scheme}://");
        return Err(refused(message));
    }
    Ok(format!("{scheme}://{authority}"))
}

pub(crate) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "configure").with_message(message)
}

/// The server's least ping interval is 5 s (`--grpc-keepalive-min-time`); measured, 5 s lives and 4
/// s does not.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(10);
const MAX_PING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
