//! The main example: an arithmetic service, its client, and a demo of both.

mod cli;
mod client;
mod config;
mod demo;
mod gateway;
#[cfg(feature = "grpc")]
mod grpc;
mod middleware;
mod operations;
mod server;
mod service;

use std::process::ExitCode;

use clap::Parser;
use tower_sd::{BoxError, backend::chain};

use crate::cli::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let filter = log.reload_handle();
    log.init();
    let outcome = match Cli::parse().command {
        #[cfg(not(feature = "grpc"))]
        Command::Client(cli::ClientArgs { grpc: true, .. })
        | Command::Server(cli::ServerArgs { grpc: true, .. }) => {
            Err("this program was built without grpc; build it with --features grpc".into())
        }
        Command::Client(args) => client::main(&args).await,
        Command::Demo(args) => demo::main(&args).await,
        Command::Gateway(args) => gateway::main(&args).await,
        Command::Server(args) => {
            let set_log = config::set_log(move |wanted| filter.reload(wanted));
            server::main(&args, set_log).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line with the whole chain of causes.
#[expect(clippy::print_stderr, reason = "a command reports why it failed")]
fn complain(error: &BoxError) {
    eprintln!("arithmetic: {}", chain(&**error));
}
