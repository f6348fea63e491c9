//! The shared suite on a real agent.

mod support;

use std::{process::ExitCode, time::Duration};

use support::Agent;
use tower_sd_consul::{ConsulClient, ConsulConfig, ConsulInstancer, ConsulRegistrar, Query};
use tower_sd_core::{InstanceId, async_trait};
use tower_sd_testkit::{Fixture, TestInstancer, TestRegistrar, run_on};

struct Consul(Agent);

impl Consul {
    fn client(&self) -> ConsulClient {
        ConsulClient::new(ConsulConfig::new(self.0.address())).expect("an address")
    }
}

#[async_trait]
impl Fixture for Consul {
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
        self.0.run().await.expect("the agent starts again");
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        let path = format!("/v1/agent/service/deregister/{service}:{id}");
        self.0.put(&path, &serde_json::Value::Null).await;
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
}

fn main() -> ExitCode {
    run_on("consul", async |binary| {
        Ok(Consul(Agent::start(binary).await?))
    })
}
