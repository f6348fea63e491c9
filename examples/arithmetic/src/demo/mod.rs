//! Servers come, go and die, and no request fails.

mod fleet;
mod registry;
mod table;
mod traffic;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower_sd::{
    BoxError,
    retry::{RetryDecision, RetryPolicy},
};

use self::{fleet::Server, registry::Registry, table::Table, traffic::Traffic};
use crate::{
    cli::DemoArgs,
    client::{self, Client},
};

/// Runs the `demo` command. Fails when a request has failed.
pub(crate) async fn main(args: &DemoArgs) -> Result<(), BoxError> {
    let registry = Registry::new(args.registry.as_deref())?;
    let failed_attempts = Arc::<AtomicU64>::default();
    let policy = policy(args.no_retry, Arc::clone(&failed_attempts));
    let client = Client::new(registry.instancer()?, policy);

    let first = Server::start("server-1", &registry).await?;
    let second = Server::start("server-2", &registry).await?;
    let third = Server::start("server-3", &registry).await?;
    client.inner().wait_until_ready(READY).await?;
    let traffic = Traffic::start(&client);
    let mut table = Table::new(client.inner().clone(), Arc::clone(traffic.counts()));
    let begin = Instant::now();
    let moment = |tenth: u32| begin + args.duration() / 10 * tenth;

    table.say("three servers have registered, requests begin");
    table.watch_until(moment(2)).await;
    table.say("server-2 is stopped: it withdraws, answers what it has, and ends");
    table.watch(second.stop()).await?;
    table.watch_until(moment(4)).await;
    table.say("server-3 is killed in the middle of its requests, and the registry gets no notice");
    table.watch(third.kill()).await;
    table.watch_until(moment(6)).await;
    table.say("two servers are added");
    let fourth = Server::start("server-4", &registry).await?;
    let fifth = Server::start("server-5", &registry).await?;
    table.watch_until(moment(10)).await;

    let counts = table.watch(traffic.stop()).await;
    table.summary(failed_attempts.load(Relaxed));
    tokio::try_join!(first.stop(), fourth.stop(), fifth.stop())?;
    match counts.first_failure() {
        None => Ok(()),
        Some(first) => Err(format!("{} requests failed, first: {first}", counts.failures()).into()),
    }
}

fn policy(no_retry: bool, failed_attempts: Arc<AtomicU64>) -> RetryPolicy {
    let policy = client::policy().on_failure(move |_, _| {
        failed_attempts.fetch_add(1, Relaxed);
        RetryDecision::Retry
    });
    if no_retry { policy.max_attempts(1) } else { policy }
}

const READY: Duration = Duration::from_secs(5);
