//! TLS for clients and servers: configurations of rustls that follow rotated files.

mod failure;

#[cfg(feature = "tls")]
mod client;
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

use tower_sd_core::{Result, TlsConfig};

impl TlsClient {
    /// Creates the TLS of a URL with this scheme: none unless it is `https`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn for_scheme(scheme: &str, config: Option<&TlsConfig>) -> Result<Option<Self>> {
        (scheme == "https").then(|| Self::new(config.cloned().unwrap_or_default())).transpose()
    }
}
