//! A filter that lets everything through keeps all promises of what it filters.

mod support;

use std::process::ExitCode;

use tower_sd_core::{FilteredInstancer, MemoryRegistry};
use tower_sd_testkit::{TestInstancer, TestRegistrar};

use self::support::Memory;

fn registrar(registry: &MemoryRegistry) -> TestRegistrar {
    let closed = registry.clone();
    TestRegistrar::new(registry.clone(), async move { closed.close().await })
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
    tower_sd_testkit::run(|| Memory { registry: MemoryRegistry::new(), registrar, instancer })
}
