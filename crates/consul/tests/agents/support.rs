use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::{Consul, ConsulConfig};
use tower_sd_core::{Freshness, Instance, Registration, Snapshot, Subscription};
use tower_sd_testkit::{
    real,
    servers::{ServerBinary, configured},
    wait::shows_that,
    wire::{self, Answer},
};

/// Runs a test on every version there is, concurrently: most of its time a test waits.
#[expect(clippy::future_not_send, reason = "each test runs on one thread")]
pub(crate) async fn on_every_version(test: impl AsyncFn(ServerBinary)) {
    let binaries = configured("consul").unwrap_or_else(|missing| panic!("{missing}"));
    join_all(binaries.into_iter().map(async |binary| {
        let version = binary.version.clone();
        say(&format!("using consul v{version}"));
        if let Err(panic) = AssertUnwindSafe(Box::pin(test(binary))).catch_unwind().await {
            say(&format!("failed on consul v{version}"));
            resume_unwind(panic);
        }
    }))
    .await;
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

pub(crate) fn client(address: SocketAddr) -> Consul {
    Consul::new(ConsulConfig::new(address.to_string())).expect("an address")
}

pub(crate) fn registrar(address: SocketAddr) -> Consul {
    let config = ConsulConfig::new(address.to_string()).ttl(TTL);
    Consul::new(config).expect("an address")
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
    shows_that(subscription, what, bound, wanted).await
}

pub(crate) fn listed(n: usize) -> impl Fn(&Snapshot) -> bool + Send + Sync {
    move |snapshot| snapshot.instances().len() == n && snapshot.freshness().is_fresh()
}

pub(crate) fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

/// Waits until the catalogue has what a test expects of `target`.
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

/// Short, for tests that wait for it to end.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// Generous, for a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(15);
