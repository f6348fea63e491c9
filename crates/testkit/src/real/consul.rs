use std::{
    fmt::Write,
    fs, io,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
};

use futures_util::FutureExt;

use super::Server;
use crate::{
    loopback::{free_ports, own_address},
    servers::ServerBinary,
    wire::request,
};

/// A Consul agent that is a server too, alone in its datacenter.
///
/// It contacts no host but this machine, and accepts more connections of one client than the
/// default of 200: a test's cases share one agent, and Consul 1.8 keeps the slot of a closed
/// blocking query until its wait is over.
#[derive(Debug)]
pub struct Consul {
    server: Server,
    address: SocketAddr,
    dns: SocketAddr,
}

/// How to start a [`Consul`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConsulConfig {
    binary: ServerBinary,
    mode: Mode,
    socket: Option<PathBuf>,
    extra: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Dev,
    Server,
    /// Of a cluster: a configuration file makes it a server or a client.
    Member,
}

impl Consul {
    /// Starts `consul agent -dev`, empty after every restart.
    ///
    /// It is ready in under a second.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn dev(binary: ServerBinary) -> io::Result<Self> {
        Self::start(ConsulConfig::dev(binary)).await
    }

    /// Starts an agent.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(config: ConsulConfig) -> io::Result<Self> {
        let ip = own_address();
        let ports @ [http, dns, ..] = free_ports::<4>(ip)?;
        let address = SocketAddr::from((ip, http));
        let server = Server::start(
            move |data| config.command(data, &ip.to_string(), ports),
            move || is_ready(address).boxed(),
        );
        Ok(Self { server: server.await?, address, dns: SocketAddr::from((ip, dns)) })
    }

    /// Where its HTTP API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its DNS is, UDP and TCP.
    pub fn dns_address(&self) -> SocketAddr {
        self.dns
    }

    /// As `http://127.1.2.3:20000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Stop, kill, suspend, restart.
impl Deref for Consul {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl ConsulConfig {
    /// A `-dev` agent, which keeps nothing on disk.
    pub fn dev(binary: ServerBinary) -> Self {
        Self { binary, mode: Mode::Dev, socket: None, extra: Vec::new() }
    }

    /// A server of one, which keeps its data through [`Server::restart`].
    ///
    /// It is ready in about two seconds.
    pub fn server(binary: ServerBinary) -> Self {
        Self { mode: Mode::Server, ..Self::dev(binary) }
    }

    pub(super) fn member(binary: ServerBinary) -> Self {
        Self { mode: Mode::Member, ..Self::dev(binary) }
    }

    /// Has it serve its HTTP API on this socket too.
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Adds a configuration file with this JSON: ACLs, TLS, limits.
    ///
    /// It overrides the settings that are there.
    pub fn config(mut self, json: impl Into<String>) -> Self {
        self.extra.push(json.into());
        self
    }

    pub(super) fn command(&self, data: &Path, ip: &str, ports: [u16; 4]) -> Command {
        let mut command = Command::new(&self.binary.path);
        command.arg("agent").env("CHECKPOINT_DISABLE", "1");
        match self.mode {
            Mode::Dev => command.arg("-dev"),
            Mode::Server => command.args(["-server", "-bootstrap-expect=1"]),
            Mode::Member => &mut command,
        };
        if !matches!(self.mode, Mode::Dev) {
            command.arg(format!("-data-dir={}", data.display()));
        }
        let base = self.base(ip, ports);
        for (n, json) in [&base].into_iter().chain(&self.extra).enumerate() {
            let file = data.join(format!("config-{n}.json"));
            // A file that is missing makes the agent end with a sentence that names it.
            let _written = fs::write(&file, json);
            command.arg(format!("-config-file={}", file.display()));
        }
        command
    }

    fn base(&self, ip: &str, [http, dns, server, serf]: [u16; 4]) -> String {
        let mut ports = format!(
            r#""http":{http},"dns":{dns},"server":{server},"serf_lan":{serf},"serf_wan":-1,"grpc":-1"#
        );
        // Older ones refuse keys that they do not know.
        if !is_before_1_14(&self.binary.version) {
            let _infallible = write!(ports, r#","grpc_tls":-1"#);
        }
        let mut listens = ip.to_owned();
        if let Some(socket) = &self.socket {
            let _infallible = write!(listens, " unix://{}", socket.display());
        }
        format!(
            r#"{{
  "node_name": "node", "bind_addr": "{ip}", "client_addr": "{ip}", "advertise_addr": "{ip}",
  "addresses": {{"http": "{listens}"}},
  "ports": {{{ports}}},
  "disable_update_check": true, "log_level": "info",
  "leave_on_terminate": false, "skip_leave_on_interrupt": true,
  "performance": {{"raft_multiplier": 1}},
  "limits": {{"http_max_conns_per_client": 5000}}
}}"#
        )
    }
}

/// `grpc_tls` came with 1.14.
fn is_before_1_14(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version < (1, 14)
}

/// It has a leader, and its own node is in the catalogue: it can be written to.
async fn is_ready(address: SocketAddr) -> bool {
    match request(address, "GET", "/v1/catalog/nodes", "").await {
        Ok(answer) => answer.status == 200 && answer.body.contains("\"node\""),
        Err(_) => false,
    }
}
