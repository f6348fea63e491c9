//! The memory registry under test, with the faults that it has.

use std::time::Duration;

use tower_sd_core::{InstanceId, MemoryRegistry, async_trait};
use tower_sd_testkit::{Clock, Fixture, TestInstancer, TestRegistrar};

/// A memory registry, seen through the registrars and instancers that these make.
pub(crate) struct Memory {
    pub(crate) registry: MemoryRegistry,
    pub(crate) registrar: fn(&MemoryRegistry) -> TestRegistrar,
    pub(crate) instancer: fn(&MemoryRegistry, &str) -> TestInstancer,
}

#[async_trait]
impl Fixture for Memory {
    async fn registrar(&self) -> TestRegistrar {
        (self.registrar)(&self.registry)
    }

    async fn instancer(&self, service: &str) -> TestInstancer {
        (self.instancer)(&self.registry, service)
    }

    async fn interrupt(&self) {
        self.registry.interrupt();
    }

    async fn freeze(&self) {
        self.registry.delay(Duration::from_secs(3600));
    }

    async fn resume(&self) {
        self.registry.resume();
    }

    async fn expire(&self, service: &str, id: &InstanceId) {
        self.registry.expire(service, id);
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }
}
