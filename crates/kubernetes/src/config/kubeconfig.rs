//! The settings of kubeconfig files, as kubectl has them.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tower_sd_core::{Error, Pem, Result, Secret, TlsConfig};

use super::{ExecPlugin, KubernetesConfig, refuse, yaml};

/// One file; of several, the first entry of a name wins.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(deserialize_with = "filled")]
    current_context: Option<String>,
    contexts: Option<Vec<Named>>,
    clusters: Option<Vec<Named>>,
    users: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    #[serde(deserialize_with = "filled")]
    user: Option<String>,
    #[serde(deserialize_with = "filled")]
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(deserialize_with = "filled")]
    certificate_authority: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    #[serde(deserialize_with = "filled")]
    tls_server_name: Option<String>,
    #[serde(deserialize_with = "filled")]
    proxy_url: Option<String>,
    extensions: Option<Vec<Extension>>,
}

#[derive(Deserialize)]
struct Extension {
    name: String,
    extension: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    #[serde(deserialize_with = "filled")]
    client_certificate: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    client_certificate_data: Option<String>,
    #[serde(deserialize_with = "filled")]
    client_key: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    client_key_data: Option<Secret>,
    #[serde(deserialize_with = "filled")]
    token: Option<Secret>,
    #[serde(rename = "tokenFile", deserialize_with = "filled")]
    token_file: Option<PathBuf>,
    #[serde(deserialize_with = "filled")]
    username: Option<Secret>,
    #[serde(rename = "as", deserialize_with = "filled")]
    impersonate: Option<Secret>,
    exec: Option<Exec>,
    auth_provider: Option<AuthProvider>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthProvider {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exec {
    api_version: String,
    command: PathBuf,
    args: Option<Vec<Value>>,
    env: Option<Vec<Variable>>,
    install_hint: Option<String>,
    provide_cluster_info: Option<bool>,
    interactive_mode: Option<String>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

impl KubernetesConfig {
    /// Reads the settings from kubeconfig files.
    ///
    /// Defaults to the files that `KUBECONFIG` lists, or else `~/.kube/config`; and to their
    /// current context. Clusters have authorities in files or inline; users have a client
    /// certificate, a token, a token file, or an exec plugin that prints a token.
    ///
    /// ```no_run
    /// use tower_sd::kubernetes::{Kubernetes, KubernetesConfig};
    ///
    /// let config = KubernetesConfig::from_kubeconfig(None, Some("staging"))?;
    /// let kubernetes = Kubernetes::new(config.namespace("shop"))?;
    /// # drop(kubernetes);
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for a file that cannot be read, or is malformed; for a context, cluster or user
    /// that is not there; for an `auth-provider`, a user name with a password, impersonation, and a
    /// proxy.
    pub fn from_kubeconfig(file: Option<&Path>, context: Option<&str>) -> Result<Self> {
        let files = match (file, env::var_os("KUBECONFIG").filter(|list| !list.is_empty())) {
            (Some(file), _) => vec![file.to_owned()],
            (None, Some(list)) => env::split_paths(&list).collect(),
            (None, None) => match env::home_dir() {
                Some(home) => vec![home.join(".kube/config")],
                None => {
                    return Err(refuse("kubeconfig: there is no home directory; set KUBECONFIG"));
                }
            },
        };
        Self::of_files(&files, context)
    }

    pub(super) fn of_files(files: &[PathBuf], context: Option<&str>) -> Result<Self> {
        // Of several files those that are missing are left out, as kubectl does.
        let there = |file: &&PathBuf| files.len() == 1 || file.exists();
        let files: Vec<File> = files.iter().filter(there).map(File::read).collect::<Result<_>>()?;
        let current = files.iter().find_map(|it| it.content.current_context.as_deref());
        let Some(name) = context.filter(|name| !name.is_empty()).or(current) else {
            return Err(refuse("kubeconfig: there is no current context; name one"));
        };
        let (context, _) = find::<Context>(&files, "context", name)?;
        let (cluster, cluster_folder) = find::<Cluster>(&files, "cluster", &context.cluster)?;
        let mut config = Self::new(cluster.server.clone());
        let mut tls = cluster.tls(cluster_folder)?;
        config.namespace = context.namespace.unwrap_or(config.namespace);
        if let Some(name) = context.user {
            let (user, folder) = find::<User>(&files, "user", &name)?;
            tls = user.identify(tls, folder)?;
            config.token = user.token.clone();
            config.token_file = user.token_file.as_ref().map(|file| folder.join(file));
            let of_cluster = || cluster.info(cluster_folder);
            config.exec = user.exec.map(|exec| exec.plugin(of_cluster, folder)).transpose()?;
        }
        if config.endpoint()?.base.scheme() == "https" {
            config.tls = Some(tls);
        }
        config.validate()?;
        Ok(config)
    }
}

/// A file, and the folder that its relative paths start from.
struct File {
    content: Kubeconfig,
    folder: PathBuf,
}

impl File {
    fn read(file: &PathBuf) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|cause| unreadable(file, cause))?;
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { content: parsed(yaml::parse(&text)?, "file")?, folder })
    }
}

/// The entry of a name, with the folder of its file.
fn find<'a, T: for<'de> Deserialize<'de>>(
    files: &'a [File],
    kind: &str,
    name: &str,
) -> Result<(T, &'a Path)> {
    for File { content, folder } in files {
        let entries = match kind {
            "context" => &content.contexts,
            "cluster" => &content.clusters,
            _ => &content.users,
        };
        let entry = entries.iter().flatten().find(|entry| entry.name == name);
        if let Some(value) = entry.and_then(|entry| entry.rest.get(kind)) {
            return Ok((parsed(value.clone(), kind)?, folder));
        }
    }
    Err(refuse(format!("kubeconfig: there is no {kind} {name:?}")))
}

/// `kubectl config` writes empty texts for what is not given.
fn filled<'de, D: Deserializer<'de>, T: From<String>>(text: D) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(text)?;
    Ok(text.filter(|text| !text.is_empty()).map(T::from))
}

/// Errors of serde quote values, which may be secrets.
fn parsed<T: for<'de> Deserialize<'de>>(value: Value, kind: &str) -> Result<T> {
    let value = if value.is_null() { json!({}) } else { value };
    serde_json::from_value(value)
        .map_err(|_quoting| refuse(format!("kubeconfig: a {kind} is not as kubectl writes it")))
}

impl Cluster {
    fn tls(&self, folder: &Path) -> Result<TlsConfig> {
        if self.proxy_url.is_some() {
            return Err(refuse(
                "kubeconfig: proxy-url is not supported; give the server's own URL",
            ));
        }
        let mut tls = TlsConfig::new();
        match (&self.certificate_authority_data, &self.certificate_authority) {
            (Some(data), _) => tls = tls.with_root(pem("certificate-authority-data", data)?),
            (None, Some(file)) => tls = tls.with_root(folder.join(file)),
            (None, None) => {}
        }
        if let Some(name) = &self.tls_server_name {
            tls = tls.with_server_name(name);
        }
        if self.insecure_skip_tls_verify == Some(true) {
            tls = tls.danger_accept_invalid_certificates();
        }
        Ok(tls)
    }

    /// What an exec plugin may require of the cluster, as client-go has it.
    fn info(&self, folder: &Path) -> Result<Value> {
        let authority = match (&self.certificate_authority_data, &self.certificate_authority) {
            (Some(data), _) => Some(unbroken(data)),
            (None, Some(file)) => {
                let file = folder.join(file);
                Some(STANDARD.encode(fs::read(&file).map_err(|cause| unreadable(&file, cause))?))
            }
            (None, None) => None,
        };
        let mut extensions = self.extensions.iter().flatten();
        let config = extensions.find(|it| it.name == EXEC_EXTENSION).map(|it| &it.extension);
        Ok(json!({
            "server": self.server,
            "certificate-authority-data": authority,
            "insecure-skip-tls-verify": self.insecure_skip_tls_verify.unwrap_or_default(),
            "tls-server-name": self.tls_server_name,
            "config": config,
        }))
    }
}

impl User {
    /// Adds the client certificate, and refuses what is not supported.
    fn identify(&self, tls: TlsConfig, folder: &Path) -> Result<TlsConfig> {
        if let Some(AuthProvider { name }) = &self.auth_provider {
            return Err(refuse(format!(
                "kubeconfig: auth-provider {name:?} was removed from Kubernetes 1.26; use its exec \
                 plugin: gke-gcloud-auth-plugin for gcp, kubelogin for azure and oidc"
            )));
        }
        if self.username.is_some() {
            return Err(refuse(
                "kubeconfig: username and password were removed from Kubernetes 1.19; use a token",
            ));
        }
        if self.impersonate.is_some() {
            return Err(refuse(
                "kubeconfig: impersonation is not supported; use the user's own token",
            ));
        }
        let certificate = match (&self.client_certificate_data, &self.client_certificate) {
            (Some(data), _) => Some(pem("client-certificate-data", data)?),
            (None, file) => file.as_ref().map(|file| folder.join(file).into()),
        };
        let key = match (&self.client_key_data, &self.client_key) {
            (Some(data), _) => Some(pem("client-key-data", data.expose())?),
            (None, file) => file.as_ref().map(|file| folder.join(file).into()),
        };
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(tls.with_identity(certificate, key)),
            (None, None) => Ok(tls),
            _ => Err(refuse("kubeconfig: a client certificate needs its key, and the key it")),
        }
    }
}

impl Exec {
    fn plugin(self, of_cluster: impl Fn() -> Result<Value>, folder: &Path) -> Result<ExecPlugin> {
        if !matches!(self.api_version.as_str(), V1 | V1BETA1) {
            let version = &self.api_version;
            return Err(refuse(format!("kubeconfig: exec: apiVersion {version:?}, not {V1}")));
        }
        if self.interactive_mode.as_deref() == Some("Always") {
            let message = "kubeconfig: exec: a plugin that always prompts cannot run in a service";
            return Err(refuse(message));
        }
        // A path with a slash is relative to the file, a name is searched in PATH.
        let is_path = self.command.components().count() > 1;
        let command = if is_path { folder.join(&self.command) } else { self.command };
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let env = self.env.unwrap_or_default().into_iter().map(|it| (it.name, it.value));
        let info = match self.provide_cluster_info {
            Some(true) => Some(of_cluster()?.to_string()),
            _ => None,
        };
        Ok(ExecPlugin {
            command,
            args: self.args.unwrap_or_default().into_iter().map(text).collect(),
            env: env.collect(),
            install_hint: self.install_hint,
            cluster_info: info,
            api_version: self.api_version,
        })
    }
}

fn pem(field: &str, data: &str) -> Result<Pem> {
    let text = STANDARD.decode(unbroken(data)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| refuse(format!("kubeconfig: {field} is no PEM in base64")))?;
    Ok(Pem::Text(text.into()))
}

/// In a block of YAML base64 has line breaks.
fn unbroken(data: &str) -> String {
    data.split_ascii_whitespace().collect()
}

fn unreadable(file: &Path, cause: std::io::Error) -> Error {
    refuse(format!("kubeconfig: cannot read {}", file.display())).with_source(cause)
}

const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";
const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";
