//! An example: a TCP service that Consul checks over HTTP, and its client.

mod client;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Echoes lines over TCP; found through Consul.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Talks to one of the servers, again and again
    Client(client::Args),
    /// Serves, and registers, until a signal to stop (SIGTERM, ctrl-c)
    Server(server::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match Cli::parse().command {
        Command::Client(args) => client::run(args).await,
        Command::Server(args) => server::run(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("echo: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn say(line: &str) {
    println!("{line}");
}

/// As every Consul agent listens by default.
const CONSUL: &str = "127.0.0.1:8500";
/// The name under which the servers are found.
const NAME: &str = "echo";
