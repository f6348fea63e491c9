//! The memory registry runs the suite: it is the reference for every backend.

mod support;

use std::{process::ExitCode, sync::Arc};

use tower_sd_core::{MemoryRegistry, Registrar, RegistryConfig};
use tower_sd_testkit::TestInstancer;

use self::support::Memory;

fn registrar(registry: &MemoryRegistry) -> Arc<dyn Registrar> {
    Arc::new(registry.clone())
}

fn instancer(registry: &MemoryRegistry, service: &str) -> TestInstancer {
    let follower = registry.instancer(service);
    TestInstancer::new(follower.clone(), async move { follower.close().await })
}

fn main() -> ExitCode {
    let registry = || MemoryRegistry::with_config(RegistryConfig::default());
    tower_sd_testkit::run(move || Memory::<false> { registry: registry(), registrar, instancer })
}
