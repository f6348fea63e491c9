//! A program with two crypto providers.
//!
//! Its reqwest, which uses plain HTTP, notices none. The README of `tower-sd-net` warns of
//! two: rustls with its default provider, and ring beside it.

use std::panic;

use rustls::{ClientConfig, crypto::aws_lc_rs};
use tower_sd_core::TlsConfig;
use tower_sd_net::TlsClient;

fn main() {
    let config = || TlsConfig::new().danger_accept_invalid_certificates();
    TlsClient::new(config()).expect("by ring");
    let client = reqwest::Client::builder().build();
    assert!(client.is_ok(), "{client:?}");
    panic::set_hook(Box::new(|_| {}));
    assert!(panic::catch_unwind(ClientConfig::builder).is_err(), "the README warns of nothing");
    let _hook = panic::take_hook();
    // The README's remedy.
    aws_lc_rs::default_provider().install_default().expect("the first one");
    drop(ClientConfig::builder());
    TlsClient::new(config()).expect("by aws-lc-rs");
}
