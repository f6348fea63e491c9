//! The client as a server.
//!
//! `/calculate/…` comes in over HTTP, and goes out balanced over the registered servers.

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use tower_sd::lifecycle::{Listener, Readiness, serve_axum};
use tower_sd::{BoxError, http::ClientError};

use crate::{
    cli::GatewayArgs,
    client::{self, Client},
    operations::operated,
    server,
    service::{self, Answer},
};

/// Runs the `gateway` command. It registers nowhere; it starts whether there are servers or not.
pub(crate) async fn main(args: &GatewayArgs) -> Result<(), BoxError> {
    let instancer = tower_sd::open(&args.registry)?.instancer(service::NAME)?;
    let client = Client::new(instancer, client::policy());
    let listener = Listener::bind(args.listen).await?;
    let readiness = Readiness::new();
    let lifecycle = server::announced(listener.local_addr()?).readiness(&readiness);
    lifecycle.run(listener, serve_axum(operated(router(client), &readiness))).await?;
    Ok(())
}

fn router(client: Client) -> Router {
    Router::new().route("/calculate/{operation}/{a}/{b}", post(calculate)).with_state(client)
}

/// The server's answer as it is, its body as it comes; or why there is none.
async fn calculate(State(client): State<Client>, uri: Uri) -> Response {
    match client.send(uri.path()).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            // Only what belongs to the answer: the rest belongs to the connection that it came on.
            let content_type = parts.headers.remove(CONTENT_TYPE);
            parts.headers.clear();
            parts.headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => {
            tracing::warn!(error = %error, "no answer");
            let status = error.downcast_ref().map_or(StatusCode::BAD_REQUEST, ClientError::status);
            let answer = Answer { result: None, error: Some(error.to_string()) };
            (status, Json(answer)).into_response()
        }
    }
}
