//! The service over HTTP, and its life from listening to stopping.

use std::net::SocketAddr;

use axum::{Json, Router, extract::Path, http::StatusCode, routing::post};
use tower_sd::{Advertise, BoxError};
use tower_sd_lifecycle::{Lifecycle, Listener, Readiness, Step, serve_axum};

use crate::{
    cli::ServerArgs,
    operations::operated,
    registry,
    service::{self, Answer},
};

/// Runs the `server` command.
pub(crate) async fn main(args: &ServerArgs) -> Result<(), BoxError> {
    let registrar = registry::registrar(&args.registry)?;
    let listener = Listener::bind(args.listen).await?;
    let readiness = Readiness::new();
    let mut lifecycle = announced(listener.local_addr()?).readiness(&readiness);
    if let Some(registrar) = registrar {
        let advertised = args.advertise.as_deref().map(registry::instance).transpose()?;
        lifecycle = lifecycle.register(registrar, service::NAME);
        if let Some(instance) = advertised {
            let (host, port) = (instance.host().to_owned(), Some(instance.port()));
            lifecycle = lifecycle.advertise(Advertise::Given { host, port });
        }
    }
    lifecycle.run(listener, serve_axum(operated(router(), &readiness))).await?;
    Ok(())
}

/// A life that says where it listens when it does and is registered.
pub(crate) fn announced(address: SocketAddr) -> Lifecycle {
    Lifecycle::new().before(Step::Live, move || async move {
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
