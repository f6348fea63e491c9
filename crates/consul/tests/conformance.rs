//! The shared suite on real agents.

use std::{process::ExitCode, sync::Arc, time::Duration};

use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{BoxError, InstanceId, async_trait};
use tower_sd_testkit::{
    Fixture, TestClient, TestInstancer,
    proxy::{Fault, Proxy},
    real, run_on,
    servers::ServerBinary,
    wire::request,
};

/// An agent, and what stands between it and its clients: it takes seconds to start again, the proxy
/// does not.
struct Agent {
    server: real::Consul,
    proxy: Proxy,
}

impl Agent {
    async fn start(binary: ServerBinary) -> Result<Self, BoxError> {
        let server = real::Consul::dev(binary).await?;
        let proxy = Proxy::start(server.address()).await?;
        Ok(Self { server, proxy })
    }

    fn client_with(&self, ttl: Duration) -> TestClient {
        let address = self.proxy.address().to_string();
        let consul = Consul::new(ConsulConfig::new(address).ttl(ttl)).expect("an address");
        let registrar = consul.clone();
        TestClient::new(
            move || Arc::new(registrar.clone()),
            move |service| instancer(&consul, service),
        )
    }
}

#[async_trait]
impl Fixture for Agent {
    fn client(&self) -> TestClient {
        self.client_with(self.ttl())
    }

    fn client_of_many(&self) -> TestClient {
        self.client_with(Duration::from_secs(60))
    }

    async fn n_reads(&self) -> Option<u64> {
        Some(self.proxy.n_gets())
    }

    async fn interrupt(&self) {
        self.proxy.set(Fault::Refuse).await;
    }

    async fn freeze(&self) {
        self.server.suspend().expect("the agent runs");
    }

    async fn resume(&self) {
        self.server.resume().expect("the agent runs");
        self.proxy.set(Fault::None).await;
    }

    fn evidence(&self) -> String {
        self.server.output()
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let target = format!("/v1/agent/service/deregister/{service}:{id}");
        let answer = request(self.server.address(), "PUT", &target, "").await;
        assert_eq!(answer.expect("a well agent answers").status, 200);
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn reannounce_bound(&self) -> Duration {
        // A renewal finds it, up to a third of the TTL later.
        Duration::from_secs(3)
    }
}

fn instancer(consul: &Consul, service: &str) -> TestInstancer {
    // 1.8.7 keeps a closed blocking query until its wait is over, and with it the proxy's socket,
    // which the suite counts.
    let query = Query::new(service).wait(Duration::from_millis(800));
    let instancer = consul.instancer(query);
    let closed = instancer.clone();
    TestInstancer::new(instancer, async move { closed.close().await })
}

fn main() -> ExitCode {
    run_on("consul", Agent::start)
}
