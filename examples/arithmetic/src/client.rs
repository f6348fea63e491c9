//! The service as its callers see it: discovered, balanced, retried.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::http::{HttpEndpoint, HttpFactory, HttpProtocol};
use tower_sd::{
    BoxError, Instancer,
    balance::{Balance, BalanceLayer, RoundRobin},
    endpoint::Endpointer,
    retry::{Retry, RetryLayer, RetryPolicy},
};

#[cfg(feature = "grpc")]
use crate::grpc;
use crate::{
    cli::ClientArgs,
    service::{self, Answer},
};

/// The live servers, each with its connections.
pub(crate) type Endpoints = Endpointer<Endpoint>;
/// The service of one of them. No request has a body.
type Endpoint = HttpEndpoint<Empty<Bytes>>;

/// A client of the service. `Clone` is cheap, and all clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    stack: Retry<Balance<Endpoint>, HttpProtocol>,
    endpointer: Endpoints,
}

/// Runs the `client` command.
#[expect(clippy::print_stdout, reason = "the result is what the command is for")]
pub(crate) async fn main(args: &ClientArgs) -> Result<(), BoxError> {
    let registry = tower_sd::open(&args.registry)?;
    let service = |name: &'static str| args.service.as_deref().unwrap_or(name);
    #[cfg(feature = "grpc")]
    if args.grpc {
        let instancer = registry.instancer(service(grpc::NAME))?;
        let client = grpc::Client::new(&instancer, policy());
        println!("{}", client.calculate(&args.operation, &args.a, &args.b).await?);
        return Ok(());
    }
    let instancer = registry.instancer(service(service::NAME))?;
    let client = Client::new(&instancer, policy());
    let result = client.calculate(&args.operation, &args.a, &args.b).await?;
    println!("{result}");
    Ok(())
}

impl Client {
    /// Follows the servers, and sends each request by `policy`, at best each time to another
    /// server.
    pub(crate) fn new(instancer: &(impl Instancer + ?Sized), policy: RetryPolicy) -> Self {
        let endpointer = Endpointer::new(instancer, HttpFactory::new());
        let stack = ServiceBuilder::new()
            .layer(RetryLayer::new(policy.protocol(HttpProtocol::new())))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(endpointer.clone());
        Self { stack, endpointer }
    }

    pub(crate) fn endpointer(&self) -> &Endpoints {
        &self.endpointer
    }

    pub(crate) async fn calculate(
        &self,
        operation: &str,
        a: &str,
        b: &str,
    ) -> Result<i64, BoxError> {
        let path = format!("/calculate/{operation}/{a}/{b}");
        let response = self.send(&path).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match serde_json::from_slice(&body) {
            Ok(Answer { result: Some(result), .. }) => Ok(result),
            Ok(Answer { error: Some(error), .. }) => Err(error.into()),
            _ => Err(format!("the server answered {status} and no result").into()),
        }
    }

    /// The answer of one of the servers, whatever it is.
    pub(crate) async fn send(
        &self,
        path: &str,
    ) -> Result<
        Response<impl Body<Data = Bytes, Error: Error + Send + Sync> + Send + use<>>,
        BoxError,
    > {
        let uri = format!("http://{}{path}", service::NAME);
        let request = Request::post(uri).body(Empty::new())?;
        self.stack.clone().ready().await?.call(request).await
    }
}

/// A calculation changes nothing at the server: repeating one does no harm, although it is a POST.
///
/// A server that hangs costs 2 s, and no request takes more than 7 s.
pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy::new()
        .idempotent()
        .per_try_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(7))
}
