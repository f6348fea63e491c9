#![doc = include_str!("../README.md")]

mod body;
mod channel;
mod code;
mod deadline;
mod endpoint;
mod factory;
mod health;
mod health_stream;
mod hold;
mod layer;
mod protocol;

pub use tower_sd_http::{DeadlineLayer, Idempotent};

pub use body::GrpcBody;
pub use channel::{Channel, ChannelBuilder};
pub use endpoint::{GrpcEndpoint, GrpcResponse};
pub use factory::GrpcFactory;
pub use hold::InFlightBody;
pub use layer::{Grpc, GrpcFuture, GrpcLayer};
pub use protocol::GrpcProtocol;
