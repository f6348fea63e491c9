//! A server with TLS, whose certificate is replaced while it runs.
//!
//! `cargo run -p tower-sd-lifecycle --features axum,tls-ring --example server_tls -- cert.pem
//! key.pem`

use std::{env, path::PathBuf};

use axum::{Router, routing::get};
use tower_sd_core::{BoxError, TlsConfig};
use tower_sd_lifecycle::{Lifecycle, Listener, serve_axum};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut files = env::args_os().skip(1).map(PathBuf::from);
    let (Some(certificate), Some(key)) = (files.next(), files.next()) else {
        return Err("usage: server_tls CERTIFICATE KEY".into());
    };
    let listener = Listener::bind("0.0.0.0:8443").await?;
    run(Lifecycle::new(), listener, certificate, key).await
}

/// New connections get the files' content of the moment, at most a second old.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    listener: Listener,
    certificate: PathBuf,
    key: PathBuf,
) -> Result<(), BoxError> {
    // Clients must present a certificate of the authorities of `with_root`, if there are any.
    let tls = TlsConfig::new().with_identity(certificate, key);
    let router = Router::new().route("/", get(|| async { "hello" }));
    lifecycle.run(listener.tls(tls)?, serve_axum(router)).await?;
    Ok(())
}
