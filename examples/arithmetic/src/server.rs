//! The service, and its life from listening to stopping.

use std::net::SocketAddr;

use axum::{Json, Router, extract::Path, http::StatusCode, routing::post};
use tower_sd::{AdvertiseAddress, BoxError};
#[cfg(feature = "grpc")]
use tower_sd_lifecycle::serve_tonic;
use tower_sd_lifecycle::{Lifecycle, Listener, Readiness, serve_axum};

#[cfg(feature = "grpc")]
use crate::grpc;
use crate::{
    cli::ServerArgs,
    config::{Configured, SetLog},
    operations::operated,
    registry,
    service::{self, Answer},
};

/// Runs the `server` command.
pub(crate) async fn main(args: &ServerArgs, set_log: SetLog) -> Result<(), BoxError> {
    let configured =
        args.config.as_deref().map(|url| Configured::follow(url, set_log)).transpose()?;
    let registrar = registry::registrar(&args.registry)?;
    let listener = Listener::bind(args.listen).await?;
    let readiness = Readiness::new();
    let mut lifecycle = announced(listener.local_addr()?).readiness(&readiness);
    if let Some(registrar) = registrar {
        let advertised = args.advertise.as_deref().map(registry::instance).transpose()?;
        lifecycle = lifecycle.register(registrar, name(args));
        if let Some(instance) = advertised {
            let (host, port) = (instance.host().to_owned(), Some(instance.port()));
            lifecycle = lifecycle.advertise(AdvertiseAddress::Explicit { host, port });
        }
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

/// A life that says where it listens when it does and is registered.
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

#[expect(clippy::print_stdout, reason = "whoever started it waits for this line")]
fn say(line: &str) {
    println!("{line}");
}
