//! The tutorial, step by step, with a real Consul and a real Redis.
//!
//! Every step's words are the README's.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep, timeout},
};
use tower_sd_testkit::{
    loopback::free_ports,
    process::Process,
    real::{self, Server},
    servers::required,
    wire::{Answer, request},
};

struct Scene {
    agent: real::Consul,
    redis: Server,
    redis_at: SocketAddr,
    webkv: Process,
    webkv_at: SocketAddr,
    logs: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let agent = real::Consul::dev(required("consul")).await.expect("the agent starts");
        let (redis, redis_at) = redis().await;
        let logs = TempDir::new().expect("a folder");
        let log = logs.path().join("webkv");
        let mut command = Command::new(env!("CARGO_BIN_EXE_webkv"));
        command.args(["--port", "0", "--ttl", &TTL.as_secs().to_string()]);
        command.arg("--redis").arg(redis_at.to_string());
        command.arg("--consul").arg(agent.address().to_string());
        let webkv = Process::start(&mut command, &log).expect("it starts");
        let webkv_at = listening_on(&log).await;
        Self { agent, redis, redis_at, webkv, webkv_at, logs }
    }

    async fn curl(&self, target: &str) -> Answer {
        request(self.webkv_at, "GET", target, "").await.expect("webkv answers")
    }

    async fn consul(&self, target: &str) -> Value {
        let answer = request(self.agent.address(), "GET", target, "").await.expect("it answers");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// The port that Consul's HTTP gives for the service, of passing instances only.
    async fn by_http(&self) -> Vec<u16> {
        let entries = self.consul("/v1/health/service/webkv?passing").await;
        let entries = entries.as_array().expect("a list");
        let port =
            |entry: &Value| entry["Service"]["Port"].as_u64().and_then(|it| it.try_into().ok());
        entries.iter().filter_map(port).collect()
    }

    /// How many SRV records Consul's DNS gives for it.
    async fn by_dns(&self) -> u16 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        // A question for SRV, class IN, with an id of ours.
        let mut question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        for label in ["webkv", "service", "consul"] {
            question.push(label.len().try_into().expect("a short label"));
            question.extend(label.as_bytes());
        }
        question.extend(b"\x00\x00\x21\x00\x01");
        let mut answer = [0; 2048];
        let ask = async {
            socket.send_to(&question, self.agent.dns_address()).await?;
            socket.recv(&mut answer).await
        };
        timeout(BOUND, ask).await.expect("in time").expect("an answer");
        u16::from_be_bytes([answer[6], answer[7]])
    }

    async fn in_discovery_within(&self, bound: Duration, wanted: bool) {
        let start = Instant::now();
        loop {
            let (http, dns) = (self.by_http().await, self.by_dns().await);
            let expected = if wanted { vec![self.webkv_at.port()] } else { Vec::new() };
            if http == expected && dns == u16::from(wanted) {
                return;
            }
            assert!(start.elapsed() < bound, "wanted {wanted}; HTTP {http:?}, DNS {dns}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The state of the service's check, and its output.
    async fn check(&self) -> (String, String) {
        let checks = self.consul("/v1/health/checks/webkv").await;
        let text = |key: &str| checks[0][key].as_str().unwrap_or_default().to_owned();
        (text("Status"), text("Output"))
    }

    async fn set(&self, key: &str, value: &str) {
        let mut redis = TcpStream::connect(self.redis_at).await.expect("redis listens");
        let line = format!("SET {key} {value}\r\n");
        redis.write_all(line.as_bytes()).await.expect("sent");
        let mut answer = [0; 5];
        redis.read_exact(&mut answer).await.expect("answered");
        assert_eq!(&answer, b"+OK\r\n");
    }
}

#[tokio::test]
#[ignore = "needs a real consul and redis"]
async fn tutorial_is_true() {
    let scene = Scene::new().await;
    // "A key that has not been set is not found."
    let answer = scene.curl("/greeting").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "no key greeting\n"));
    // "Set it, and read it again."
    scene.set("greeting", "hello").await;
    let answer = scene.curl("/greeting").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    // "Consul lists the service, over HTTP and by DNS."
    scene.in_discovery_within(BOUND, true).await;
    assert_eq!(scene.check().await.0, "passing");
    // "Stop Redis, and it is gone; start it, and it is back." Three times.
    for _ in 0..3 {
        scene.redis.kill();
        scene.in_discovery_within(TTL, false).await;
        let (status, output) = scene.check().await;
        assert_eq!(status, "critical");
        assert!(output.contains(&format!("redis {}", scene.redis_at)), "{output}");
        let answer = scene.curl("/greeting").await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        scene.redis.restart().await.expect("it starts again");
        scene.in_discovery_within(TTL, true).await;
        scene.set("greeting", "hello-again").await;
    }
    // "Stop webkv, and Consul drops it."
    assert_eq!(scene.consul("/v1/catalog/service/webkv").await.as_array().map(Vec::len), Some(1));
    scene.webkv.stop(BOUND).await.expect("it stops");
    assert_eq!(scene.consul("/v1/catalog/service/webkv").await, Value::Array(Vec::new()));
    // "Every request is a line of JSON."
    let log = fs::read_to_string(scene.logs.path().join("webkv")).expect("a log");
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let found = |status: u64| {
        lines
            .iter()
            .any(|line| line["fields"]["key"] == "greeting" && line["fields"]["status"] == status)
    };
    assert!(found(404) && found(200) && found(503), "{log}");
}

#[tokio::test]
#[ignore = "needs a real consul and redis"]
async fn redis_that_hangs_is_out_within_the_ttl_too() {
    let scene = Scene::new().await;
    scene.in_discovery_within(BOUND, true).await;
    scene.redis.suspend().expect("it runs");
    scene.in_discovery_within(TTL, false).await;
    scene.redis.resume().expect("it runs");
    scene.in_discovery_within(TTL, true).await;
}

#[tokio::test]
#[ignore = "needs a real redis"]
async fn webkv_without_a_registry_reports_it_and_ends() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webkv"));
    let output = command.args(["--port", "0", "--consul", "127.0.0.1:1"]).output().expect("runs");
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("webkv ends") && log.contains("register"), "{log}");
}

/// Redis in memory, on a port of its own.
async fn redis() -> (Server, SocketAddr) {
    let [port] = free_ports(Ipv4Addr::LOCALHOST).expect("a free port");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let program = required("redis").path;
    let libraries = libraries_beside(&program);
    let command = move |data: &Path| {
        let mut command = Command::new(&program);
        command.env("LD_LIBRARY_PATH", &libraries).current_dir(data);
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        command
    };
    let ready = move || async move { TcpStream::connect(address).await.is_ok() }.boxed();
    (Server::start(command, ready).await.expect("redis starts"), address)
}

/// `R/usr/lib/x86_64-linux-gnu` of a package that was unpacked into a folder R.
fn libraries_beside(program: &Path) -> OsString {
    let usr = program.parent().and_then(Path::parent).expect("it is in R/usr/bin");
    let folders = fs::read_dir(usr.join("lib")).into_iter().flatten().flatten();
    let mut folders = folders.map(|entry| entry.path().into_os_string());
    let found = folders.find(|it| it.to_string_lossy().ends_with("-linux-gnu"));
    found.filter(|_| usr != Path::new("/usr")).unwrap_or_default()
}

async fn listening_on(log: &Path) -> SocketAddr {
    let deadline = Instant::now() + BOUND;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
        if let Some(address) = line.and_then(|line| line.parse().ok()) {
            return address;
        }
        assert!(Instant::now() < deadline, "webkv prints: {text}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Redis is pinged three times in it: a busy machine has the rest.
const TTL: Duration = Duration::from_secs(6);
/// Generous, for a busy machine.
const BOUND: Duration = Duration::from_secs(15);
