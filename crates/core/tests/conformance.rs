//! The memory registry, the reference that every backend is measured against, runs the suite.

mod support;

use std::process::ExitCode;

use tower_sd_core::MemoryRegistry;
use tower_sd_testkit::{TestInstancer, TestRegistrar};

use self::support::Memory;

fn registrar(registry: &MemoryRegistry) -> TestRegistrar {
    let closed = registry.clone();
    TestRegistrar::new(registry.clone(), async move { closed.close().await })
}

fn instancer(registry: &MemoryRegistry, service: &str) -> TestInstancer {
    let follower = registry.instancer(service);
    TestInstancer::new(follower.clone(), async move { follower.close().await })
}

fn main() -> ExitCode {
    tower_sd_testkit::run(|| Memory { registry: MemoryRegistry::new(), registrar, instancer })
}
