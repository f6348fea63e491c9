//! A server that waits for an instance of its dependency.
//!
//! Before, it is neither ready nor registered.
//!
//! `cargo run -p tower-sd-lifecycle --features axum --example server_dependency`

use std::time::Duration;

use axum::{Router, body::Bytes, routing::get};
use http_body_util::Full;
use tower_sd_balance::Endpointer;
use tower_sd_core::{BoxError, Instance, MemoryRegistry, Registration};
use tower_sd_http::HttpFactory;
use tower_sd_lifecycle::{Lifecycle, Listener, Readiness, ready_route, serve_axum};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // In memory for the example; a `Registry` by URL works likewise.
    let registry = MemoryRegistry::new();
    let orders = Registration::new("orders", Instance::new("127.0.0.1", 8082));
    let _orders = registry.register(orders).await?;
    let listener = Listener::bind("127.0.0.1:8081").await?;
    run(Lifecycle::new(), listener, registry, Duration::from_secs(60)).await
}

/// Fails if `orders` has no instance within `patience`: a supervisor then starts the process again.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    listener: Listener,
    registry: MemoryRegistry,
    patience: Duration,
) -> Result<(), BoxError> {
    let factory = HttpFactory::<Full<Bytes>>::new();
    let orders = Endpointer::new(&registry.instancer("orders"), factory);
    let first = orders.clone();
    let readiness = Readiness::new();
    let router = Router::new().route("/ready", ready_route(&readiness)).route(
        "/",
        get(move || async move { format!("{} endpoints", orders.report().endpoints.len()) }),
    );
    lifecycle
        .readiness(&readiness)
        .register(registry, "frontend")
        .before_ready(move || async move { first.ready(patience).await })
        .run(listener, serve_axum(router))
        .await?;
    Ok(())
}
