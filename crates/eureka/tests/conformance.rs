//! The shared suite on a real server.
//!
//! The server reads past its cache, and followers read every 200 ms: with the defaults of both a
//! change takes up to 60 s, which no case waits for.

use std::{process::ExitCode, sync::Arc, time::Duration};

use tower_sd_core::{BoxError, Instance, InstanceId, Instancer, Registration, async_trait};
use tower_sd_eureka::{Eureka, EurekaConfig, Query};
use tower_sd_testkit::{
    Fixture, TestClient, TestInstancer,
    proxy::{Fault, Proxy},
    real, run_on,
    servers::ServerBinary,
    wire::request,
};

/// A server, and what stands between it and its clients: it takes seconds to start again, the proxy
/// does not.
struct Registry {
    server: real::Eureka,
    proxy: Proxy,
}

impl Registry {
    async fn start(binary: ServerBinary) -> Result<Self, BoxError> {
        let server = real::Eureka::start(real::EurekaConfig::quick(binary)).await?;
        let proxy = Proxy::start(server.address()).await?;
        let registry = Self { server, proxy };
        registry.warm_up().await?;
        Ok(registry)
    }

    /// The first requests of a JVM take seconds on a busy machine.
    async fn warm_up(&self) -> Result<(), BoxError> {
        let eureka = Eureka::new(EurekaConfig::new(self.server.url()))?;
        let subscription = eureka.instancer("warm-up").subscribe();
        for port in 1..=N_WARM_UP {
            let instance = Instance::new("10.0.0.7", port);
            let registration = Registration::new("warm-up", instance).fail_fast(WARM_UP_BOUND);
            let handle = eureka.register(registration).await?;
            subscription.refresh();
            handle.update(|it| it.with_weight(7)).await?;
            handle.deregister().await?;
        }
        Ok(())
    }

    fn client_with(&self, ttl: Duration) -> TestClient {
        let url = format!("http://{}/eureka", self.proxy.address());
        let query = Query::new("").poll_interval(Duration::from_millis(200));
        let config = EurekaConfig::new(url).query(query).ttl(ttl);
        let eureka = Eureka::new(config).expect("a URL");
        let registrar = eureka.clone();
        TestClient::new(
            move || Arc::new(registrar.clone()),
            move |service| {
                let query = Query::new(service).poll_interval(Duration::from_millis(200));
                let instancer = eureka.instancer(query);
                let closed = instancer.clone();
                TestInstancer::new(instancer, async move { closed.close().await })
            },
        )
    }
}

#[async_trait]
impl Fixture for Registry {
    fn client(&self) -> TestClient {
        self.client_with(self.ttl())
    }

    fn client_of_many(&self) -> TestClient {
        self.client_with(Duration::from_secs(60))
    }

    async fn interrupt(&self) {
        self.proxy.set(Fault::Refuse).await;
    }

    async fn freeze(&self) {
        self.server.suspend().expect("the server runs");
    }

    async fn resume(&self) {
        self.server.resume().expect("the server runs");
        self.proxy.set(Fault::None).await;
    }

    fn evidence(&self) -> String {
        self.server.output()
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let target = format!("/eureka/apps/{}/{id}", service.to_uppercase());
        let answer = request(self.server.address(), "DELETE", &target, "").await;
        assert_eq!(answer.expect("a well server answers").status, 200);
    }

    /// Leases have whole seconds, and a server evicts an entry after twice the duration. An update
    /// gets one to two thirds of the TTL, and a JVM on a busy machine may stand still for longer
    /// than a second.
    fn ttl(&self) -> Duration {
        Duration::from_secs(6)
    }

    /// A renewal finds it, up to a third of the TTL later.
    fn reannounce_bound(&self) -> Duration {
        Duration::from_secs(4)
    }
}

const N_WARM_UP: u16 = 20;
const WARM_UP_BOUND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    run_on("eureka", Registry::start)
}
