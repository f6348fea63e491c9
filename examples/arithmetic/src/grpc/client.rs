use tower_sd::grpc::{Channel, GrpcProtocol};
use tower_sd::{BoxError, Instancer, balance::RoundRobin, retry::RetryPolicy};

use super::proto::{CalculateRequest, Operation, arithmetic_client::ArithmeticClient};
use crate::service;

/// A client of the service: the generated one on a channel. `Clone` is cheap, and all clones share
/// the connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    generated: ArithmeticClient<Channel>,
}

impl Client {
    /// Follows the servers, and sends each call by `policy`, at best each time to another server.
    pub(crate) fn new(instancer: impl Instancer, policy: RetryPolicy) -> Self {
        let channel = Channel::builder(instancer)
            .balancer(RoundRobin::new())
            .retry(|_| policy.protocol(GrpcProtocol::new()));
        Self { generated: ArithmeticClient::new(channel.build()) }
    }

    pub(crate) async fn calculate(
        &self,
        operation: &str,
        a: &str,
        b: &str,
    ) -> Result<i64, BoxError> {
        let (operation, a, b) = service::parse(operation, a, b)?;
        let request = CalculateRequest { operation: Operation::from(operation).into(), a, b };
        match self.generated.clone().calculate(request).await {
            Ok(response) => Ok(response.into_inner().result),
            Err(status) => Err(status.message().into()),
        }
    }
}
