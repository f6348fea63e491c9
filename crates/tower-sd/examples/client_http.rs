//! How does an axum handler call another service, and repeat GETs only?
//!
//! What was never sent is repeated whatever its method.

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Method, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_sd::{
    BoxError, Instancer,
    http::{Client, HttpProtocol},
};

/// What handlers share.
#[derive(Clone)]
struct App {
    orders: Client,
}

/// The front end of the service that `orders` follows.
pub(crate) fn router(orders: impl Instancer) -> Router {
    let only_get = HttpProtocol::new().methods([Method::GET]);
    let orders = Client::builder(orders).retry(|policy| policy.protocol(only_get)).build();
    Router::new().route("/orders/{id}", get(show)).with_state(App { orders })
}

async fn show(State(app): State<App>, Path(id): Path<u64>) -> Result<Response, StatusCode> {
    let uri = format!("http://orders/orders/{id}");
    let request = Request::get(uri).body(Body::empty()).expect("a number makes a valid URI");
    match app.orders.request(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(error) => {
            tracing::warn!(%error, "order not shown");
            Err(error.status())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = tower_sd::open("consul://127.0.0.1:8500")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, router(registry.instancer("orders")?)).await?;
    Ok(())
}
