//! An example: `/{service}/…` goes to an instance of any service in the catalogue.

mod services;
mod web;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tower_sd::BoxError;
use tower_sd::consul::{Consul, ConsulConfig};
use tower_sd::lifecycle::{Lifecycle, Listener, serve_axum};

use crate::services::Services;

/// Passes requests for /{service}/… on to the instances of that service.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A service without requests is dropped after this long
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,
    /// At most so many services are followed: beyond that, the one with the oldest request is
    /// dropped
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max: u16,
    /// The Consul agent
    #[arg(long, default_value = "127.0.0.1:8500", value_name = "HOST:PORT")]
    consul: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("gateway: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), BoxError> {
    let consul = Consul::new(ConsulConfig::new(args.consul))?;
    let idle = Duration::from_secs(args.idle);
    let services = Arc::new(Services::new(consul, idle, args.max.into()));
    let listener = Listener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    // It registers nowhere: it is the one address that callers know.
    Lifecycle::new()
        .after_start(move || async move {
            say(&format!("listening on {address}"));
            Ok::<_, BoxError>(())
        })
        .run(listener, serve_axum(web::router(Arc::clone(&services))))
        .await?;
    services.close().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a script that starts it waits for this line")]
fn say(line: &str) {
    println!("{line}");
}
