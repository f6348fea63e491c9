//! Server and client as processes, with a real etcd between them.

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{process::Process, real, servers::required};

struct Scene {
    etcd: real::Etcd,
    logs: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let config = real::EtcdConfig::new(required("etcd"));
        let etcd = real::Etcd::start(config).await.expect("etcd starts");
        Self { etcd, logs: TempDir::new().expect("a folder") }
    }

    fn registry(&self) -> String {
        format!("etcd://{}/examples/?ttl=2s", self.etcd.address())
    }

    fn server(&self, name: &str) -> Process {
        let registry = self.registry();
        let log: PathBuf = self.logs.path().join(name);
        let args = ["server", "--registry", &registry, "--listen", "127.0.0.1:0"];
        Process::start(arithmetic().args(args), &log).expect("starts")
    }

    fn client(&self) -> Output {
        let registry = self.registry();
        let args = ["client", "--registry", &registry, "Add", "2", "3"];
        arithmetic().args(args).output().expect("runs")
    }

    /// Waits until the client has this result (`None`: an error); returns how long it took.
    async fn answers(&self, wanted: Option<&str>, bound: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let output = self.client();
            let result = output.status.success().then_some(output.stdout.as_slice());
            if result == wanted.map(str::as_bytes) {
                return start.elapsed();
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
#[ignore = "needs a real etcd"]
async fn servers_are_found_and_leave_on_a_signal() {
    let scene = Scene::new().await;
    let server = scene.server("one");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
    server.stop(Duration::from_secs(10)).await.expect("ends");
    scene.answers(None, Duration::from_secs(1)).await;
}

/// A process that is suspended for longer than its TTL is back in the registry within a second of
/// its resumption.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn suspended_server_is_back_within_a_second() {
    let scene = Scene::new().await;
    let server = scene.server("one");
    scene.answers(Some("5\n"), Duration::from_secs(10)).await;
    server.suspend().expect("it runs");
    sleep(Duration::from_secs(4)).await;
    let keys = keys(&scene).await;
    assert_eq!(keys, 0, "its lease has expired");
    server.resume().expect("it runs");
    scene.answers(Some("5\n"), Duration::from_secs(1)).await;
}

/// How many keys there are, by etcd's JSON gateway.
async fn keys(scene: &Scene) -> usize {
    let everything = r#"{"key":"AA==","range_end":"AA==","count_only":true}"#;
    let target = "/v3/kv/range";
    let answer =
        tower_sd_testkit::wire::request(scene.etcd.address(), "POST", target, everything).await;
    let body = answer.expect("etcd answers").body;
    let count = body.split(r#""count":""#).nth(1).and_then(|rest| rest.split('"').next());
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// Ten seconds of the demo in eight: killed at 3.2 s, a server with a TTL of 3 s leaves while
/// requests go on.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn demo_fails_no_request_and_a_killed_server_leaves_by_ttl() {
    let scene = Scene::new().await;
    let demo = ["demo", "--registry", &scene.registry(), "--seconds", "8"];
    let output = arithmetic().args(demo).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
    assert!(text.contains(" retries, 0 failed\n"), "{text}");
    assert!(!text.contains(" 0 retries"), "{text}");
    // It is down immediately, for its port is closed; it leaves by the registry.
    let before_the_end = text.lines().filter(|line| line.contains("server-3 left")).count();
    assert!(before_the_end >= 2, "{text}");
    for server in ["server-1", "server-2", "server-3", "server-4", "server-5"] {
        assert!(!text.contains(&format!("{server} 0")), "{text}");
    }
}
