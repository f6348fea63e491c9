//! Generated clients on our stack, against tonic's servers on loopback.

mod c_core;
mod calls;
mod channel;
mod failures;
mod health;
mod hops;
mod load;
mod raw;
mod server;
mod statuses;
mod time_limits;
mod transport;

use tower::{Layer, ServiceBuilder};
use tower_sd_balance::{
    Balance, BalanceLayer, EjectionPolicy, Endpointer, EndpointerConfig, FixedInstancer, Instance,
    Retry, RetryLayer, RetryPolicy, RoundRobin,
};
use tower_sd_tonic::{Grpc, GrpcEndpoint, GrpcFactory, GrpcLayer, GrpcProtocol};

use echo::{Message, echo_client::EchoClient};

#[allow(warnings, reason = "generated")]
#[path = "../proto/echo.rs"]
mod echo;

type Endpoints = Endpointer<GrpcEndpoint>;
type Balanced = Balance<GrpcEndpoint>;
type Retried = Grpc<Retry<Balanced, GrpcProtocol>>;

fn endpointer(instances: impl IntoIterator<Item = Instance>) -> Endpoints {
    let config = EndpointerConfig::new().ejection(EjectionPolicy::off());
    Endpointer::with_config(&FixedInstancer::new(instances), GrpcFactory::new(), config)
}

/// A generated client directly on a balancer.
fn balanced(endpointer: &Endpoints) -> EchoClient<Balanced> {
    EchoClient::new(BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone()))
}

fn retried(endpointer: &Endpoints, policy: RetryPolicy) -> EchoClient<Retried> {
    EchoClient::new(stack(endpointer, GrpcLayer::new(), policy))
}

fn stack(endpointer: &Endpoints, layer: GrpcLayer, policy: RetryPolicy) -> Retried {
    ServiceBuilder::new()
        .layer(layer)
        .layer(RetryLayer::new(policy.protocol(GrpcProtocol::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone())
}

fn message(text: impl Into<String>) -> Message {
    Message { text: text.into() }
}
