//! Processes, with a slice of a real API server between them.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{
    process::Process,
    real,
    servers::{configured, required},
    wire::request,
};

/// A process that listens.
struct Listening {
    process: Process,
    address: SocketAddr,
}

async fn listening(args: &[&str], log: &Path) -> Listening {
    let process = Process::start(arithmetic().args(args), log).expect("starts");
    let deadline = Instant::now() + BOUND;
    loop {
        let text = process.output();
        if let Some(address) = text.lines().find_map(|line| line.strip_prefix("listening on ")) {
            return Listening { process, address: address.parse().expect("an address") };
        }
        assert!(Instant::now() < deadline, "it prints: {text:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn arithmetic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_arithmetic"))
}

/// An address of this machine that a slice may have: none of loopback. Nothing leaves the machine.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // A datagram's socket sends nothing when it connects.
    socket.connect("198.51.100.1:9").expect("needs an address other than those of loopback");
    let address = socket.local_addr().expect("it is bound").ip();
    assert!(!address.is_loopback(), "needs an address other than {address}");
    address
}

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test arithmetic kubernetes"]
async fn client_and_gateway_follow_a_slice() {
    let etcd = configured("etcd").unwrap_or_else(|missing| panic!("{missing}")).pop();
    let etcd = etcd.expect("at least one");
    let config = real::KubernetesConfig::new(required("kubernetes"), etcd);
    let kubernetes = real::Kubernetes::start(config).await.expect("it starts");
    let api = kubernetes.admin().expect("an administrator's client");
    api.namespace("shop").await.expect("a well server makes a namespace");
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("our folder");
        path.display().to_string()
    };
    let (server, ca) = (kubernetes.url(), file("ca.crt", kubernetes.authority().pem()));
    let token = file("token", real::Kubernetes::ADMIN);
    let registry = format!("kubernetes://shop?server={server}&ca-file={ca}&token-file={token}");

    let listen = format!("{}:0", own_address());
    let args = ["server", "--registry", "static://", "--listen", &listen];
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let (one, two) = (listening(&args, &one).await, listening(&args, &two).await);
    let lists = async |server: &Listening| {
        api.apply(&slice(server)).await.expect("a well server takes a slice");
    };
    let client = || {
        let args = ["client", "--registry", &registry, "Add", "2", "3"];
        arithmetic().args(args).output().expect("runs")
    };
    lists(&one).await;
    let output = client();
    assert_eq!(output.stdout, b"5\n", "{output:?}");

    let args = ["gateway", "--registry", &registry, "--listen", "127.0.0.1:0"];
    let gateway = listening(&args, &folder.path().join("gateway")).await;
    let calculates = async || {
        let answer = request(gateway.address, "POST", "/calculate/Add/2/3", "").await;
        let answer = answer.expect("it answers");
        assert_eq!((answer.status, &*answer.body), (200, r#"{"result":5,"error":null}"#));
    };
    calculates().await;
    // The second one takes over, without a failure.
    lists(&two).await;
    let deadline = Instant::now() + BOUND;
    while answered(&two).await == 0 {
        calculates().await;
        assert!(Instant::now() < deadline, "{}", gateway.process.output());
        sleep(Duration::from_millis(10)).await;
    }
    one.process.stop(BOUND).await.expect("it ends");
    for _ in 0..10 {
        calculates().await;
    }
    assert_eq!(client().stdout, b"5\n");
    gateway.process.stop(BOUND).await.expect("it ends");
}

/// The slice of the Service `arithmetic`, which lists this server.
fn slice(server: &Listening) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": "arithmetic-1",
            "labels": { "kubernetes.io/service-name": "arithmetic" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": server.address.port() }],
        "endpoints": [{ "addresses": [server.address.ip().to_string()] }],
    })
}

/// How many calculations a server has answered.
async fn answered(server: &Listening) -> u64 {
    let metrics = request(server.address, "GET", "/metrics", "").await.expect("it answers").body;
    let count = |line: &str| line.strip_prefix("arithmetic_request_seconds_count ")?.parse().ok();
    metrics.lines().find_map(count).expect("a count")
}

const BOUND: Duration = Duration::from_secs(20);
