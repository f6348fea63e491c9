use tower_sd_core::{RegistryUrl, Result, TlsConfig};

use crate::{BACKEND, Family, KubernetesConfig, config::refuse};

impl KubernetesConfig {
    /// Reads the settings from a URL: `kubernetes://shop?context=staging`.
    ///
    /// The host is the namespace; without it, that of the pod or of the context, or else `default`.
    /// The API server is that of the option `server`, or else that of a kubeconfig
    /// ([`from_kubeconfig`](Self::from_kubeconfig)) if `kubeconfig` or `context` is given, or else
    /// that of the pod ([`in_cluster`](Self::in_cluster)); outside of pods that of the kubeconfig.
    /// The service is not part of the URL. The options of TLS are refused where a pod or a
    /// kubeconfig brings its own. Options, in the grammar of [`RegistryUrl`]:
    ///
    /// | option | sets |
    /// |---|---|
    /// | `kubeconfig`, `context` | the kubeconfig file, and the name of a context in it |
    /// | `server` | [`server`](Self::server) |
    /// | `token-file` | [`token_file`](Self::token_file) |
    /// | `ca-file`, `ca-path`, `cert-file`, `key-file` | [`tls`](Self::tls) |
    /// | `tls`, `server-name`, `verify` | [`tls`](Self::tls) |
    /// | `zone` | [`zone`](Self::zone) |
    /// | `family` (`ipv4-first`, `ipv6-first` or `both`) | [`family`](Self::family) |
    ///
    /// ```
    /// use tower_sd::kubernetes::KubernetesConfig;
    ///
    /// let url = "kubernetes://shop?server=https://10.0.0.1:6443&zone=eu-1a";
    /// let config = KubernetesConfig::from_url(url)?;
    /// assert_eq!((config.namespace.as_str(), config.zone.as_deref()), ("shop", Some("eu-1a")));
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for options of TLS beside a kubeconfig or a pod,
    /// which have their own; for an unknown option, with those that there are; for a user or
    /// password in the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        url.no_path()?;
        let namespace = namespace(&url)?;
        let (server, file) = (url.text("server")?, url.file("kubeconfig")?);
        let (context, tls) = (url.text("context")?, url.tls()?);
        let by_file = file.is_some() || context.is_some();
        if server.is_some() && by_file {
            return Err(url.refusal("option server: the kubeconfig names the server already"));
        }
        let token_file = url.secret_file("token-file", "token")?;
        let zone = url.text("zone")?;
        let family = match url.text("family")?.as_deref() {
            None | Some("ipv4-first") => Family::Ipv4First,
            Some("ipv6-first") => Family::Ipv6First,
            Some("both") => Family::Both,
            Some(_) => {
                return Err(url.refusal("option family: there are ipv4-first, ipv6-first and both"));
            }
        };
        url.finish()?;
        let mut config = match server {
            Some(server) => Self::new(server),
            None if by_file || !Self::is_in_cluster() => {
                Self::from_kubeconfig(file.as_deref(), context.as_deref())?
            }
            None => Self::in_cluster()?,
        };
        config.namespace = namespace.unwrap_or(config.namespace);
        if tls.is_some() {
            if config.tls.is_some_and(|known| known != TlsConfig::new()) {
                let message = "TLS options: the kubeconfig or the pod has its own; give the server";
                return Err(refuse(message));
            }
            config.tls = tls;
        }
        if token_file.is_some() {
            (config.token_file, config.exec) = (token_file, None);
        }
        (config.zone, config.family) = (zone, family);
        config.validate()?;
        Ok(config)
    }
}

/// The host, without the port that `RegistryUrl` adds to one.
fn namespace(url: &RegistryUrl) -> Result<Option<String>> {
    let hosts = url.addresses(0);
    match hosts.as_slice() {
        [] => Ok(None),
        [host] => match host.strip_suffix(":0") {
            Some(namespace) => Ok(Some(namespace.to_owned())),
            None => Err(url.refusal("the host is a namespace, and has no port")),
        },
        _ => Err(url.refusal("the host is one namespace; each has a registry of its own")),
    }
}
