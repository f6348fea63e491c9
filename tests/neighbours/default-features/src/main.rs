//! A program with its own reqwest and rustls.
//!
//! Its reqwest uses plain HTTP, its rustls has its default provider: neither notices its
//! neighbours, which have their default features.

use rustls::{ClientConfig, ServerConfig};

fn main() {
    // Fails where a neighbour gives reqwest a TLS without a provider.
    let client = reqwest::Client::builder().build();
    assert!(client.is_ok(), "{client:?}");
    // Each panics where rustls has no provider, or two to choose from.
    drop((ClientConfig::builder(), ServerConfig::builder()));
}
