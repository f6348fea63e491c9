//! The service over HTTP, and its life from listening to stopping.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    signal,
    time::{Instant, sleep},
};
use tower_sd::{Advertise, BoxError, Instance, Registration, RegistrationHandle};

use crate::{
    cli::ServerArgs,
    registry,
    service::{self, Answer},
};

/// `GET /health`.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    uptime_seconds: u64,
    version: &'static str,
}

/// Runs the `server` command.
///
/// The order matters: it listens before it announces, and withdraws before it stops, so that no client is ever sent to
/// a closed port.
pub(crate) async fn main(args: &ServerArgs) -> Result<(), BoxError> {
    let registrar = registry::registrar(&args.registry)?;
    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    let registration = match registrar {
        None => None,
        Some(registrar) => {
            let instance = advertised(args, address)?;
            Some(registrar.register(Registration::new(service::NAME, instance)).await?)
        }
    };
    say(&format!("listening on {address}"));
    let stop = async {
        told_to_stop().await;
        withdraw(registration).await;
    };
    axum::serve(listener, router()).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// The service, the same for the `server` command and for the demo.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/calculate/{operation}/{a}/{b}", post(calculate))
        .route("/health", get(health))
        .with_state(Instant::now())
}

/// Takes the server out of the registry, and gives clients time to notice. A registry that fails does not keep the
/// server from stopping: the entry ends with its TTL.
pub(crate) async fn withdraw(registration: Option<RegistrationHandle>) {
    if let Some(registration) = registration {
        if let Err(error) = registration.deregister().await {
            tracing::warn!(%error, "not deregistered");
        }
        sleep(PROPAGATION).await;
    }
}

async fn calculate(
    Path((operation, a, b)): Path<(String, String, String)>,
) -> (StatusCode, Json<Answer>) {
    match service::calculate(&operation, &a, &b) {
        Ok(result) => (StatusCode::OK, Json(Answer { result: Some(result), error: None })),
        Err(mistake) => {
            let error = Some(mistake.to_string());
            (StatusCode::BAD_REQUEST, Json(Answer { result: None, error }))
        }
    }
}

async fn health(State(started): State<Instant>) -> Json<Health> {
    Json(Health {
        status: "passing",
        uptime_seconds: started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

fn advertised(args: &ServerArgs, listened: SocketAddr) -> Result<Instance, BoxError> {
    match &args.advertise {
        Some(address) => registry::instance(address),
        None => Ok(Advertise::Listened.instance(listened)?),
    }
}

async fn told_to_stop() {
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminated) => terminated.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

#[expect(clippy::print_stdout, reason = "whoever started it waits for this line")]
fn say(line: &str) {
    println!("{line}");
}

/// A blocking query or a watch answers within milliseconds; a client that is slower has its retry.
const PROPAGATION: Duration = Duration::from_millis(500);
