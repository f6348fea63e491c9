use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand};

/// An arithmetic service whose servers are found through a registry.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Calls one of the servers, and prints the result.
    Client(ClientArgs),
    /// Takes calculations over HTTP, and hands each to one of the servers.
    Gateway(GatewayArgs),
    /// Servers come, go and die under steady traffic, all of them in this process; takes ten
    /// seconds.
    Demo(DemoArgs),
    /// Serves, and registers itself, until a signal to stop (SIGTERM, ctrl-c).
    Server(ServerArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ClientArgs {
    /// Calls over gRPC; build with --features grpc
    #[arg(long)]
    pub(crate) grpc: bool,
    /// Where the servers are: static://HOST:PORT,HOST:PORT, consul://HOST:PORT, etcd://HOST:PORT,HOST:PORT/PREFIX,
    /// eureka://HOST:PORT/eureka, zookeeper://HOST:PORT,HOST:PORT, kubernetes://NAMESPACE or dns:///
    #[arg(long, value_name = "URL")]
    pub(crate) registry: String,
    /// The servers' name there, where it is another one: _arithmetic._tcp.example.org in DNS
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Add, Subtract, Multiply or Divide
    pub(crate) operation: String,
    #[arg(allow_hyphen_values = true)]
    pub(crate) a: String,
    #[arg(allow_hyphen_values = true)]
    pub(crate) b: String,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Sends every request once only: the ones that die with a server fail.
    #[arg(long)]
    pub(crate) no_retry: bool,
    /// Where the servers register and the client follows them: consul://HOST:PORT, etcd://HOST:PORT,
    /// eureka://HOST:PORT/eureka or zookeeper://HOST:PORT; without it, a registry in the memory of this process
    #[arg(long, value_name = "URL")]
    pub(crate) registry: Option<String>,
    /// How long it takes
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// The address to accept connections on
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Where the servers are, as for the client
    #[arg(long, value_name = "URL")]
    pub(crate) registry: String,
}

#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// Serves over gRPC in place of HTTP, under a name of its own; build with --features grpc
    #[arg(long)]
    pub(crate) grpc: bool,
    /// The address to accept connections on
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(crate) listen: SocketAddr,
    /// The address for clients, where it is another one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// A key that it follows, for what it logs and which operations it offers (over HTTP): consul://HOST:PORT/KEY,
    /// etcd://HOST:PORT/KEY or zookeeper://HOST:PORT/KEY
    #[arg(long, value_name = "URL")]
    pub(crate) config: Option<String>,
    /// Where to register it; static:// registers nothing
    #[arg(long, value_name = "URL")]
    pub(crate) registry: String,
}

impl DemoArgs {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
