use std::{io, net::SocketAddr, ops::Deref, path::Path, process::Command};

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::Server;
use crate::{
    loopback::{free_ports, own_address},
    servers::ServerBinary,
    wire::request,
};

/// An etcd node, alone in its cluster.
#[derive(Debug)]
pub struct Etcd {
    server: Server,
    address: SocketAddr,
}

/// How to start an [`Etcd`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EtcdConfig {
    binary: ServerBinary,
    args: Vec<String>,
}

impl Etcd {
    /// Starts a node.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(config: EtcdConfig) -> io::Result<Self> {
        let ip = own_address();
        let [client, peer] = free_ports(ip)?;
        let [address, peer] = [client, peer].map(|port| SocketAddr::from((ip, port)));
        let server = Server::start(
            move |data| config.command(data, address, peer),
            move || is_ready(address).boxed(),
        );
        Ok(Self { server: server.await?, address })
    }

    /// Where its clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `http://127.1.2.3:20000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Drops all revisions but the latest, as the housekeeping of its users does.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, or refuses; with its answer.
    pub async fn compact(&self) -> io::Result<()> {
        let read = request(self.address, "POST", "/v3/kv/range", r#"{"key":"AA=="}"#).await?;
        let read: Value = serde_json::from_str(&read.body)?;
        let revision = json!({ "revision": read["header"]["revision"], "physical": true });
        let path = "/v3/kv/compaction";
        let answer = request(self.address, "POST", path, &revision.to_string()).await?;
        match answer.status {
            200 => Ok(()),
            _ => Err(io::Error::other(answer.body)),
        }
    }
}

/// Stop, kill, suspend, restart.
impl Deref for Etcd {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl EtcdConfig {
    /// A node with short election times, which does not wait for the disk.
    ///
    /// It has a leader in 0.3 s.
    pub fn new(binary: ServerBinary) -> Self {
        Self { binary, args: Vec::new() }
    }

    /// Adds command line arguments.
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    fn command(&self, data: &Path, client: SocketAddr, peer: SocketAddr) -> Command {
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new(&self.binary.path);
        command
            .args(["--name", "node", "--unsafe-no-fsync"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "250"])
            .arg("--data-dir")
            .arg(data.join("etcd"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("node={peer}")])
            .args(&self.args);
        command
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    match request(address, "GET", "/health", "").await {
        Ok(answer) => answer.status == 200 && answer.body.contains("true"),
        Err(_) => false,
    }
}
