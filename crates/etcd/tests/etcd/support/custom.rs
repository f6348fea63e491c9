//! Servers that the testkit has no words for: with TLS, and several in one cluster.

use std::{net::SocketAddr, path::Path, process::Command};

use futures_util::{FutureExt, future::try_join_all};
use tower_sd_testkit::{
    loopback::{free_ports, own_address},
    real::Server,
    servers::ServerBinary,
    wire::request,
};

/// Nodes of one cluster, each on an address of its own.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Cluster {
    pub(crate) async fn start(binary: &ServerBinary, n_nodes: usize) -> Self {
        let places: Vec<(SocketAddr, SocketAddr)> = (0..n_nodes).map(|_| place()).collect();
        let names = places.iter().enumerate();
        let members: Vec<String> =
            names.map(|(n, (_, peer))| format!("n{n}=http://{peer}")).collect();
        let members = members.join(",");
        let nodes = places.into_iter().enumerate().map(|(n, (client, peer))| {
            Node::start(binary, format!("n{n}"), client, peer, members.clone(), "new")
        });
        let nodes = try_join_all(nodes).await.expect("the cluster starts");
        Self { nodes }
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.to_string()).collect()
    }

    /// The index of the leader.
    pub(crate) async fn leader(&self) -> usize {
        for (n, node) in self.nodes.iter().enumerate() {
            let client = etcd_client::Client::connect([node.client.to_string()], None).await;
            let status = client.expect("an address").status().await;
            if status.is_ok_and(|it| it.header().is_some_and(|h| h.member_id() == it.leader())) {
                return n;
            }
        }
        panic!("no leader")
    }
}

impl Node {
    pub(crate) async fn start(
        binary: &ServerBinary,
        name: String,
        client: SocketAddr,
        peer: SocketAddr,
        members: String,
        state: &'static str,
    ) -> std::io::Result<Self> {
        let path = binary.path.clone();
        let command = move |data: &Path| {
            let mut command = Command::new(&path);
            command
                .args(["--name", &name, "--unsafe-no-fsync"])
                .args(["--heartbeat-interval", "50", "--election-timeout", "250"])
                .arg("--data-dir")
                .arg(data.join("etcd"))
                .args(["--listen-client-urls", &format!("http://{client}")])
                .args(["--advertise-client-urls", &format!("http://{client}")])
                .args(["--listen-peer-urls", &format!("http://{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .args(["--initial-cluster", &members, "--initial-cluster-state", state]);
            command
        };
        let ready = move || async move { state == "existing" || is_well(client).await }.boxed();
        let server = Server::start(command, ready).await?;
        Ok(Self { server, client, peer })
    }
}

/// Where a node listens for clients and for peers.
pub(crate) fn place() -> (SocketAddr, SocketAddr) {
    let ip = own_address();
    let [client, peer] = free_ports(ip).expect("there are free ports");
    ((ip, client).into(), (ip, peer).into())
}

async fn is_well(client: SocketAddr) -> bool {
    let answer = request(client, "GET", "/health", "").await;
    answer.is_ok_and(|it| it.status == 200 && it.body.contains("true"))
}
