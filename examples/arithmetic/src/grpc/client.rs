use tower::ServiceBuilder;
use tower_sd::grpc::{Grpc, GrpcEndpoint, GrpcFactory, GrpcLayer, GrpcProtocol};
use tower_sd::{
    BoxError, Instancer,
    balance::{Balance, BalanceLayer, RoundRobin},
    endpoint::Endpointer,
    retry::{Retry, RetryLayer, RetryPolicy},
};

use super::proto::{CalculateRequest, Operation, arithmetic_client::ArithmeticClient};
use crate::service;

/// A client of the service: the generated one, on a stack of ours. `Clone` is cheap, and all clones
/// share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    generated: ArithmeticClient<Stack>,
}

type Stack = Grpc<Retry<Balance<GrpcEndpoint>, GrpcProtocol>>;

impl Client {
    /// Follows the servers, and sends each call by `policy`, at best each time to another server.
    pub(crate) fn new(instancer: &(impl Instancer + ?Sized), policy: RetryPolicy) -> Self {
        let stack = ServiceBuilder::new()
            .layer(GrpcLayer::new())
            .layer(RetryLayer::new(policy.protocol(GrpcProtocol::new())))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(Endpointer::new(instancer, GrpcFactory::new()));
        Self { generated: ArithmeticClient::new(stack) }
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
