//! Server and client as processes, with a real Consul agent between them.

use std::{
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{process::Process, real, servers::required, wire::request};

struct Scene {
    agent: real::Consul,
    logs: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let agent = real::Consul::dev(required("consul")).await.expect("the agent starts");
        Self { agent, logs: TempDir::new().expect("a folder") }
    }

    fn registry(&self) -> String {
        format!("consul://{}", self.agent.address())
    }

    fn server(&self, name: &str) -> Process {
        let registry = self.registry();
        let args = ["server", "--registry", &registry, "--listen", "127.0.0.1:0"];
        Process::start(arithmetic().args(args), &self.logs.path().join(name)).expect("starts")
    }

    fn client(&self) -> Output {
        let registry = self.registry();
        let args = ["client", "--registry", &registry, "Add", "2", "3"];
        arithmetic().args(args).output().expect("runs")
    }

    /// Waits until the client has this result (`None`: a complaint).
    async fn answers(&self, wanted: Option<&str>, bound: Duration) {
        let start = Instant::now();
        loop {
            let output = self.client();
            let result = output.status.success().then_some(output.stdout.as_slice());
            if result == wanted.map(str::as_bytes) {
                return;
            }
            assert!(start.elapsed() < bound, "within {bound:?}: {output:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn arithmetic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arithmetic"))
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn servers_are_found_and_leave_on_a_signal() {
    let scene = Scene::new().await;
    let server = scene.server("one");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
    server.stop(Duration::from_secs(10)).await.expect("ends");
    scene.answers(None, Duration::from_secs(2)).await;
}

/// A `-dev` agent loses all of them when it is restarted; each registers again by its next
/// heartbeat, every 5 s.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_lost_a_server_gets_it_again() {
    let scene = Scene::new().await;
    let _server = scene.server("one");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
    scene.agent.restart_empty().await.expect("it starts again");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
}

/// A process that is suspended for longer than its TTL of 15 s is back within a second of its
/// resumption.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn suspended_server_is_back_within_a_second() {
    let scene = Scene::new().await;
    let server = scene.server("one");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
    server.suspend().expect("it runs");
    sleep(Duration::from_secs(17)).await;
    let target = "/v1/health/service/arithmetic?passing";
    let answer = request(scene.agent.address(), "GET", target, "").await;
    assert_eq!(answer.expect("an answer").body.trim(), "[]", "its TTL is over");
    server.resume().expect("it runs");
    // A client that starts in that moment takes part of it.
    scene.answers(Some("5\n"), Duration::from_secs(2)).await;
}

/// Ten seconds of the demo in eight: a server is killed at 3.2 s. Its port is closed, so it gets no
/// more requests; the registry shows it as critical after its TTL of 3 s, and it stays known for a
/// while, because a check may recover.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn demo_fails_no_request_and_gives_none_to_a_killed_server() {
    let scene = Scene::new().await;
    let demo = ["demo", "--registry", &scene.registry(), "--seconds", "8"];
    let output = arithmetic().args(demo).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
    assert!(text.contains(" retries, 0 failed\n"), "{text}");
    assert!(!text.contains(" 0 retries"), "{text}");
    let of_killed = |line: &str| {
        let state = line.split("; ").find(|it| it.trim().starts_with("server-3 down"))?;
        Some(state.trim().to_owned())
    };
    let states: Vec<_> = text.lines().filter_map(of_killed).collect();
    assert!(states.len() >= 2, "{text}");
    assert!(states.windows(2).all(|two| two[0] == two[1]), "{text}");
    for server in ["server-1", "server-2", "server-3", "server-4", "server-5"] {
        assert!(!text.contains(&format!("{server} 0")), "{text}");
    }
}

/// `log` and `off` are as in the README; each step is seen by a request and by the server's own
/// log.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn running_server_follows_what_to_log_and_what_to_offer() {
    let scene = Scene::new().await;
    let log = scene.logs.path().join("lines");
    let config = format!("consul://{}/arithmetic/server", scene.agent.address());
    let args =
        ["server", "--registry", "static://", "--listen", "127.0.0.1:0", "--config", &config];
    let mut command = arithmetic();
    let server = Process::start(command.args(args).env_remove("RUST_LOG"), &log).expect("starts");
    let printed = || std::fs::read_to_string(&log).unwrap_or_default();
    let server_at = loop {
        let text = printed();
        let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
        if let Some(address) = line {
            break address.parse().expect("an address");
        }
        sleep(Duration::from_millis(5)).await;
    };
    let becomes = async |status: u16| {
        let start = Instant::now();
        loop {
            let asked = request(server_at, "POST", "/calculate/Divide/6/3", "").await;
            let answer = asked.expect("an answer");
            if answer.status == status {
                return answer.body;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{}: {}", answer.body, printed());
            sleep(Duration::from_millis(20)).await;
        }
    };
    let key = "/v1/kv/arithmetic/server";
    let put = async |method, value: &str| {
        let written = request(scene.agent.address(), method, key, value).await;
        assert_eq!(written.expect("an answer").status, 200);
    };
    assert_eq!(becomes(200).await, r#"{"result":2,"error":null}"#);
    assert!(!printed().contains("request"), "{}", printed());
    put("PUT", r#"{"log": "arithmetic=info,tower_sd_config=warn", "off": ["Divide"]}"#).await;
    assert_eq!(becomes(503).await, r#"{"result":null,"error":"Divide is switched off"}"#);
    becomes(503).await;
    assert!(printed().contains("path=\"/calculate/Divide/6/3\""), "{}", printed());
    // An error is reported, and changes nothing.
    put("PUT", "{\n  \"off\": [\"Divid\"]\n}").await;
    let start = Instant::now();
    while !printed().contains("key arithmetic/server, line 2, column") {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", printed());
        sleep(Duration::from_millis(20)).await;
    }
    becomes(503).await;
    put("DELETE", "").await;
    becomes(200).await;
    let n_lines = printed().lines().count();
    becomes(200).await;
    assert_eq!(printed().lines().count(), n_lines, "it logs as it did: {}", printed());
    server.stop(Duration::from_secs(10)).await.expect("ends");
}
