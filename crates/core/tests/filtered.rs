//! A filter that lets everything through keeps all promises of what it filters.

mod support;

use std::{process::ExitCode, sync::Arc};

use tower_sd_core::{FilteredInstancer, MemoryRegistry, Registrar, RegistryConfig};
use tower_sd_testkit::TestInstancer;

use self::support::Memory;

fn registrar(registry: &MemoryRegistry) -> Arc<dyn Registrar> {
    Arc::new(registry.clone())
}

fn instancer(registry: &MemoryRegistry, service: &str) -> TestInstancer {
    let all = registry.instancer(service);
    let filtered = FilteredInstancer::new(&all, |snapshot| snapshot.retain(|_| true));
    TestInstancer::new(filtered.clone(), async move {
        all.close().await;
        filtered.close().await;
    })
}

fn main() -> ExitCode {
    let registry = || MemoryRegistry::with_config(RegistryConfig::default());
    tower_sd_testkit::run(move || Memory::<false> { registry: registry(), registrar, instancer })
}
