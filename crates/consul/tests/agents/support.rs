use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use futures_util::{FutureExt, future::try_join_all};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::{ConsulClient, ConsulConfig, ConsulRegistrar};
use tower_sd_core::{Freshness, Instance, Registration, Snapshot, Subscription};
use tower_sd_testkit::{
    loopback::{free_ports, own_address},
    real::{self, Server},
    servers::{ServerBinary, configured},
    wire::{self, Answer},
};

/// Runs a test on every version there is, one after the other.
pub(crate) async fn on_every_version(test: impl AsyncFn(ServerBinary)) {
    let binaries = configured("consul").unwrap_or_else(|missing| panic!("{missing}"));
    for binary in binaries {
        say(&format!("using consul v{}", binary.version));
        Box::pin(test(binary)).await;
    }
}

/// As [`on_every_version`], with an agent that keeps nothing.
pub(crate) async fn on_every_agent(test: impl AsyncFn(&real::Consul)) {
    on_every_version(async |binary| {
        let agent = real::Consul::dev(binary).await.expect("the agent starts");
        Box::pin(test(&agent)).await;
    })
    .await;
}

#[expect(clippy::print_stdout, reason = "which server a failed test ran on")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

pub(crate) fn client(address: SocketAddr) -> ConsulClient {
    ConsulClient::new(ConsulConfig::new(address.to_string())).expect("an address")
}

pub(crate) fn registrar(address: SocketAddr) -> ConsulRegistrar {
    ConsulRegistrar::new(&client(address)).ttl(TTL)
}

pub(crate) fn web(id: &str, port: u16) -> Registration {
    Registration::new("web", Instance::new("127.0.0.1", port).with_id(id))
}

pub(crate) async fn get(address: SocketAddr, target: &str) -> Value {
    let answer = call(address, "GET", target, &Value::Null).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

pub(crate) async fn put(address: SocketAddr, target: &str, body: Value) {
    let answer = call(address, "PUT", target, &body).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
}

pub(crate) async fn call(address: SocketAddr, method: &str, target: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = timeout(BOUND, wire::request(address, method, target, &body)).await;
    answer.expect("an answer in time").expect("the agent answers")
}

/// Waits until a subscription shows what is wanted, and returns that.
pub(crate) async fn sees(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
) -> Snapshot {
    sees_within(BOUND, subscription, what, wanted).await
}

pub(crate) async fn sees_within(
    bound: Duration,
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
) -> Snapshot {
    let wait = async {
        let mut snapshot = subscription.snapshot();
        while !wanted(&snapshot) {
            snapshot = subscription.changed().await.expect("the loop lives");
        }
        snapshot
    };
    let Ok(snapshot) = timeout(bound, wait).await else {
        panic!("not seen within {bound:?}: {what}; last: {:#?}", subscription.snapshot());
    };
    snapshot
}

pub(crate) fn listed(n: usize) -> impl Fn(&Snapshot) -> bool + Send + Sync {
    move |snapshot| snapshot.instances().len() == n && snapshot.freshness().is_fresh()
}

pub(crate) fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

/// Waits until the catalogue says what is wanted of `target`.
pub(crate) async fn becomes(
    address: SocketAddr,
    target: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool + Send + Sync,
) -> Value {
    let deadline = Instant::now() + BOUND;
    loop {
        let value = get(address, target).await;
        if wanted(&value) {
            return value;
        }
        assert!(Instant::now() < deadline, "{target} is not {what}: {value:#}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn n_entries(n: usize) -> impl Fn(&Value) -> bool + Send + Sync {
    move |value| value.as_array().is_some_and(|entries| entries.len() == n)
}

/// Servers and a client agent, each on an address of its own.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    ips: Vec<String>,
    pub(crate) agent: Server,
    /// Of the client agent.
    pub(crate) address: SocketAddr,
}

impl Cluster {
    pub(crate) async fn start(binary: &ServerBinary, n_servers: usize) -> Self {
        let ports = free_ports::<4>(own_address()).expect("free ports");
        let ips: Vec<String> = (0..n_servers).map(|_| own_address().to_string()).collect();
        let at = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), ports[0]);
        let start = |ip: &str, n_nodes: usize, expect: usize| {
            let (command, address) = (node(binary, ip, &ips, ports, expect), at(ip));
            Server::start(command, move || lists_nodes(address, n_nodes).boxed())
        };
        let servers = try_join_all(ips.iter().map(|ip| start(ip, n_servers, n_servers)));
        let servers = servers.await.expect("they start");
        let ip = own_address().to_string();
        let agent = start(&ip, n_servers + 1, 0).await.expect("it starts");
        Self { address: at(&ip), servers, agent, ips }
    }

    /// Which of the servers leads.
    pub(crate) async fn leader(&self) -> usize {
        let leader = get(self.address, "/v1/status/leader").await;
        let leader = leader.as_str().and_then(|it| it.split(':').next());
        self.ips.iter().position(|ip| Some(ip.as_str()) == leader).expect("one of them")
    }
}

fn node(
    binary: &ServerBinary,
    ip: &str,
    join: &[String],
    [http, dns, server, serf]: [u16; 4],
    expect: usize,
) -> impl Fn(&Path) -> Command + Send + Sync + use<> {
    let mut config = json!({
        "node_name": ip.replace('.', "-"), "server": expect > 0,
        "bind_addr": ip, "client_addr": ip, "advertise_addr": ip,
        "ports": {"http": http, "dns": dns, "server": server, "serf_lan": serf, "serf_wan": -1, "grpc": -1},
        "retry_join": join, "retry_interval": "1s", "performance": {"raft_multiplier": 1},
        "autopilot": {"cleanup_dead_servers": false}, "disable_update_check": true,
        "leave_on_terminate": false, "skip_leave_on_interrupt": true,
        "limits": {"http_max_conns_per_client": 5000},
    });
    if expect > 0 {
        config["bootstrap_expect"] = json!(expect);
    }
    if binary.version != "1.8.7" {
        config["ports"]["grpc_tls"] = json!(-1);
    }
    let (program, config) = (binary.path.clone(), config.to_string());
    move |data| {
        let file = data.join("config.json");
        // A file that is missing makes the agent end with a sentence that names it.
        let _written = std::fs::write(&file, &config);
        let mut command = Command::new(&program);
        command.arg("agent").env("CHECKPOINT_DISABLE", "1");
        command.arg(format!("-data-dir={}", data.display()));
        command.arg(format!("-config-file={}", file.display()));
        command
    }
}

async fn lists_nodes(address: SocketAddr, n: usize) -> bool {
    match wire::request(address, "GET", "/v1/catalog/nodes", "").await {
        Ok(answer) => answer.status == 200 && answer.body.matches("\"Node\":").count() >= n,
        Err(_) => false,
    }
}

/// Short, for tests that wait for it to end.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// Generous, for a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(15);
