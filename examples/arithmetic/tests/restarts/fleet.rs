use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{loopback::free_ports, process::Process};

use crate::client::Protocol;

/// Three servers, each on a port that it keeps.
pub(crate) struct Fleet {
    servers: Vec<Server>,
    registry: String,
    protocol: Protocol,
    logs: TempDir,
}

struct Server {
    port: u16,
    process: Process,
}

impl Fleet {
    pub(crate) async fn start(registry: &str, protocol: Protocol) -> Self {
        let logs = TempDir::new().expect("a folder");
        let ports: [u16; 3] = free_ports(Ipv4Addr::LOCALHOST).expect("free ports");
        let mut servers = Vec::new();
        for port in ports {
            let process = start(registry, protocol, port, logs.path()).await;
            servers.push(Server { port, process });
        }
        Self { servers, registry: registry.to_owned(), protocol, logs }
    }

    /// SIGTERM, and a new one when it has ended well. One after the other.
    pub(crate) async fn restart_all(&mut self) {
        for n in 0..self.servers.len() {
            self.restart(n).await;
        }
    }

    pub(crate) async fn restart(&mut self, n: usize) {
        let status = self.servers[n].process.stop(STOP).await.expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.servers[n].process.output());
        self.start_again(n).await;
    }

    /// SIGKILL: the registry gets no notice.
    pub(crate) fn kill(&self, n: usize) {
        self.servers[n].process.kill().expect("it runs");
    }

    pub(crate) async fn start_again(&mut self, n: usize) {
        let port = self.servers[n].port;
        let process = start(&self.registry, self.protocol, port, self.logs.path()).await;
        self.servers[n].process = process;
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }
}

/// Waits until it reports that it is registered.
async fn start(registry: &str, protocol: Protocol, port: u16, logs: &Path) -> Process {
    let log = logs.join(format!("{port}-{}", fs::read_dir(logs).expect("our folder").count()));
    let listen = format!("127.0.0.1:{port}");
    let args = ["server", "--registry", registry, "--listen", &listen];
    let args = args.into_iter().chain(protocol.flag());
    let process = Process::start(Command::new(program()).args(args), &log).expect("starts");
    listening_on(&process, &log).await;
    process
}

/// Waits until a server prints where it listens, which it does when it is registered.
pub(crate) async fn listening_on(server: &Process, log: &Path) -> SocketAddr {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some(address) = text.lines().find_map(|line| line.strip_prefix("listening on ")) {
            return address.parse().expect("an address");
        }
        assert!(begun.elapsed() < START, "{}", server.output());
        sleep(Duration::from_millis(5)).await;
    }
}

/// The release build that `cargo xtask test --slow` makes, or else the one that cargo has made for
/// this test.
pub(crate) fn program() -> PathBuf {
    release().unwrap_or_else(|| env!("CARGO_BIN_EXE_arithmetic").into())
}

/// Which of the two it is.
pub(crate) fn build() -> &'static str {
    if release().is_some() { "release build" } else { "development build" }
}

fn release() -> Option<PathBuf> {
    env::var_os("TOWER_SD_ARITHMETIC").map(PathBuf::from)
}

const START: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(15);
