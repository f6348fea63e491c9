//! The shared suite on real agents.

use std::{process::ExitCode, time::Duration};

use tower_sd_consul::{ConsulClient, ConsulConfig, ConsulInstancer, ConsulRegistrar, Query};
use tower_sd_core::{InstanceId, async_trait};
use tower_sd_testkit::{Fixture, TestInstancer, TestRegistrar, real, run_on, wire::request};

struct Agent(real::Consul);

impl Agent {
    fn client(&self) -> ConsulClient {
        ConsulClient::new(ConsulConfig::new(self.0.url())).expect("an address")
    }
}

#[async_trait]
impl Fixture for Agent {
    async fn registrar(&self) -> TestRegistrar {
        let registrar = ConsulRegistrar::new(&self.client()).ttl(self.ttl());
        let closed = registrar.clone();
        TestRegistrar::new(registrar, async move { closed.close().await })
    }

    async fn instancer(&self, service: &str) -> TestInstancer {
        let instancer = ConsulInstancer::new(&self.client(), Query::service(service));
        let closed = instancer.clone();
        TestInstancer::new(instancer, async move { closed.close().await })
    }

    async fn interrupt(&self) {
        self.0.kill();
    }

    async fn resume(&self) {
        if !self.0.is_running() {
            self.0.restart().await.expect("the agent starts again");
        }
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let target = format!("/v1/agent/service/deregister/{service}:{id}");
        let answer = request(self.0.address(), "PUT", &target, "").await;
        assert_eq!(answer.expect("a well agent answers").status, 200);
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
}

fn main() -> ExitCode {
    run_on("consul", async |binary| {
        let server = real::ConsulConfig::server(binary);
        Ok(Agent(real::Consul::start(server).await?))
    })
}
