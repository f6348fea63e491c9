//! A real ZooKeeper as a fixture, and what an operator does to it.
#![allow(dead_code, reason = "every test binary uses a part of it")]
#![expect(clippy::future_not_send, reason = "each test runs on one thread")]

pub(crate) mod operator;

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep};
use tower_sd_core::{BoxError, Freshness, Instance, InstanceId, Snapshot, async_trait};
use tower_sd_testkit::{
    Fixture, TestClient, TestInstancer,
    proxy::{Fault, Proxy},
    real,
    servers::{ServerBinary, configured},
};
use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

use self::operator::Operator;

/// Runs a test on every ZooKeeper there is, on all of them concurrently: most of its time a test
/// waits.
pub(crate) async fn on_every_zookeeper(test: impl AsyncFn(&ZooKeeperFixture)) {
    join_all(binaries().into_iter().map(|binary| on_one(binary, &test))).await;
}

async fn on_one(binary: ServerBinary, test: &impl AsyncFn(&ZooKeeperFixture)) {
    let version = binary.version.clone();
    let fixture = ZooKeeperFixture::start(binary).await.expect("ZooKeeper starts");
    let run = AssertUnwindSafe(Box::pin(test(&fixture)));
    if let Err(panic) = run.catch_unwind().await {
        note(&format!("failed on ZooKeeper {version}"));
        resume_unwind(panic);
    }
}

#[expect(clippy::print_stdout, reason = "which server a failed test ran on")]
pub(crate) fn note(text: &str) {
    println!("{text}");
}

pub(crate) fn binaries() -> Vec<ServerBinary> {
    configured("zookeeper").unwrap_or_else(|missing| panic!("{missing}"))
}

/// A client for which no server of a busy machine is slow.
pub(crate) fn patient(server: SocketAddr) -> ZooKeeper {
    ZooKeeper::new(patient_config(server)).expect("the settings can work")
}

pub(crate) fn patient_config(server: SocketAddr) -> ZooKeeperConfig {
    let bound = Duration::from_secs(20);
    let config = ZooKeeperConfig::new([server.to_string()]).session_timeout(bound * 3);
    config.connect_timeout(bound).request_timeout(bound)
}

/// The oldest one.
pub(crate) fn oldest() -> ServerBinary {
    binaries().remove(0)
}

/// The newest one.
pub(crate) fn newest() -> ServerBinary {
    binaries().pop().expect("there is one")
}

pub(crate) fn instance(id: &str, port: u16) -> Instance {
    Instance::new("127.0.0.1", port).with_id(id)
}

pub(crate) fn is_stale(snapshot: &Snapshot) -> bool {
    matches!(snapshot.freshness(), Freshness::Stale { .. })
}

/// Repeats a query until it returns true.
pub(crate) async fn holds(what: &str, bound: Duration, mut query: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !query().await {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A server, and what stands between it and the suite's clients: it takes seconds to start again,
/// the proxy does not.
pub(crate) struct ZooKeeperFixture {
    pub(crate) server: real::ZooKeeper,
    proxy: Proxy,
}

impl ZooKeeperFixture {
    pub(crate) async fn start(binary: ServerBinary) -> Result<Self, BoxError> {
        let server = real::ZooKeeper::start(real::ZooKeeperConfig::new(binary)).await?;
        let proxy = Proxy::start(server.address()).await?;
        Ok(Self { server, proxy })
    }

    /// Settings with a short session.
    pub(crate) fn config(&self) -> ZooKeeperConfig {
        ZooKeeperConfig::new([self.server.address().to_string()]).session_timeout(TTL)
    }

    pub(crate) fn client(&self) -> ZooKeeper {
        ZooKeeper::new(self.config()).expect("the settings can work")
    }

    pub(crate) async fn operator(&self) -> Operator {
        Operator::connect(self.server.address()).await
    }

    /// Through the proxy.
    fn client_with(&self, session: Duration) -> TestClient {
        let address = self.proxy.address().to_string();
        let config = ZooKeeperConfig::new([address]).session_timeout(session);
        let config = config.max_request(MAX_REQUEST);
        let client = ZooKeeper::new(config).expect("the settings can work");
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
}

#[async_trait]
impl Fixture for ZooKeeperFixture {
    fn client(&self) -> TestClient {
        self.client_with(TTL)
    }

    fn client_of_many(&self) -> TestClient {
        self.client_with(Duration::from_secs(60))
    }

    async fn interrupt(&self) {
        self.proxy.set(Fault::Refuse).await;
    }

    async fn freeze(&self) {
        self.server.suspend().expect("it runs");
    }

    async fn resume(&self) {
        self.server.resume().expect("it runs");
        self.proxy.set(Fault::None).await;
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        self.operator().await.delete(&format!("/services/{service}/{id}")).await;
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn refused_metadata(&self) -> usize {
        MAX_REQUEST
    }

    fn evidence(&self) -> String {
        self.server.output()
    }
}

pub(crate) const TTL: Duration = Duration::from_secs(2);
/// The least there may be.
const MAX_REQUEST: usize = 64 << 10;
