//! The memory registry under test, with the faults that it has.

use std::{sync::Arc, time::Duration};

use tower_sd_core::{InstanceId, MemoryRegistry, Registrar, async_trait};
use tower_sd_testkit::{Clock, Fixture, TestClient, TestInstancer};

/// A memory registry, seen through the registrars and instancers that these make.
pub(crate) struct Memory<const IS_WRAPPED: bool> {
    pub(crate) registry: MemoryRegistry,
    pub(crate) registrar: fn(&MemoryRegistry) -> Arc<dyn Registrar>,
    pub(crate) instancer: fn(&MemoryRegistry, &str) -> TestInstancer,
}

#[async_trait]
impl<const IS_WRAPPED: bool> Fixture for Memory<IS_WRAPPED> {
    fn client(&self) -> TestClient {
        let Self { registrar, instancer, .. } = *self;
        let (writing, reading) = (self.registry.clone(), self.registry.clone());
        TestClient::new(move || registrar(&writing), move |service| instancer(&reading, service))
    }

    async fn n_reads(&self) -> Option<u64> {
        Some(self.registry.n_calls())
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

    fn exceptions() -> &'static [(&'static str, &'static str)] {
        const TWO: &str = "the inner publisher shows the set before the outage first, as fresh";
        if IS_WRAPPED { &[("instance_that_the_recovery_lacks_is_kept", TWO)] } else { &[] }
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }
}
