use std::{io, net::SocketAddr};

use futures_util::{FutureExt, future::try_join_all};

use super::{ConsulConfig, Server};
use crate::{
    loopback::{free_ports, own_address},
    servers::ServerBinary,
    wire::request,
};

/// Consul servers that elect a leader, and a client agent.
///
/// Each has its own address, and all have the same ports.
///
/// They keep their data through [`Server::restart`].
#[derive(Debug)]
pub struct ConsulCluster {
    servers: Vec<Server>,
    server_addresses: Vec<SocketAddr>,
    agent: Server,
    address: SocketAddr,
}

impl ConsulCluster {
    /// Starts `n_servers` and a client agent, and waits until all know all.
    ///
    /// # Errors
    ///
    /// One does not become ready; with its output.
    pub async fn start(binary: &ServerBinary, n_servers: usize) -> io::Result<Self> {
        let ports = free_ports::<4>(own_address())?;
        let ips: Vec<String> = (0..n_servers).map(|_| own_address().to_string()).collect();
        let start = |ip: String, n_nodes: usize, role: String| {
            let config = ConsulConfig::member(binary.clone()).config(member(&ip, &ips, &role));
            let address = address(&ip, ports[0]);
            Server::start(
                move |data| config.command(data, &ip, ports),
                move || lists_nodes(address, n_nodes).boxed(),
            )
        };
        let server = format!(r#""server": true, "bootstrap_expect": {n_servers}"#);
        let servers = ips.iter().map(|ip| start(ip.clone(), n_servers, server.clone()));
        let servers = try_join_all(servers).await?;
        let ip = own_address().to_string();
        let agent = start(ip.clone(), n_servers + 1, r#""server": false"#.to_owned()).await?;
        let server_addresses = ips.iter().map(|ip| address(ip, ports[0])).collect();
        Ok(Self { servers, server_addresses, agent, address: address(&ip, ports[0]) })
    }

    /// Where the client agent's HTTP API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The client agent.
    pub fn agent(&self) -> &Server {
        &self.agent
    }

    /// The servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Where the HTTP API of each of the servers is.
    pub fn server_addresses(&self) -> &[SocketAddr] {
        &self.server_addresses
    }

    /// The server that leads.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn leader(&self) -> io::Result<&Server> {
        let leader = request(self.address, "GET", "/v1/status/leader", "").await?.body;
        let leads = |of: &SocketAddr| leader.contains(&format!("\"{}:", of.ip()));
        let found = self.server_addresses.iter().position(leads).map(|n| &self.servers[n]);
        found.ok_or_else(|| io::Error::other(format!("no server leads, but {leader}")))
    }

    /// Kills all servers; the client agent stays.
    pub fn kill_servers(&self) {
        self.servers.iter().for_each(Server::kill);
    }

    /// Starts all servers on the data that they have; returns when they have a leader.
    ///
    /// # Errors
    ///
    /// One does not become ready; with its output.
    pub async fn restart_servers(&self) -> io::Result<()> {
        try_join_all(self.servers.iter().map(Server::restart)).await.map(|_| ())
    }

    /// Kills all servers and starts them concurrently without any data.
    ///
    /// Returns when they have a leader.
    ///
    /// # Errors
    ///
    /// One does not become ready; with its output.
    pub async fn wipe_servers(&self) -> io::Result<()> {
        // All of them before the first is started: one that lives would teach it.
        self.kill_servers();
        try_join_all(self.servers.iter().map(Server::restart_empty)).await.map(|_| ())
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("it was an address before it was text"), port)
}

/// What makes it a member, beside what all agents have.
fn member(ip: &str, join: &[String], role: &str) -> String {
    // Autopilot would remove a server that is killed, and a second kill soon after lose the leader
    // for good.
    format!(
        r#"{{
  "node_name": "{}", {role},
  "retry_join": {join:?}, "retry_interval": "1s",
  "autopilot": {{"cleanup_dead_servers": false}}
}}"#,
        ip.replace('.', "-")
    )
}

/// It can be written to, and has so many nodes.
async fn lists_nodes(address: SocketAddr, n: usize) -> bool {
    match request(address, "GET", "/v1/catalog/nodes", "").await {
        Ok(answer) => answer.status == 200 && answer.body.matches("\"Node\":").count() >= n,
        Err(_) => false,
    }
}
