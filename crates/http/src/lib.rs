#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod connector;
mod endpoint;
mod error;
mod factory;
mod headers;
mod hold;
mod host;
mod io;
mod layered;
mod pool;
mod protocol;
mod replay;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

pub use body::ResponseBody;
pub use connector::Connector;
pub use endpoint::{HttpEndpoint, ResponseFuture};
pub use error::{HttpError, HttpErrorKind};
pub use factory::HttpFactory;
pub use headers::HeadersTooLarge;
pub use hold::{Leased, ToBody};
pub use host::HostPolicy;
pub use layered::Layered;
pub use protocol::Protocol;
pub use replay::{HttpReplay, Idempotent, NotRepeatable, RepeatableBody, ReplayBody};
#[cfg(feature = "tls")]
pub use tls::Tls;

#[cfg(test)]
mod tests;
