//! How does a generated gRPC client call the instances of a service?

use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_sd::{BoxError, Instancer, grpc::Channel};

/// Calls a unary method and a streaming one, each with a token that an interceptor adds.
pub(crate) async fn check(orders: impl Instancer) -> Result<[i32; 2], Status> {
    let channel = Channel::new(orders);
    let mut client = HealthClient::with_interceptor(channel, authorized);
    let unary = client.check(HealthCheckRequest::default()).await?.into_inner();
    let mut stream = client.watch(HealthCheckRequest::default()).await?.into_inner();
    let streamed =
        stream.message().await?.ok_or_else(|| Status::new(Code::Unavailable, "empty"))?;
    Ok([unary.status, streamed.status])
}

fn authorized(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer secret"));
    Ok(request)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let registry = tower_sd::open("consul://127.0.0.1:8500")?;
    tracing::info!(statuses = ?check(registry.instancer("orders")?).await?, "checked");
    Ok(())
}
