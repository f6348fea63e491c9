//! Pauses of any length between attempts to connect.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_sd_balance::{Endpointer, EndpointerConfig, factory_fn};

use crate::support::{Mode, Registry, World, answers, balance, call, settle};

fn endpointer(
    registry: &Registry,
    world: &World,
    pause: Duration,
) -> Endpointer<crate::support::Client> {
    let config = EndpointerConfig::new().backoff(pause, pause);
    Endpointer::with_config(registry, factory_fn(world.factory()), config)
}

/// "never" as a duration.
#[tokio::test(start_paused = true)]
async fn pause_without_bound_ends_no_updates() {
    let hosts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (mut registry, world) = (Registry::new(&hosts), World::default());
    hosts.iter().for_each(|host| world.ready(host, Mode::Fails));
    let endpointer = endpointer(&registry, &world, Duration::MAX);
    settle().await;
    let balance = balance(&endpointer);
    for _ in 0..3 {
        let refused = timeout(Duration::from_secs(5), call(&balance)).await;
        refused.expect("in time").unwrap_err();
    }
    registry.set(&["i"]).await;
    assert_eq!(answers(&balance, 2).await, ["i"; 2]);
}

#[tokio::test(start_paused = true)]
async fn pause_of_no_length_is_no_storm() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.make("a", Mode::Fails);
    world.ready("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world, Duration::ZERO);
    settle().await;
    drop(timeout(Duration::from_millis(1), call(&balance(&endpointer))).await);
    let n_refusals = || {
        let report = endpointer.report().endpoints;
        report.iter().map(|endpoint| endpoint.refusals).sum::<u64>()
    };
    let (n_made, before) = (world.n_made("a"), n_refusals());
    sleep(Duration::from_secs(1)).await;
    let (n_made, n_refused) = (world.n_made("a") - n_made, n_refusals() - before);
    assert!((100..=1_010).contains(&n_made), "{n_made}");
    // Each third refusal makes the service anew, which is probed immediately.
    assert!((100..=1_510).contains(&n_refused), "{n_refused}");
}

/// "no limit" as a number.
#[tokio::test(start_paused = true)]
async fn creations_without_a_limit_are_accepted() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().max_concurrent_creations(usize::MAX);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
}
