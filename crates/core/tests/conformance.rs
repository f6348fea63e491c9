//! The memory registry, the reference that every backend is measured against, runs the suite.

use std::{process::ExitCode, time::Duration};

use tower_sd_core::{InstanceId, MemoryRegistry, async_trait};
use tower_sd_testkit::{Clock, Fixture, TestInstancer, TestRegistrar};

struct Memory(MemoryRegistry);

#[async_trait]
impl Fixture for Memory {
    async fn registrar(&self) -> TestRegistrar {
        let registry = self.0.clone();
        TestRegistrar::new(self.0.clone(), async move { registry.close().await })
    }

    async fn instancer(&self, service: &str) -> TestInstancer {
        let follower = self.0.instancer(service);
        TestInstancer::new(follower.clone(), async move { follower.close().await })
    }

    async fn interrupt(&self) {
        self.0.interrupt();
    }

    async fn freeze(&self) {
        self.0.delay(Duration::from_secs(3600));
    }

    async fn resume(&self) {
        self.0.resume();
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        self.0.expire(service, id);
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }
}

fn main() -> ExitCode {
    tower_sd_testkit::run(|| Memory(MemoryRegistry::new()))
}
