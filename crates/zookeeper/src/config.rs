//! Settings, checked once.

mod env;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use tower_sd_core::{
    Error, ErrorKind, RegistryConfig, Result, Secret, TlsConfig, duration, secret, url,
};

use crate::{BACKEND, Curator, Layout, path};
pub use tower_sd_core::User;

/// Settings of a [`ZooKeeper`](crate::ZooKeeper).
#[derive(Clone, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct ZooKeeperConfig {
    /// The members of the ensemble, as `host:port`. Defaults to none.
    ///
    /// Their order is shuffled, so that clients spread over them. Names are resolved for every
    /// connection.
    #[serde(deserialize_with = "secret::deserialize")]
    pub servers: Vec<String>,
    /// What comes before every path. Defaults to nothing.
    ///
    /// Unlike for Java's client, it is made when it is missing.
    pub chroot: String,
    /// The parent of all services, below the chroot. Defaults to Spring's `/services`.
    pub path: String,
    /// Credentials of the scheme `digest`. Defaults to `None`.
    ///
    /// They are sent with every connection, in the clear unless TLS is on. ZooKeeper accepts any
    /// name and password; a wrong one shows as a denied access later. SASL is not supported.
    #[serde(deserialize_with = "secret::deserialize")]
    pub user: Option<User>,
    /// The access to the nodes that are made. Defaults to [`Acl::Open`].
    pub acl: Acl,
    /// TLS of the connections. Defaults to none, as ZooKeeper's own.
    ///
    /// Its files are read again when they change.
    pub tls: Option<TlsConfig>,
    /// How instances are written and read. Defaults to [`Curator`] alone.
    ///
    /// The first layout writes, and the first that understands a node reads it.
    #[serde(skip, default = "layouts")]
    pub layouts: Vec<Arc<dyn Layout>>,
    /// The time after which the servers end a silent session. Defaults to 15 s.
    ///
    /// They remove its nodes with it.
    ///
    /// It is the TTL of all registrations, whose own setting is not used. The servers clamp it to
    /// 2 to 20 of their ticks (4 s to 40 s unless configured), and what they grant is used.
    #[serde(deserialize_with = "duration::deserialize")]
    pub session_timeout: Duration,
    /// The bound on connecting to one server, the session included. Defaults to 2 s.
    ///
    /// It is at most a third of the session timeout, so that others can be tried in time.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// The bound on every request, the wait for a connection included. Defaults to 5 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// The largest answer that is read, in bytes. Defaults to 16 MiB.
    ///
    /// That is a list of 400 000 names of Java's ids. A larger one is an error of its reader alone.
    pub max_reply: usize,
    /// The largest request that is sent, in bytes. Defaults to 1 048 575.
    ///
    /// That is the default of the servers' `jute.maxbuffer`.
    ///
    /// A server closes the connection on a larger one. Raise it with the servers' setting only.
    pub max_request: usize,
    /// The settings that all registries have. The TTL is the session timeout.
    pub registry: RegistryConfig,
}

/// The access to new nodes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Acl {
    /// All clients may do everything.
    #[default]
    Open,
    /// The creator, as authenticated by [`ZooKeeperConfig::user`], may do everything; others may
    /// read.
    Creator,
}

impl ZooKeeperConfig {
    /// The defaults, for these members.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            chroot: String::new(),
            path: "/services".to_owned(),
            user: None,
            acl: Acl::Open,
            tls: None,
            layouts: layouts(),
            session_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            max_reply: 16 << 20,
            max_request: 0xf_ffff,
            registry: RegistryConfig::default(),
        }
    }

    /// Sets [`chroot`](Self::chroot).
    pub fn chroot(self, chroot: impl Into<String>) -> Self {
        Self { chroot: chroot.into(), ..self }
    }

    /// Sets [`path`](Self::path).
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Sets [`user`](Self::user).
    pub fn user(self, name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { user: Some(User::new(name, password)), ..self }
    }

    /// Sets [`user`](Self::user) with a password from a file.
    ///
    /// It is read for every connection.
    pub fn user_from_file(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { user: Some(User::from_file(name, path)), ..self }
    }

    /// Sets [`acl`](Self::acl).
    pub fn acl(self, acl: Acl) -> Self {
        Self { acl, ..self }
    }

    /// Sets [`tls`](Self::tls).
    pub fn tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets [`layouts`](Self::layouts) to this one.
    pub fn layout(self, layout: impl Layout) -> Self {
        Self { layouts: vec![Arc::new(layout)], ..self }
    }

    /// Adds a layout that is read beside the first one, for the time of a migration.
    pub fn also_read(mut self, layout: impl Layout) -> Self {
        self.layouts.push(Arc::new(layout));
        self
    }

    /// Sets [`session_timeout`](Self::session_timeout).
    pub fn session_timeout(self, timeout: Duration) -> Self {
        Self { session_timeout: timeout, ..self }
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets [`request_timeout`](Self::request_timeout).
    pub fn request_timeout(self, timeout: Duration) -> Self {
        Self { request_timeout: timeout, ..self }
    }

    /// Sets [`max_reply`](Self::max_reply).
    pub fn max_reply(self, n_bytes: usize) -> Self {
        Self { max_reply: n_bytes, ..self }
    }

    /// Sets [`max_request`](Self::max_request).
    pub fn max_request(self, n_bytes: usize) -> Self {
        Self { max_request: n_bytes, ..self }
    }

    /// Sets [`registry`](Self::registry).
    pub fn registry(self, registry: RegistryConfig) -> Self {
        Self { registry, ..self }
    }

    /// Checks the settings, and brings paths into the form that is used.
    pub(crate) fn validated(mut self) -> Result<Self> {
        if self.servers.is_empty() {
            return Err(refused("no server given; name at least one member of the ensemble"));
        }
        if self.layouts.is_empty() {
            return Err(refused("no layout given; the first one writes"));
        }
        if let Some(user) = &self.user {
            user.password()?;
        }
        if self.acl == Acl::Creator && self.user.is_none() {
            return Err(refused("acl creator needs a user"));
        }
        let limits = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
        if !limits.contains(&self.session_timeout) {
            return Err(refused("session_timeout has to be between 1 s and 24 h"));
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(refused("a timeout of zero lets nothing succeed"));
        }
        if self.max_reply < MIN_MESSAGE || self.max_request < MIN_MESSAGE {
            return Err(refused("max_reply and max_request have to be at least 64 KiB"));
        }
        self.connect_timeout = self.connect_timeout.min(self.session_timeout / 3);
        self.chroot = path::normal(&self.chroot)?;
        self.path = path::normal(&self.path)?;
        Ok(self)
    }
}

impl fmt::Debug for ZooKeeperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|server| url::without_user(server));
        f.debug_struct("ZooKeeperConfig")
            .field("servers", &servers.collect::<Vec<_>>())
            .field("chroot", &self.chroot)
            .field("path", &self.path)
            .field("user", &self.user)
            .field("acl", &self.acl)
            .field("tls", &self.tls)
            .field("layouts", &self.layouts)
            .field("session_timeout", &self.session_timeout)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// For a file, which cannot name any.
impl Default for ZooKeeperConfig {
    fn default() -> Self {
        Self::new(Vec::<String>::new())
    }
}

fn layouts() -> Vec<Arc<dyn Layout>> {
    vec![Arc::new(Curator)]
}

pub(crate) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "configure").with_message(message)
}

/// Less than this, and a list of watches or of a few hundred instances does not fit.
const MIN_MESSAGE: usize = 64 << 10;

#[cfg(test)]
mod tests;
