mod api;
mod authority;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::Path,
    process::Command,
};

use futures_util::FutureExt;
use rcgen::KeyPair;

pub use self::{api::KubernetesApi, authority::Authority};
use super::{Etcd, EtcdConfig, Server};
use crate::{
    loopback::{free_ports, own_address},
    proxy::Proxy,
    servers::ServerBinary,
};

/// A Kubernetes API server with its etcd, and a fault proxy in front of it.
///
/// TLS, tokens and RBAC are on. There are no controllers: a test writes the slices of endpoints
/// itself.
#[derive(Debug)]
pub struct Kubernetes {
    server: Server,
    etcd: Etcd,
    proxy: Proxy,
    address: SocketAddr,
    authority: Authority,
}

/// How to start a [`Kubernetes`].
#[derive(Clone, Debug)]
#[must_use]
pub struct KubernetesConfig {
    kubernetes: ServerBinary,
    etcd: ServerBinary,
    args: Vec<String>,
}

/// What the server reads at its start, as `(file, text)`.
type Files = Vec<(&'static str, String)>;

impl Kubernetes {
    /// The token of a user that may do everything.
    pub const ADMIN: &str = "admin-token";

    /// Starts the server on an empty etcd.
    ///
    /// # Errors
    ///
    /// One of both does not become ready; with its output.
    pub async fn start(config: KubernetesConfig) -> io::Result<Self> {
        let ip = own_address();
        let [port] = free_ports(ip)?;
        let address = SocketAddr::from((ip, port));
        let etcd = Etcd::start(EtcdConfig::new(config.etcd.clone())).await?;
        let proxy = Proxy::start(address).await?;
        let authority = Authority::new()?;
        let names = [address.ip(), proxy.address().ip(), Ipv4Addr::LOCALHOST.into()];
        let names = names.map(|ip| ip.to_string()).into_iter().chain(["localhost".to_owned()]);
        let files = files(&authority, names)?;
        let (url, ca) = (etcd.url(), authority.pem().to_owned());
        let server = Server::start(
            move |data| config.command(data, &files, address, &url),
            move || is_ready(address, ca.clone()).boxed(),
        );
        Ok(Self { server: server.await?, etcd, proxy, address, authority })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `https://127.1.2.3:20000`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// As `https://127.1.2.3:20000`, through the [`proxy`](Self::proxy).
    pub fn proxied_url(&self) -> String {
        format!("https://{}", self.proxy.address())
    }

    /// The proxy in front of it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Where its data is.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Signs its certificate, and those of clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns a new client of an administrator, past the proxy.
    ///
    /// # Errors
    ///
    /// None that a test could cause.
    pub fn admin(&self) -> io::Result<KubernetesApi> {
        KubernetesApi::new(self.address, self.authority.pem(), Self::ADMIN)
    }
}

/// Stop, kill, suspend, restart: of the API server alone.
impl Deref for Kubernetes {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl KubernetesConfig {
    /// Creates the defaults: a server with RBAC, ready in a second or two.
    pub fn new(kubernetes: ServerBinary, etcd: ServerBinary) -> Self {
        Self { kubernetes, etcd, args: Vec::new() }
    }

    /// Adds command line arguments.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    fn command(&self, data: &Path, files: &Files, address: SocketAddr, etcd: &str) -> Command {
        for (file, text) in files {
            // A file that is missing makes the server end with a sentence that names it.
            let _written = fs::write(data.join(file), text);
        }
        let file = |file: &str| data.join(file).display().to_string();
        let mut command = Command::new(&self.kubernetes.path);
        command
            .arg(format!("--etcd-servers={etcd}"))
            .arg(format!("--bind-address={}", address.ip()))
            .arg(format!("--advertise-address={}", address.ip()))
            .arg(format!("--secure-port={}", address.port()))
            .arg(format!("--cert-dir={}", data.display()))
            .arg(format!("--tls-cert-file={}", file(CERTIFICATE)))
            .arg(format!("--tls-private-key-file={}", file(KEY)))
            .arg(format!("--client-ca-file={}", file(CA)))
            .arg(format!("--token-auth-file={}", file(TOKENS)))
            .arg("--authorization-mode=RBAC")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file(ACCOUNTS)))
            .arg(format!("--service-account-signing-key-file={}", file(ACCOUNTS_KEY)))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            // It would list the address of loopback as an endpoint, which is refused.
            .arg("--endpoint-reconciler-type=none")
            .args(&self.args);
        command
    }
}

fn files(authority: &Authority, names: impl Iterator<Item = String>) -> io::Result<Files> {
    let (certificate, key) = authority.sign("kube-apiserver", names)?;
    let accounts = KeyPair::generate().map_err(io::Error::other)?;
    Ok(vec![
        (CA, authority.pem().to_owned()),
        (CERTIFICATE, certificate),
        (KEY, key),
        (ACCOUNTS, accounts.public_key_pem()),
        (ACCOUNTS_KEY, accounts.serialize_pem()),
        (TOKENS, format!("{},admin,1,\"system:masters\"\n", Kubernetes::ADMIN)),
    ])
}

/// A new client each time: the runtime of an earlier one may be gone.
async fn is_ready(address: SocketAddr, ca: String) -> bool {
    match KubernetesApi::new(address, &ca, Kubernetes::ADMIN) {
        Ok(api) => api.get("/readyz").await.is_ok(),
        Err(_) => false,
    }
}

const CA: &str = "ca.crt";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
const ACCOUNTS: &str = "accounts.pub";
const ACCOUNTS_KEY: &str = "accounts.key";
const TOKENS: &str = "tokens.csv";
