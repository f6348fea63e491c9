//! The client, over HTTP or over gRPC.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::grpc::{Grpc, GrpcEndpoint, GrpcFactory, GrpcLayer, GrpcProtocol};
use tower_sd::http::{HttpEndpoint, HttpFactory, HttpProtocol};
use tower_sd::{
    BoxError, Instancer,
    balance::{Balance, BalanceLayer, RoundRobin},
    endpoint::Endpointer,
    retry::{Retry, RetryLayer, RetryPolicy},
};

use proto::{CalculateRequest, Operation, arithmetic_client::ArithmeticClient};

#[allow(warnings, reason = "generated")]
#[path = "../../src/grpc/proto.rs"]
mod proto;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

#[derive(Clone)]
pub(crate) enum Client {
    Grpc(ArithmeticClient<Grpc<Retry<Balance<GrpcEndpoint>, GrpcProtocol>>>),
    Http(Retry<Balance<HttpEndpoint<Empty<Bytes>>>, HttpProtocol>),
}

impl Protocol {
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Grpc => "arithmetic-grpc",
            Self::Http => "arithmetic",
        }
    }

    /// The server's flags.
    pub(crate) fn flag(self) -> Option<&'static str> {
        match self {
            Self::Grpc => Some("--grpc"),
            Self::Http => None,
        }
    }
}

impl Client {
    /// One that has found the servers.
    pub(crate) async fn new(
        protocol: Protocol,
        instancer: &dyn Instancer,
        policy: RetryPolicy,
    ) -> Self {
        let balance = BalanceLayer::new(RoundRobin::new());
        match protocol {
            Protocol::Grpc => {
                let endpointer = Endpointer::new(instancer, GrpcFactory::new());
                endpointer.ready(PATIENCE).await.expect("the servers are there");
                let stack = ServiceBuilder::new()
                    .layer(GrpcLayer::new())
                    .layer(RetryLayer::new(policy.protocol(GrpcProtocol::new())))
                    .layer(balance)
                    .service(endpointer);
                Self::Grpc(ArithmeticClient::new(stack))
            }
            Protocol::Http => {
                let endpointer = Endpointer::new(instancer, HttpFactory::new());
                endpointer.ready(PATIENCE).await.expect("the servers are there");
                let stack = ServiceBuilder::new()
                    .layer(RetryLayer::new(policy.protocol(HttpProtocol::new())))
                    .layer(balance)
                    .service(endpointer);
                Self::Http(stack)
            }
        }
    }

    /// One calculation, whose result is checked.
    pub(crate) async fn add(self, n: u64) -> Result<(), BoxError> {
        match self {
            Self::Grpc(mut client) => {
                let a = i64::try_from(n)?;
                let operation = Operation::Add.into();
                let answer = client.calculate(CalculateRequest { operation, a, b: 1 }).await?;
                let result = answer.into_inner().result;
                if result == a + 1 { Ok(()) } else { Err(format!("{result}").into()) }
            }
            Self::Http(mut client) => {
                let uri = format!("http://arithmetic/calculate/Add/{n}/1");
                let request = Request::post(uri).body(Empty::new())?;
                let answer = client.ready().await?.call(request).await?;
                let body = answer.into_body().collect().await?.to_bytes();
                let expected = format!(r#"{{"result":{},"error":null}}"#, n + 1);
                if body == expected { Ok(()) } else { Err(format!("{body:?}").into()) }
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
