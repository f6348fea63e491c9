#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
pub(crate) mod client;
mod deadline;
mod endpoint;
mod error;
mod exchange;
mod factory;
mod headers;
mod health;
mod hold;
mod host;
mod pool;
mod protocol;
mod replay;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod version;

pub use body::ResponseBody;
pub use client::{
    Body, Client, ClientBuilder, ClientError, ClientErrorKind, ClientFuture, RequestBody,
};
#[doc(hidden)]
pub use deadline::grpc_timeout;
pub use deadline::{Deadline, DeadlineBody, DeadlineFuture, DeadlineLayer, DeadlineReport};
pub use endpoint::{HttpEndpoint, ResponseFuture};
pub use error::{HttpError, HttpErrorKind};
pub use factory::HttpFactory;
pub use headers::HeadersTooLarge;
pub use health::HealthPolicy;
pub use hold::InFlightBody;
pub use host::HostPolicy;
pub use pool::ConnectionLimit;
pub use protocol::{HttpProtocol, Idempotent};
pub use replay::{NotRepeatable, RepeatableBody, ReplayBody};
pub use tower_sd_core::{Pem, TlsConfig};
pub use tower_sd_net::{Connector, Dialer, Io, TlsClient};
pub use version::HttpVersion;

#[cfg(test)]
mod tests;
