//! The settings of a pod: the variables and files that every container gets.

use std::{env, fs, path::Path};

use tower_sd_core::{Result, TlsConfig};

use super::{KubernetesConfig, refuse};

impl KubernetesConfig {
    /// Creates the settings of a process in a pod, with its service account.
    ///
    /// The variables `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` locate the API server.
    /// Token, authority and namespace are the files in
    /// `/var/run/secrets/kubernetes.io/serviceaccount`.
    ///
    /// # Errors
    ///
    /// `Config` outside of a pod, and for a file that cannot be read.
    pub fn in_cluster() -> Result<Self> {
        Self::of_pod(|name| env::var(name).ok(), Path::new(SERVICE_ACCOUNT))
    }

    /// Whether this process runs in a pod.
    pub(crate) fn is_in_cluster() -> bool {
        env::var_os(HOST).is_some_and(|host| !host.is_empty())
    }

    pub(super) fn of_pod(
        variable: impl Fn(&'static str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self> {
        let text = |name| variable(name).filter(|value| !value.is_empty());
        let Some(host) = text(HOST) else {
            let message = format!("{HOST} is not set: this process runs in no pod of Kubernetes");
            return Err(refuse(message));
        };
        let port = text("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let namespace = read(&folder.join("namespace"))?;
        Ok(Self::new(format!("https://{host}:{port}"))
            .namespace(namespace.trim())
            .token_file(folder.join("token"))
            .tls(TlsConfig::new().with_root(folder.join("ca.crt"))))
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|cause| {
        let message = format!(
            "cannot read {}: does the pod's service account mount its token?",
            file.display()
        );
        refuse(message).with_source(cause)
    })
}

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
