//! The client examples, against servers on loopback.

#[expect(dead_code, reason = "the example's main needs a registry")]
#[path = "../../examples/client_grpc.rs"]
mod client_grpc;
#[expect(dead_code, reason = "the example's main needs a registry")]
#[path = "../../examples/client_http.rs"]
mod client_http;
#[expect(dead_code, reason = "the example's main needs a registry")]
#[path = "../../examples/custom_balancer.rs"]
mod custom_balancer;
#[expect(dead_code, reason = "the example's main needs a registry")]
#[path = "../../examples/reqwest.rs"]
mod reqwest_client;
mod servers;
#[expect(dead_code, reason = "the example's main needs a registry")]
#[path = "../../examples/tower_http.rs"]
mod tower_http_layers;

use axum::{
    Router,
    body::Body,
    http::Request,
    routing::{get, post},
};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_sd::{FixedInstancer, endpoint::Served};

use self::servers::Server;

fn of(servers: &[Server]) -> FixedInstancer {
    FixedInstancer::new(servers.iter().map(Server::instance))
}

#[tokio::test]
async fn handler_streams_the_response_and_maps_errors() {
    let orders = Router::new().route("/orders/{id}", get(|| async { "order" }));
    let servers = [Server::start(orders).await];
    let show = || Request::get("/orders/7").body(Body::empty()).expect("a valid request");
    let response = client_http::router(of(&servers)).oneshot(show()).await.expect("infallible");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, "order");
    let response = client_http::router(of(&[])).oneshot(show()).await.expect("infallible");
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn generated_client_calls_with_an_interceptor_and_streams() {
    let (server, _task) = servers::health().await;
    let statuses = client_grpc::check(FixedInstancer::new([server])).await.expect("answered");
    assert_eq!(statuses, [1, 1]);
}

#[tokio::test]
async fn layers_stand_around_client_and_server() {
    let servers = [Server::start(tower_http_layers::server()).await];
    let client = tower_http_layers::client(of(&servers));
    let get = || Request::get("http://orders/orders").body(Body::empty()).expect("a request");
    let response = client.request(get()).await.expect("answered");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, "order ".repeat(100));
    let plain = tower_sd::http::Client::new(of(&servers));
    assert_eq!(plain.request(get()).await.expect("answered").status(), 401);
}

#[tokio::test]
async fn reqwest_is_balanced_or_resolved() {
    // Another package of the workspace may have compiled TLS into reqwest, without a provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let orders = Router::new()
        .route("/orders", post(|| async { "created" }))
        .route("/health", get(|| async { "healthy" }));
    let servers = [Server::start(orders).await];
    let response = reqwest_client::balanced(of(&servers)).await.expect("answered");
    assert_eq!(response.text().await.expect("whole"), "created");
    let response = reqwest_client::resolved(&of(&servers)).await.expect("answered");
    assert_eq!(response.text().await.expect("whole"), "healthy");
}

#[tokio::test]
async fn balancer_fills_one_instance_after_the_other() {
    let orders = || Router::new().route("/orders", get(|| async { "order" }));
    let servers = [Server::start(orders()).await, Server::start(orders()).await];
    let client = custom_balancer::client(of(&servers));
    let mut served = Vec::new();
    // Until a connection is open, any instance that is ready gets the request.
    let is_steady =
        |served: &[_]| served.len() > 10 && served.windows(2).all(|two| two[0] == two[1]);
    for _ in 0..200 {
        let get = Request::get("http://orders/orders").body(Body::empty()).expect("a request");
        let response = client.request(get).await.expect("answered");
        served.push(response.extensions().get::<Served>().expect("served").instance().clone());
        response.into_body().collect().await.expect("whole");
    }
    assert!(is_steady(&served[150..]), "{served:?}");
}
