use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Router},
};
use tower::layer::util::{Identity, Stack};
use tower_sd::lifecycle::{Readiness, ready_health};

use super::proto::{
    CalculateRequest, CalculateResponse,
    arithmetic_server::{Arithmetic, ArithmeticServer, SERVICE_NAME},
};
use crate::{
    middleware::LogLayer,
    service::{Mistake, Operation},
};

/// The service and its health, for a listener.
pub(crate) fn router(readiness: &Readiness) -> Router<Stack<LogLayer, Identity>> {
    Server::builder()
        .layer(LogLayer)
        .add_service(ready_health(readiness, [SERVICE_NAME]))
        .add_service(ArithmeticServer::new(Calculator))
}

#[derive(Debug)]
struct Calculator;

#[tonic::async_trait]
impl Arithmetic for Calculator {
    type CalculateAllStream = Pin<Box<dyn Stream<Item = Result<CalculateResponse, Status>> + Send>>;

    async fn calculate(
        &self,
        request: Request<CalculateRequest>,
    ) -> Result<Response<CalculateResponse>, Status> {
        Ok(Response::new(calculate(request.get_ref())?))
    }

    async fn calculate_all(
        &self,
        requests: Request<Streaming<CalculateRequest>>,
    ) -> Result<Response<Self::CalculateAllStream>, Status> {
        let answers = requests.into_inner().map(|request| Ok(calculate(&request?)?));
        Ok(Response::new(answers.boxed()))
    }
}

fn calculate(request: &CalculateRequest) -> Result<CalculateResponse, Mistake> {
    let operation = Operation::try_from(request.operation())?;
    Ok(CalculateResponse { result: operation.apply(request.a, request.b)? })
}

impl From<Mistake> for Status {
    fn from(mistake: Mistake) -> Self {
        Self::invalid_argument(mistake.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::grpc::proto;

    #[test]
    fn mistakes_are_invalid_arguments_with_their_sentences() {
        let refused = |operation: proto::Operation, a, b| {
            let request = CalculateRequest { operation: operation.into(), a, b };
            Status::from(calculate(&request).expect_err("a mistake"))
        };
        let status = refused(proto::Operation::Divide, 1, 0);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "division by zero has no result");
        let status = refused(proto::Operation::Unspecified, 1, 0);
        assert!(status.message().contains("OPERATION_UNSPECIFIED"), "{status}");
    }
}
