//! How are tower-http's layers put around a client and around a server?

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tower::limit::ConcurrencyLimitLayer;
use tower_http::{
    auth::AddAuthorizationLayer, compression::CompressionLayer, decompression::DecompressionLayer,
    limit::RequestBodyLimitLayer, timeout::TimeoutLayer, trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};
use tower_sd::{BoxError, Instancer, http::Client};

/// A client with layers. The last one is the outermost.
///
/// Each layer gets a request once, whatever is retried below.
pub(crate) fn client(orders: impl Instancer) -> Client {
    Client::new(orders)
        .layer(DecompressionLayer::new())
        .layer(AddAuthorizationLayer::bearer("secret"))
        .layer(RequestBodyLimitLayer::new(1024 * 1024))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, TIMEOUT))
        .layer(ConcurrencyLimitLayer::new(100))
        .layer(TraceLayer::new_for_http())
}

/// A server with layers. The last one is the outermost.
pub(crate) fn server() -> Router {
    Router::new()
        .route("/orders", get(|| async { "order ".repeat(100) }))
        .layer(RequestBodyLimitLayer::new(1024 * 1024))
        .layer(ValidateRequestHeaderLayer::custom(authorize))
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(TraceLayer::new_for_http())
}

#[expect(clippy::result_large_err, reason = "the layer takes the response as the error")]
fn authorize(request: &mut Request<Body>) -> Result<(), Response> {
    let token = request.headers().get(header::AUTHORIZATION);
    match token.is_some_and(|token| token == "Bearer secret") {
        true => Ok(()),
        false => Err(StatusCode::UNAUTHORIZED.into_response()),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = tower_sd::open("consul://127.0.0.1:8500")?;
    let request = Request::get("http://orders/orders").body(String::new())?;
    let response = client(registry.instancer("orders")?).request(request).await?;
    tracing::info!(status = %response.status(), "answered");
    axum::serve(TcpListener::bind("127.0.0.1:8081").await?, server()).await?;
    Ok(())
}

const TIMEOUT: Duration = Duration::from_secs(5);
