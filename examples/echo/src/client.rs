//! A client that needs an address and a connection, and no tower service.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};
use tower_layer::Layer;
use tower_sd::consul::{Consul, ConsulConfig, Query};
use tower_sd::{
    BoxError, Instance,
    balance::{Balance, BalanceLayer, RoundRobin},
    discovery::{LossPolicy, RegistryConfig},
    endpoint::{Endpointer, FailureClass, Outcome},
};

use crate::{CONSUL, NAME, say};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The pause between two tries
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    pause: u64,
    /// How often it tries; without it, indefinitely
    #[arg(long)]
    times: Option<u64>,
    /// The Consul agent
    #[arg(long, default_value = CONSUL, value_name = "HOST:PORT")]
    consul: String,
}

pub(crate) async fn run(args: Args) -> Result<(), BoxError> {
    // One server or two: that all of them go is nothing to be suspicious of.
    let registry = RegistryConfig::default().loss(LossPolicy::Accept);
    let consul = Consul::new(ConsulConfig::new(args.consul).registry(registry))?;
    let servers = servers(&consul);
    for n in 1..=args.times.unwrap_or(u64::MAX) {
        say(&talk(&servers, &format!("hello {n}")).await);
        sleep(Duration::from_millis(args.pause)).await;
    }
    Ok(())
}

/// The instances that pass Consul's check, in turn.
///
/// The instance itself is balanced: its address is all we need.
fn servers(consul: &Consul) -> Balance<Instance> {
    let instancer = consul.instancer(Query::new(NAME).passing());
    let endpointer = Endpointer::with(&instancer, async |instance| Ok(instance));
    BalanceLayer::new(RoundRobin::new()).layer(endpointer)
}

/// The result of a line sent to one of them.
async fn talk(servers: &Balance<Instance>, line: &str) -> String {
    // The lease counts the connection at its server for as long as it is held.
    let (instance, lease) = match servers.lease().await {
        Ok(leased) => leased,
        Err(nobody) => return format!("not found: {nobody}"),
    };
    match timeout(PATIENCE, dial(&instance, line)).await {
        Ok(Ok(answer)) => {
            lease.done(Outcome::Success);
            format!("{instance} says {answer}")
        }
        Ok(Err(error)) => {
            lease.done(Outcome::Failed(FailureClass::Exchange));
            format!("{instance} fails: {error}")
        }
        Err(_elapsed) => {
            lease.done(Outcome::TimedOut);
            format!("{instance} is silent")
        }
    }
}

async fn dial(instance: &Instance, line: &str) -> Result<String, BoxError> {
    let mut connection = TcpStream::connect((instance.host(), instance.port())).await?;
    connection.write_all(format!("{line}\n").as_bytes()).await?;
    let answer = BufReader::new(connection).lines().next_line().await?;
    answer.ok_or_else(|| "it hung up".into())
}

/// How long a server may take to echo a line.
const PATIENCE: Duration = Duration::from_secs(2);
