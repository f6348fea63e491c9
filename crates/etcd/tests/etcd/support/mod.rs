//! A real etcd as a fixture, and what an operator does to it.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![expect(clippy::future_not_send, reason = "each test runs on one thread")]

pub(crate) mod custom;

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use etcd_client::{Client, GetOptions, KeyValue};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep};
use tower_sd_core::{BoxError, Freshness, Instance, InstanceId, Snapshot, async_trait};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::{
    Fixture, TestClient, TestInstancer, real,
    servers::{ServerBinary, configured},
    wire::request,
};

/// Runs a test on every etcd there is, on all of them concurrently: most of its time a test waits.
pub(crate) async fn on_every_etcd(test: impl AsyncFn(&EtcdFixture)) {
    on_every_etcd_with(&[], test).await;
}

/// As [`on_every_etcd`], started with these arguments.
pub(crate) async fn on_every_etcd_with(args: &[&str], test: impl AsyncFn(&EtcdFixture)) {
    on_each(binaries(), async |binary| on_one(binary, args, &test).await).await;
}

/// Runs a test with each of these programs, concurrently.
pub(crate) async fn on_each(binaries: Vec<ServerBinary>, test: impl AsyncFn(ServerBinary)) {
    join_all(binaries.into_iter().map(async |binary| {
        let version = binary.version.clone();
        note(&format!("using etcd v{version}"));
        let run = AssertUnwindSafe(Box::pin(test(binary)));
        if let Err(panic) = run.catch_unwind().await {
            note(&format!("failed on etcd v{version}"));
            resume_unwind(panic);
        }
    }))
    .await;
}

/// Runs a test that measures this process on one etcd after the other.
pub(crate) async fn on_every_etcd_in_turn(test: impl AsyncFn(&EtcdFixture)) {
    for binary in binaries() {
        on_each(vec![binary], async |binary| on_one(binary, &[], &test).await).await;
    }
}

async fn on_one(binary: ServerBinary, args: &[&str], test: &impl AsyncFn(&EtcdFixture)) {
    let config = real::EtcdConfig::new(binary).args(args.iter().copied());
    let fixture = EtcdFixture { server: real::Etcd::start(config).await.expect("etcd starts") };
    Box::pin(test(&fixture)).await;
}

#[expect(clippy::print_stdout, reason = "which server a failed test ran on")]
pub(crate) fn note(text: &str) {
    println!("{text}");
}

pub(crate) fn binaries() -> Vec<ServerBinary> {
    configured("etcd").unwrap_or_else(|missing| panic!("{missing}"))
}

/// The oldest and the newest: of clusters, which cost three servers each.
pub(crate) fn oldest_and_newest() -> Vec<ServerBinary> {
    let mut all = binaries();
    let n_between = all.len().saturating_sub(2);
    all.drain(1..=n_between);
    all
}

pub(crate) fn instance(id: &str, port: u16) -> Instance {
    Instance::new("127.0.0.1", port).with_id(id)
}

pub(crate) fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

/// Repeats a query until it returns true.
pub(crate) async fn holds(what: &str, bound: Duration, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) struct EtcdFixture {
    pub(crate) server: real::Etcd,
}

impl EtcdFixture {
    pub(crate) async fn start(binary: ServerBinary) -> Result<Self, BoxError> {
        let server = real::Etcd::start(real::EtcdConfig::new(binary)).await?;
        Ok(Self { server })
    }

    /// Settings with a short time to live.
    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig::new([self.server.url()]).ttl(TTL)
    }

    pub(crate) fn client(&self) -> Etcd {
        Etcd::new(self.config()).expect("the settings can work")
    }

    pub(crate) async fn operator(&self) -> Client {
        let client = Client::connect([self.server.url()], None).await;
        client.expect("the server runs")
    }

    /// The one entry of a service.
    pub(crate) async fn entry(&self, service: &str) -> Option<KeyValue> {
        self.keys(service).await.pop()
    }

    /// What is there below the default prefix, as the operator sees it.
    pub(crate) async fn keys(&self, service: &str) -> Vec<KeyValue> {
        let prefix = format!("tower-sd/{service}/");
        let options = GetOptions::new().with_prefix();
        let answer = self.operator().await.get(prefix, Some(options)).await;
        answer.expect("the server answers").take_kvs()
    }
}

#[async_trait]
impl Fixture for EtcdFixture {
    fn client(&self) -> TestClient {
        client_with(&self.config())
    }

    fn client_of_many(&self) -> TestClient {
        client_with(&self.config().ttl(Duration::from_secs(60)))
    }

    async fn n_reads(&self) -> Option<u64> {
        let metrics = request(self.server.address(), "GET", "/metrics", "").await.ok()?;
        let started = metrics.body.lines().find(|line| {
            line.starts_with("grpc_server_started_total") && line.contains("\"Range\"")
        });
        started?.rsplit_once(' ')?.1.parse().ok()
    }

    async fn interrupt(&self) {
        self.server.kill();
    }

    async fn resume(&self) {
        if !self.server.is_running() {
            self.server.restart().await.expect("it starts again");
        }
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let key = format!("tower-sd/{service}/{id}");
        let mut operator = self.operator().await;
        let answer = operator.get(key, None).await.expect("the server answers");
        let entry = answer.kvs().first().expect("it is registered");
        let revoked = operator.lease_revoke(entry.lease()).await;
        revoked.expect("the lease lives");
    }

    fn exceptions() -> &'static [(&'static str, &'static str)] {
        const KILLED: &str =
            "what is stored in a server that is killed cannot be removed meanwhile";
        &[("instance_that_the_recovery_lacks_is_kept", KILLED)]
    }

    fn ttl(&self) -> Duration {
        TTL
    }
}

pub(crate) const TTL: Duration = Duration::from_secs(2);

fn client_with(config: &EtcdConfig) -> TestClient {
    let client = Etcd::new(config.clone()).expect("the settings can work");
    let registering = client.clone();
    TestClient::new(
        move || Arc::new(registering.clone()),
        move |service| {
            let instancer = client.instancer(service);
            let closing = instancer.clone();
            TestInstancer::new(instancer, async move { closing.close().await })
        },
    )
}
