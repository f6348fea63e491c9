//! An operator's endpoints: is the server ready, is it well, what has it done.

use std::convert::Infallible;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::time::Instant;
use tower_sd::lifecycle::{Readiness, ready_route};

use crate::middleware::{LogLayer, Metrics};

/// `GET /health`.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    uptime_seconds: u64,
    version: &'static str,
}

/// `service` with its requests logged and measured, and beside it `/ready`, `/health` and
/// `/metrics`, which are not.
pub(crate) fn operated(service: Router, readiness: &Readiness) -> Router {
    let metrics = Metrics::new();
    let operations = Router::new()
        .route("/ready", ready_route(readiness))
        .route("/health", get(health).with_state(Instant::now()))
        .route("/metrics", get(answer).with_state(metrics.clone()));
    service.layer(metrics.layer()).layer(LogLayer).merge(operations)
}

async fn health(State(started): State<Instant>) -> Json<Health> {
    Json(Health {
        status: "passing",
        uptime_seconds: started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

async fn answer(State(metrics): State<Metrics>) -> Result<Response, Infallible> {
    Ok(match metrics.answer() {
        Ok(answer) => answer.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}
