//! Pauses of any length between attempts to connect.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_sd_balance::{Endpointer, EndpointerConfig, RetryLayer, RetryPolicy, factory_fn};

use crate::support::{Mode, Registry, World, answers, balance, call, report, settle, start};

fn endpointer(
    registry: &Registry,
    world: &World,
    pause: Duration,
) -> Endpointer<crate::support::Client> {
    growing(registry, world, pause, pause)
}

fn growing(
    registry: &Registry,
    world: &World,
    first: Duration,
    longest: Duration,
) -> Endpointer<crate::support::Client> {
    let config = EndpointerConfig::new().backoff(first, longest);
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

/// Each request that waits has it probed, and not more often than in the shortest pause.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_no_storm_of_probes() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world, Duration::from_secs(3600));
    settle().await;
    let balance = balance(&endpointer);
    for _ in 0..10 {
        call(&balance).await.unwrap_err();
    }
    let n_refused = report(&endpointer, "a").unwrap().refusals;
    assert!((1..=4).contains(&n_refused), "{n_refused} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_cuts_a_long_pause_to_the_shortest() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Fails);
    let shortest = Duration::from_millis(100);
    let endpointer = growing(&registry, &world, shortest, Duration::from_secs(10_000));
    settle().await;
    let balance = balance(&endpointer);
    call(&balance).await.unwrap_err();
    sleep(Duration::from_secs(50_000)).await;
    let begun = Instant::now();
    let waiting = start(async move { call(&balance).await });
    sleep(shortest / 2).await;
    world.ready("a", Mode::Works);
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    assert!(begun.elapsed() <= shortest * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_postpones_no_probe() {
    let mut n_soon = 0;
    for _ in 0..50 {
        let (registry, world) = (Registry::new(&["a"]), World::default());
        world.ready("a", Mode::Fails);
        let pause = Duration::from_millis(900);
        let endpointer = endpointer(&registry, &world, pause);
        settle().await;
        let (balance, begun) = (balance(&endpointer), Instant::now());
        let waiting = start(async move { call(&balance).await });
        settle().await;
        world.ready("a", Mode::Works);
        waiting.await.unwrap().unwrap();
        n_soon += usize::from(begun.elapsed() < pause / 2);
    }
    // 25 are expected: a pause is drawn evenly from zero to its ceiling.
    assert!(n_soon >= 8, "{n_soon} of 50 within half of the longest pause");
}

#[tokio::test(start_paused = true)]
async fn retry_has_one_down_endpoint_probed() {
    let (registry, world) = (Registry::new(&["a", "b", "c", "d"]), World::default());
    ["b", "c", "d"].iter().for_each(|host| world.ready(host, Mode::Fails));
    // So long that none is probed by itself.
    let endpointer = endpointer(&registry, &world, Duration::MAX);
    settle().await;
    let client = balance(&endpointer);
    answers(&client, 4).await;
    settle().await;
    world.answer("a", Mode::Fails);
    let refusals = || endpointer.report().endpoints.into_iter().map(|endpoint| endpoint.refusals);
    let before: Vec<_> = refusals().collect();
    let policy = RetryPolicy::new().max_attempts(2).idempotent();
    call(&RetryLayer::new(policy).layer(client)).await.unwrap_err();
    assert_eq!(refusals().zip(before).filter(|(after, before)| after > before).count(), 1);
}
