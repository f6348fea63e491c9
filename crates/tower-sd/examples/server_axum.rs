//! An axum service that shows its health in its registry and at `/ready`.
//!
//! While the check is critical, `/ready` returns 503. Consul shows the instance as critical; from
//! registries without such a state it is withdrawn.
//!
//! On SIGTERM or ctrl-c it deregisters, gives clients time to notice, ends its requests, and
//! returns.

use std::env;

use axum::{Router, routing::get};
use tower_sd::{
    BoxError, Registration, Registry,
    discovery::CheckResult,
    lifecycle::{Lifecycle, Listener, Readiness, ready_route, serve_axum},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = env::args().nth(1).unwrap_or_else(|| "consul://127.0.0.1:8500".to_owned());
    serve(tower_sd::open(&url)?, "127.0.0.1:8081", Lifecycle::new()).await
}

async fn serve(registry: Registry, listen: &str, lifecycle: Lifecycle) -> Result<(), BoxError> {
    let readiness = Readiness::new();
    let router = Router::new()
        .route("/orders", get(|| async { "[]" }))
        .route("/ready", ready_route(&readiness));
    let check = readiness.follow(health);
    lifecycle
        .readiness(&readiness)
        .register_with(registry, |instance| Registration::new("orders", instance).health(check))
        .run(Listener::bind(listen).await?, serve_axum(router))
        .await?;
    Ok(())
}

/// Runs before each renewal: three times within the TTL of 15 s.
async fn health() -> CheckResult {
    CheckResult::Passing
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{time::sleep, try_join};
    use tokio_util::sync::CancellationToken;
    use tower_sd::MemoryRegistry;

    use super::*;

    #[tokio::test]
    async fn server_is_registered_until_it_stops() {
        let (memory, stop) = (MemoryRegistry::new(), CancellationToken::new());
        let lifecycle = Lifecycle::new().ignore_signals().shutdown_on(stop.clone());
        let served = serve(memory.clone().into(), "127.0.0.1:0", lifecycle);
        let observed = async {
            while memory.entries("orders").is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
            Ok(())
        };
        try_join!(served, observed).expect("starts and stops");
        assert!(memory.entries("orders").is_empty());
    }
}
