//! Where the API server is: by code, in a pod, by kubeconfig, by URL.

mod kubeconfig;
mod pod;
#[cfg(test)]
mod tests;
mod yaml;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use ::url::Url;
use serde::Deserialize;
use tower_sd_core::{
    RegistryConfig, Result, Secret, TlsConfig, duration,
    url::{has_user, without_user},
};
use tower_sd_net::Target;

use crate::{
    Family,
    error::{self, CONFIGURE},
    query::is_label,
};

/// Where the API server is, and how to use it.
///
/// ```
/// use tower_sd::kubernetes::KubernetesConfig;
/// use tower_sd::tls::TlsConfig;
///
/// let config = KubernetesConfig::new("https://10.0.0.1:6443")
///     .namespace("shop")
///     .token("s3cr3t")
///     .tls(TlsConfig::new().with_root("/etc/kubernetes/ca.crt"));
/// assert!(!format!("{config:?}").contains("s3cr3t"));
/// ```
#[derive(Clone, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct KubernetesConfig {
    /// The URL of the API server. Defaults to `https://127.0.0.1:6443`.
    pub server: String,
    /// The namespace of the followed services. Defaults to `default`.
    pub namespace: String,
    /// The zone of this process. Defaults to none.
    ///
    /// Endpoints that the topology hints allot to another zone get
    /// [priority](tower_sd_core::Instance::priority) 1, provided that all ready endpoints have
    /// hints and some have this zone.
    pub zone: Option<String>,
    /// The IP family of services with both. Defaults to [`Family::Ipv4First`].
    pub family: Family,
    /// The bearer token. Defaults to none.
    pub token: Option<Secret>,
    /// A file with the bearer token. Defaults to none.
    ///
    /// It wins over [`token`](Self::token). It is read when the client is made, again for a request
    /// 1 s or more later, and after a refusal: tokens in pods are replaced within the hour.
    pub token_file: Option<PathBuf>,
    /// A program that prints the bearer token. Defaults to none.
    ///
    /// It wins over both. It is run for the first request, and after a refusal.
    pub exec: Option<ExecPlugin>,
    /// TLS of a server whose URL has `https`, with the client certificate.
    ///
    /// Defaults to the system's authorities.
    ///
    /// Needs the feature `tls-ring` or `tls`.
    pub tls: Option<TlsConfig>,
    /// The bound of one request, of a watch until it begins.
    ///
    /// Defaults to 10 s; zero is refused.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How many services are watched one by one. Defaults to 32.
    ///
    /// More share one watch of the namespace.
    pub max_single_watches: usize,
    /// The longest accepted EndpointSlice, as JSON.
    ///
    /// A longer one is skipped and counted. Defaults to 1.5 MiB; one of 1 000 endpoints has some
    /// 400 KB. A line or page above 16 MiB, or this if more, is an error of the watch or list.
    pub max_object: usize,
    /// The settings that all registries have.
    pub registry: RegistryConfig,
}

/// A program that prints a bearer token, as kubeconfig files name it.
///
/// It prints an `ExecCredential` of `client.authentication.k8s.io/v1`, as `aws`,
/// `gke-gcloud-auth-plugin` and `kubelogin` do.
#[derive(Clone, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct ExecPlugin {
    /// The program: a path, or a name that `PATH` finds.
    pub command: PathBuf,
    /// Its arguments. Defaults to none.
    pub args: Vec<String>,
    /// Variables that are added to its environment. Defaults to none.
    pub env: BTreeMap<String, String>,
    /// What its user reads when it is missing. Defaults to nothing.
    pub install_hint: Option<String>,
    /// The cluster, as JSON, for a program that needs it. Defaults to none.
    pub cluster_info: Option<String>,
    /// The version of its interface.
    ///
    /// Empty, the default, stands for `client.authentication.k8s.io/v1`.
    pub api_version: String,
}

/// The URL of the API server, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) base: Url,
    pub(crate) target: Target,
}

impl KubernetesConfig {
    /// Creates the defaults, with this API server.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            namespace: "default".to_owned(),
            zone: None,
            family: Family::default(),
            token: None,
            token_file: None,
            exec: None,
            tls: None,
            timeout: Duration::from_secs(10),
            max_single_watches: 32,
            max_object: 1_572_864,
            registry: RegistryConfig::default(),
        }
    }

    /// Sets [`namespace`](Self::namespace).
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), ..self }
    }

    /// Sets [`zone`](Self::zone).
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Sets [`family`](Self::family).
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// Sets [`token`](Self::token).
    pub fn token(self, token: impl Into<Secret>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets [`token_file`](Self::token_file).
    pub fn token_file(self, file: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(file.into()), ..self }
    }

    /// Sets [`exec`](Self::exec).
    pub fn exec(self, plugin: ExecPlugin) -> Self {
        Self { exec: Some(plugin), ..self }
    }

    /// Sets [`tls`](Self::tls).
    pub fn tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sets [`timeout`](Self::timeout).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets [`max_single_watches`](Self::max_single_watches).
    pub fn max_single_watches(self, max_single_watches: usize) -> Self {
        Self { max_single_watches, ..self }
    }

    /// Sets [`max_object`](Self::max_object).
    pub fn max_object(self, max_object: usize) -> Self {
        Self { max_object, ..self }
    }

    /// Sets [`registry`](Self::registry).
    pub fn registry(self, registry: RegistryConfig) -> Self {
        Self { registry, ..self }
    }

    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<()> {
        if !is_label(&self.namespace) {
            return Err(refuse("namespace: not a name of Kubernetes"));
        }
        if self.timeout.is_zero() {
            return Err(refuse("timeout: zero lets nothing succeed"));
        }
        if self.endpoint()?.base.scheme() == "http" && self.tls.is_some() {
            return Err(refuse("tls: the server's URL has http; the token would be readable"));
        }
        Ok(())
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        if has_user(&self.server) {
            return Err(refuse("server: has a user or password in it; use a token"));
        }
        let base = Url::parse(&self.server).map_err(|cause| {
            refuse("server: not a URL such as https://host:6443").with_source(cause)
        })?;
        let target = match (base.scheme(), base.host_str(), base.port_or_known_default()) {
            ("http" | "https", Some(host), Some(port)) => Target::host(host, port),
            _ => return Err(refuse("server: not a URL such as https://host:6443")),
        };
        Ok(Endpoint { base, target })
    }
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self::new("https://127.0.0.1:6443")
    }
}

impl fmt::Debug for KubernetesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesConfig")
            .field("server", &without_user(&self.server))
            .field("namespace", &self.namespace)
            .field("zone", &self.zone)
            .field("family", &self.family)
            .field("token", &self.token)
            .field("token_file", &self.token_file)
            .field("exec", &self.exec)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("max_single_watches", &self.max_single_watches)
            .field("max_object", &self.max_object)
            .field("registry", &self.registry)
            .finish()
    }
}

/// Without arguments and variables, which may be secrets.
impl fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecPlugin").field("command", &self.command).finish_non_exhaustive()
    }
}

pub(crate) fn refuse(message: impl Into<String>) -> tower_sd_core::Error {
    error::config(CONFIGURE, message)
}
