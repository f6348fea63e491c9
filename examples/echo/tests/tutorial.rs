//! The tutorial, step by step, with a real Consul.
//!
//! Every step's words are the README's.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{process::Process, real, servers::required, wire::request};

struct Scene {
    agent: real::Consul,
    logs: TempDir,
}

/// A program, and what it prints.
struct Program {
    process: Process,
    log: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let agent = real::Consul::dev(required("consul")).await.expect("the agent starts");
        Self { agent, logs: TempDir::new().expect("a folder") }
    }

    fn start(&self, name: &str, args: &[&str]) -> Program {
        let log = self.logs.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_echo"));
        command.args(args).arg("--consul").arg(self.agent.address().to_string());
        Program { process: Process::start(&mut command, &log).expect("it starts"), log }
    }

    fn server(&self, name: &str) -> Program {
        let any = ["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"];
        let args = [&["server"], &any[..], &["--interval", "1"]].concat();
        self.start(name, &args)
    }

    /// The states of the service's checks.
    async fn statuses(&self) -> Vec<String> {
        let checks = request(self.agent.address(), "GET", "/v1/health/checks/echo", "").await;
        let checks: Value = serde_json::from_str(&checks.expect("it answers").body).expect("JSON");
        let checks = checks.as_array().expect("a list");
        checks.iter().map(|it| it["Status"].as_str().expect("a text").to_owned()).collect()
    }
}

impl Program {
    fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line that begins so, behind the `n` lines that are known already, and returns
    /// the rest of it.
    async fn prints(&self, n: usize, start: &str) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            let text = self.printed();
            let found = text.lines().skip(n).find_map(|line| line.strip_prefix(start));
            if let Some(rest) = found {
                return rest.to_owned();
            }
            assert!(Instant::now() < deadline, "no {start:?} after line {n} of:\n{text}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn n_lines(&self) -> usize {
        self.printed().lines().count()
    }
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn tutorial_is_true() {
    let scene = Scene::new().await;
    // "Start the client first: it finds no instance."
    let client = scene.start("client", &["client", "--pause", "50"]);
    client.prints(0, "not found: no instances: the registry lists none").await;
    // "Start a server, and the client talks to it as soon as Consul has checked it."
    let server = scene.server("server");
    let address = server.prints(0, "listening on ").await;
    let said = client.prints(0, &format!("{address} says ")).await;
    assert!(said.starts_with("hello "), "{said}");
    assert_eq!(scene.statuses().await, ["passing"]);
    // "A second server gets its turn."
    let second = scene.server("second");
    let other = second.prints(0, "listening on ").await;
    client.prints(0, &format!("{other} says ")).await;
    client.prints(client.n_lines(), &format!("{address} says ")).await;
    // "Stop one, and the client talks to the other only."
    second.process.stop(BOUND).await.expect("it stops");
    let stopped = second.printed();
    assert!(stopped.contains("stopped by SIGTERM"), "{stopped}");
    let n = client.n_lines();
    for _ in 0..10 {
        client.prints(client.n_lines(), &format!("{address} says ")).await;
    }
    let text = client.printed();
    assert!(!text.lines().skip(n).any(|line| line.starts_with(&other)), "{text}");
    // "Stop the other, and no instance is found."
    server.process.stop(BOUND).await.expect("it stops");
    client.prints(n, "not found: no instances: the registry lists none").await;
    let failed = client.printed().lines().filter(|line| line.contains(" fails: ")).count();
    assert_eq!(failed, 0, "no line was sent to a closed port:\n{}", client.printed());
    assert_eq!(scene.statuses().await, [""; 0], "deregistered immediately");
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn dead_server_is_critical_after_an_interval_and_registered() {
    let scene = Scene::new().await;
    let client = scene.start("client", &["client", "--pause", "50"]);
    let server = scene.server("server");
    let address = server.prints(0, "listening on ").await;
    client.prints(0, &format!("{address} says ")).await;
    let n = client.n_lines();
    server.process.kill().expect("it runs");
    client.prints(n, &format!("{address} fails: ")).await;
    client.prints(n, "not found: ").await;
    assert_eq!(scene.statuses().await, ["critical"]);
}

mod slow {
    use super::*;

    /// Interval and timeout, then 60 s, then up to 30 s.
    #[tokio::test]
    #[ignore = "slow: Consul takes 60 to 95 s; needs a real consul"]
    async fn consul_removes_a_dead_server_after_sixty_seconds() {
        let scene = Scene::new().await;
        let server = scene.server("server");
        server.prints(0, "listening on ").await;
        while scene.statuses().await != ["passing"] {
            sleep(Duration::from_millis(50)).await;
        }
        server.process.kill().expect("it runs");
        let start = Instant::now();
        while !scene.statuses().await.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(120), "{:?}", scene.statuses().await);
            sleep(Duration::from_millis(200)).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(59), "{:?}", start.elapsed());
    }
}

/// Generous, for a busy machine.
const BOUND: Duration = Duration::from_secs(15);
