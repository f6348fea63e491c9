//! TLS for clients: a rustls configuration that follows rotated files.

mod failure;

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod rustls_config;

#[cfg(not(feature = "tls"))]
mod disabled;

pub use self::failure::TlsFailure;

#[cfg(feature = "tls")]
pub use self::client::TlsClient;

#[cfg(not(feature = "tls"))]
pub use self::disabled::TlsClient;
