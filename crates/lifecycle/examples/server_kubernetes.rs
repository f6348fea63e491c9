//! A server behind a Kubernetes Service, without a preStop hook.
//!
//! `cargo run -p tower-sd-lifecycle --features axum --example server_kubernetes`
//!
//! Kubernetes sends SIGTERM and removes the endpoint concurrently, so that requests arrive for some
//! seconds after SIGTERM. The propagation takes the place of a preStop hook (`sleep 5`): `/ready`
//! returns 503 and requests are served meanwhile. The stop takes at most 26 s: the propagation, the
//! drain, and a second to abort what is left. `terminationGracePeriodSeconds`, by default 30 s,
//! must exceed it; a registration adds 7 s.

use std::time::Duration;

use axum::{Router, routing::get};
use tower_sd_core::BoxError;
use tower_sd_lifecycle::{Lifecycle, Listener, Readiness, ready_route, serve_axum};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = Listener::bind("0.0.0.0:8080").await?;
    run(Lifecycle::new(), listener, Duration::from_secs(5)).await
}

/// Serves until the order to stop, and for `propagation` after it.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    listener: Listener,
    propagation: Duration,
) -> Result<(), BoxError> {
    let readiness = Readiness::new();
    let router = Router::new()
        .route("/ready", ready_route(&readiness))
        .route("/", get(|| async { "hello" }));
    lifecycle
        .readiness(&readiness)
        .propagation(propagation)
        .drain_timeout(Duration::from_secs(20))
        .run(listener, serve_axum(router))
        .await?;
    Ok(())
}
