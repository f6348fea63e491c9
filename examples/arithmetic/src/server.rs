//! The service, and its life from listening to stopping.

use std::net::SocketAddr;

use axum::{Json, Router, extract::Path, http::StatusCode, routing::post};
#[cfg(feature = "grpc")]
use tower_sd::lifecycle::serve_tonic;
use tower_sd::{
    BoxError, Instance,
    discovery::AdvertiseAddress,
    lifecycle::{Lifecycle, Listener, Readiness, serve_axum},
};

#[cfg(feature = "grpc")]
use crate::grpc;
use crate::{
    cli::ServerArgs,
    config::{Configured, SetLog},
    operations::operated,
    service::{self, Answer},
};

/// Runs the `server` command.
pub(crate) async fn main(args: &ServerArgs, set_log: SetLog) -> Result<(), BoxError> {
    let configured =
        args.config.as_deref().map(|url| Configured::follow(url, set_log)).transpose()?;
    let registry = tower_sd::open(&args.registry)?;
    let listener = Listener::bind(args.listen).await?;
    let readiness = Readiness::new();
    let mut lifecycle = announced(listener.local_addr()?).readiness(&readiness);
    // Addresses that are known need no registration.
    if registry.name() != "static" {
        lifecycle = lifecycle.register(registry, name(args));
    }
    if let Some(address) = &args.advertise {
        let instance: Instance = address.parse()?;
        let (host, port) = (instance.host().to_owned(), Some(instance.port()));
        lifecycle = lifecycle.advertise(AdvertiseAddress::Explicit { host, port });
    }
    #[cfg(feature = "grpc")]
    if args.grpc {
        lifecycle.run(listener, serve_tonic(grpc::router(&readiness))).await?;
        return Ok(());
    }
    let service = match &configured {
        Some(configured) => configured.switched(router()),
        None => router(),
    };
    lifecycle.run(listener, serve_axum(operated(service, &readiness))).await?;
    if let Some(configured) = configured {
        configured.close().await;
    }
    Ok(())
}

#[cfg_attr(not(feature = "grpc"), expect(unused_variables, reason = "there is HTTP only"))]
fn name(args: &ServerArgs) -> &'static str {
    #[cfg(feature = "grpc")]
    if args.grpc {
        return grpc::NAME;
    }
    service::NAME
}

/// A life that prints its address when it listens and is registered.
pub(crate) fn announced(address: SocketAddr) -> Lifecycle {
    Lifecycle::new().after_start(move || async move {
        say(&format!("listening on {address}"));
        Ok::<_, BoxError>(())
    })
}

/// The service, the same for the `server` command and for the demo.
pub(crate) fn router() -> Router {
    Router::new().route("/calculate/{operation}/{a}/{b}", post(calculate))
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

#[expect(clippy::print_stdout, reason = "a script that starts it waits for this line")]
fn say(line: &str) {
    println!("{line}");
}
