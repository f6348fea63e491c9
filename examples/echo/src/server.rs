//! The echo over TCP, and the HTTP port that Consul's agent probes.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, select};
use tower_sd::consul::{Check, Consul, ConsulConfig, RegistrationOptions};
use tower_sd::lifecycle::{Connection, Lifecycle, Listener, ShutdownSignal};
use tower_sd::{BoxError, backend::TaskGroup};

use crate::{CONSUL, NAME, say};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The address of the echo, which is registered in Consul
    #[arg(long, default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// The address that answers Consul's check
    #[arg(long, default_value = "127.0.0.1:7001")]
    health: SocketAddr,
    /// How often Consul checks
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// How long a check may take
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// After how long Consul removes the service once it is critical; Consul's least is 60
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    deregister_after: u64,
    /// The Consul agent
    #[arg(long, default_value = CONSUL, value_name = "HOST:PORT")]
    consul: String,
}

pub(crate) async fn run(args: Args) -> Result<(), BoxError> {
    let health = TcpListener::bind(args.health).await?;
    let listener = Listener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    let url = format!("http://{}/health", health.local_addr()?);
    let check = Check::http(url)
        .interval(Duration::from_secs(args.interval))
        .timeout(Duration::from_secs(args.timeout));
    // The agent runs the check: no heartbeat is sent.
    let options = RegistrationOptions::new()
        .without_ttl()
        .check(check)
        .deregister_critical_after(Some(Duration::from_secs(args.deregister_after)));
    let consul = Consul::new(ConsulConfig::new(args.consul))?.with_options(options);
    let life = Lifecycle::new()
        .register(consul, NAME)
        .after_start(move || async move {
            say(&format!("listening on {address}"));
            Ok::<_, BoxError>(())
        })
        .run(listener, echo);
    let checked = Router::new().route("/health", get(|| async { "echoing\n" }));
    select! {
        report = life => say(&report?.to_string()),
        ended = axum::serve(health, checked).into_future() => ended?,
    }
    Ok(())
}

/// Accepts until it is to drain; then ends the connections: what has come has been echoed.
async fn echo(mut listener: Listener, mut drain: ShutdownSignal) -> io::Result<()> {
    let connections = TaskGroup::new();
    loop {
        select! {
            biased;
            () = &mut drain => break,
            (connection, _peer) = listener.accept() => {
                connections.spawn(|stop| async move {
                    select! {
                        () = stop.requested() => {}
                        () = say_back(connection) => {}
                    }
                });
            }
        }
    }
    connections.close().await;
    Ok(())
}

async fn say_back(connection: Connection) {
    let (mut from, mut to) = tokio::io::split(connection);
    // However the other side ends it, it has ended.
    let _said = tokio::io::copy(&mut from, &mut to).await;
}
