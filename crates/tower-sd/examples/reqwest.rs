//! How does a program that uses reqwest call the instances of a service?

use reqwest::{Client, Error, Response};
use tower_sd::{
    BoxError, Instancer,
    reqwest::{InstanceResolver, ReqwestClient},
};

/// Balanced and retried: each request goes to an instance.
pub(crate) async fn balanced(orders: impl Instancer) -> Result<Response, BoxError> {
    let orders = ReqwestClient::new(orders)?;
    let request = orders.client().post("http://orders/orders").body("one");
    Ok(orders.send(request).await?)
}

/// Resolved only: reqwest connects to an instance, and keeps that connection.
pub(crate) async fn resolved(orders: &impl Instancer) -> Result<Response, Error> {
    let resolver = InstanceResolver::new().service("orders", orders);
    let client = Client::builder().dns_resolver(resolver).no_proxy().build()?;
    client.get("http://orders/health").send().await
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = tower_sd::open("consul://127.0.0.1:8500")?;
    let instancer = registry.instancer("orders")?;
    tracing::info!(status = %resolved(&instancer).await?.status(), "answered by an address");
    tracing::info!(status = %balanced(instancer).await?.status(), "answered by an instance");
    Ok(())
}
