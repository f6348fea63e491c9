//! An example: HTTP in front of Redis, which is in Consul only while Redis answers.

mod store;
mod web;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use tower_sd::consul::{Consul, ConsulConfig};
use tower_sd::lifecycle::{Lifecycle, Listener, serve_axum};
use tower_sd::{BoxError, Registration};

use crate::store::Store;

/// Answers GET /{key} with the value that Redis has for it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The address to listen on, which is registered in Consul
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0: any
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where Redis is; of several, the first that answers is used
    #[arg(
        long,
        default_value = "127.0.0.1:6379",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    redis: Vec<String>,
    /// How long Consul accepts the last heartbeat; Redis is pinged at least twice in that time
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    ttl: u64,
    /// The Consul agent
    #[arg(long, default_value = "127.0.0.1:8500", value_name = "HOST:PORT")]
    consul: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, cause = error.source().map(ToString::to_string), "webkv ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), BoxError> {
    let ttl = Duration::from_secs(args.ttl);
    // Several attempts within a TTL, each with two servers that hang: Consul gets it in time.
    let store = Arc::new(Store::new(&args.redis, ttl / 8)?);
    let consul = Consul::new(ConsulConfig::new(args.consul).ttl(ttl))?;
    let listener = Listener::bind(SocketAddr::new(args.host, args.port)).await?;
    let address = listener.local_addr()?;
    let checked = Arc::clone(&store);
    Lifecycle::new()
        .register_with(consul, move |instance| {
            let check = move || Arc::clone(&checked).health();
            Registration::new("webkv", instance).health(check).health_interval(ttl / 2)
        })
        .after_start(move || async move {
            say(&format!("listening on {address}"));
            Ok::<_, BoxError>(())
        })
        .run(listener, serve_axum(web::router(store)))
        .await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a script that starts it waits for this line")]
fn say(line: &str) {
    println!("{line}");
}
