//! TLS by the provider that the process installs: the only one that is compiled in.

use rustls::{ClientConfig, crypto::aws_lc_rs};
use tower_sd_core::TlsConfig;
use tower_sd_net::TlsClient;

fn main() {
    let config = || TlsConfig::new().danger_accept_invalid_certificates();
    let error = TlsClient::new(config()).expect_err("none is installed yet");
    assert!(error.to_string().contains("no crypto provider"), "{error}");
    drop(ClientConfig::builder());
    // The builder has installed the only one.
    assert!(aws_lc_rs::default_provider().install_default().is_err());
    TlsClient::new(config()).expect("by the process's provider");
}
