//! TLS for clients and servers: configurations of rustls that follow rotated files.

mod failure;

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod rotating;
#[cfg(feature = "tls")]
mod rustls_config;
#[cfg(feature = "tls")]
mod server;

#[cfg(not(feature = "tls"))]
mod disabled;

pub use self::failure::TlsFailure;

#[cfg(feature = "tls")]
pub use self::{client::TlsClient, server::TlsServer};

#[cfg(not(feature = "tls"))]
pub use self::disabled::TlsClient;
