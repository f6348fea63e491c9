use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{
    process::Process,
    wire::{Answer, request},
};

/// A `server` process without a registry, or a `gateway` process.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _log: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::run(&["server", "--registry", "static://127.0.0.1:1"]).await
    }

    /// Started with these arguments.
    pub(crate) async fn run(args: &[&str]) -> Self {
        let log = TempDir::new().expect("a folder");
        let path = log.path().join("log");
        let mut command = arithmetic();
        command.args(args).args(["--listen", "127.0.0.1:0"]);
        let process = Process::start(&mut command, &path).expect("starts");
        let address = listening_on(&path).await;
        Self { process, address, _log: log }
    }

    pub(crate) async fn ask(&self, method: &str, target: &str) -> Answer {
        request(self.address, method, target, "").await.expect("answers")
    }
}

pub(crate) fn arithmetic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arithmetic"))
}

async fn listening_on(log: &Path) -> SocketAddr {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(address) = text.strip_prefix("listening on ").and_then(|t| t.strip_suffix('\n'))
        {
            return address.parse().expect("an address");
        }
        assert!(Instant::now() < deadline, "the server prints: {text:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
