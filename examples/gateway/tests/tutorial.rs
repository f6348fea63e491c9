//! The tutorial, step by step, with a real Consul.
//!
//! Every step's words are the README's.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{
    process::Process,
    real,
    script::{Received, Reply, Script},
    servers::required,
    wire::{Answer, request},
};

struct Scene {
    agent: real::Consul,
    gateway: SocketAddr,
    process: Process,
    _logs: TempDir,
}

impl Scene {
    async fn new(args: &[&str]) -> Self {
        let agent = real::Consul::dev(required("consul")).await.expect("the agent starts");
        let logs = TempDir::new().expect("a folder");
        let log = logs.path().join("gateway");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        command.arg("--consul").arg(agent.address().to_string());
        let process = Process::start(&mut command, &log).expect("it starts");
        let deadline = Instant::now() + BOUND;
        let gateway = loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
            if let Some(address) = line.and_then(|line| line.parse().ok()) {
                break address;
            }
            assert!(Instant::now() < deadline, "the gateway prints: {text}");
            sleep(Duration::from_millis(5)).await;
        };
        Self { agent, gateway, process, _logs: logs }
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        request(self.gateway, method, target, body).await.expect("the gateway answers")
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let answer = self.ask("GET", target, "").await;
        (answer.status, answer.body)
    }

    /// The value of `/` under `key`.
    async fn root(&self, key: &str) -> Vec<String> {
        let (status, body) = self.get("/").await;
        assert_eq!(status, 200, "{body}");
        let root: Value = serde_json::from_str(&body).expect("JSON");
        let names = root[key].as_array().expect("a list");
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    async fn register(&self, service: &str, id: &str, port: u16) {
        let body = json!({"Name": service, "ID": id, "Address": "127.0.0.1", "Port": port});
        self.agent_put("/v1/agent/service/register", &body.to_string()).await;
    }

    async fn agent_put(&self, target: &str, body: &str) {
        let answer = request(self.agent.address(), "PUT", target, body).await.expect("answered");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn becomes(&self, target: &str, status: u16) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            let (found, body) = self.get(target).await;
            if found == status {
                return body;
            }
            assert!(Instant::now() < deadline, "{target}: {found} {body}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A server that answers with its request.
async fn server(name: &'static str) -> Script {
    let say = move |asked: &Received| {
        let host = asked.headers.get("host").and_then(|it| it.to_str().ok()).unwrap_or("-");
        let Received { method, target, body, .. } = asked;
        let body = String::from_utf8_lossy(body);
        Reply::new(200)
            .header("x-from", name)
            .body(format!("{name}: {method} {host} {target} {body}"))
    };
    Script::answering(say).await.expect("loopback")
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn tutorial_is_true() {
    let scene = Scene::new(&[]).await;
    // "Nothing is there but Consul itself."
    assert_eq!(scene.root("services").await, ["consul"]);
    assert_eq!(scene.root("followed").await, [""; 0]);
    // "A service that the catalogue does not list is not found."
    let (status, body) = scene.get("/greet/hello").await;
    assert_eq!((status, body.as_str()), (404, "there is no service greet\n"));
    // "Register one, and it can be called immediately, whatever the method, the query and the
    // body."
    let (one, two) = (server("one").await, server("two").await);
    scene.register("greet", "one", one.address().port()).await;
    let body = scene.becomes("/greet/hello?x=1", 200).await;
    assert_eq!(body, "one: GET greet /hello?x=1 ");
    assert_eq!(scene.get("/greet").await.1, "one: GET greet / ");
    assert_eq!(scene.get("/greet?y=2").await.1, "one: GET greet /?y=2 ");
    let posted = scene.ask("POST", "/greet/a%2Fb/", "text").await;
    assert_eq!(posted.body, "one: POST greet /a%2Fb/ text");
    assert!(posted.head.contains("x-from: one"), "{}", posted.head);
    assert_eq!(scene.root("followed").await, ["greet"]);
    // "A second instance gets its share."
    scene.register("greet", "two", two.address().port()).await;
    let deadline = Instant::now() + BOUND;
    while !scene.get("/greet/").await.1.starts_with("two") {
        assert!(Instant::now() < deadline);
    }
    // "An instance that dies costs no request."
    one.close().await;
    drop(one);
    for _ in 0..20 {
        let (status, body) = scene.get("/greet/").await;
        assert_eq!((status, body.as_str()), (200, "two: GET greet / "));
    }
    // "When none is usable, the answer has the reason."
    two.close().await;
    drop(two);
    let body = scene.becomes("/greet/", 503).await;
    assert!(body.contains("no instances: none accepts a connection"), "{body}");
    assert_eq!(scene.get("/unknown/").await.0, 404);
    // "Consul is away: what is followed is answered as before, what is not cannot be looked up."
    let three = server("three").await;
    scene.register("greet", "three", three.address().port()).await;
    scene.becomes("/greet/", 200).await;
    scene.agent.kill();
    assert_eq!(scene.get("/greet/").await, (200, "three: GET greet / ".to_owned()));
    let (status, body) = scene.get("/unknown/").await;
    assert_eq!(status, 503);
    let away = "consul services: the agent cannot be reached: cannot connect to ";
    assert!(body.contains(away), "{body}");
    scene.process.stop(BOUND).await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn service_without_requests_is_dropped_and_followed_again() {
    let scene = Scene::new(&["--idle", "1"]).await;
    let one = server("one").await;
    scene.register("greet", "one", one.address().port()).await;
    scene.becomes("/greet/", 200).await;
    assert_eq!(scene.root("followed").await, ["greet"]);
    let deadline = Instant::now() + BOUND;
    while !scene.root("followed").await.is_empty() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scene.get("/greet/").await.0, 200);
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn service_with_the_oldest_request_is_dropped_at_the_bound() {
    let scene = Scene::new(&["--max", "2"]).await;
    let one = server("one").await;
    for service in ["a", "b", "c"] {
        scene.register(service, service, one.address().port()).await;
        scene.becomes(&format!("/{service}/"), 200).await;
        scene.becomes("/a/", 200).await;
    }
    assert_eq!(scene.root("followed").await, ["a", "c"]);
    assert_eq!(scene.get("/b/").await.0, 200);
    assert_eq!(scene.root("followed").await, ["a", "b"]);
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn service_whose_instances_are_all_critical_is_unavailable() {
    let scene = Scene::new(&[]).await;
    let body = json!({"Name": "sick", "Address": "127.0.0.1", "Port": 9, "Check": {"TTL": "1h"}});
    scene.agent_put("/v1/agent/service/register", &body.to_string()).await;
    let (status, body) = scene.get("/sick/").await;
    assert_eq!(status, 503);
    assert!(body.contains("no instances: the registry lists none"), "{body}");
}

/// Generous, for a busy machine.
const BOUND: Duration = Duration::from_secs(15);
