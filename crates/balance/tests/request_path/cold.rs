//! Many requests on a client that has no connection yet.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower_sd_balance::{EndpointState, Endpointer, NoInstances, NoInstancesReason, RegistryConfig};

use crate::support::{Mode, Registry, World, balance, call, endpointer, settle, start};

/// The answers of `n` requests that begin together, by host, and the longest time of one.
async fn burst(world: &World, hosts: &[&str], n: usize) -> (BTreeMap<String, usize>, Duration) {
    let registry = Registry::new(hosts);
    let client = balance(&Endpointer::with(&registry, world.factory()));
    let (mut requests, begun) = (JoinSet::new(), Instant::now());
    for _ in 0..n {
        let client = client.clone();
        requests.spawn(async move { timeout(Duration::from_millis(900), call(&client)).await });
    }
    let (mut answers, mut longest) = (BTreeMap::new(), Duration::ZERO);
    while let Some(ended) = requests.join_next().await {
        if let Ok(answer) = ended.unwrap() {
            *answers.entry(answer.unwrap()).or_default() += 1;
            longest = begun.elapsed();
        }
    }
    (answers, longest)
}

/// Each connects after its time, in milliseconds.
fn connect(world: &World, hosts: &[(&'static str, u64)]) -> JoinSet<()> {
    let mut connecting = JoinSet::new();
    for &(host, after) in hosts {
        world.ready(host, Mode::Hangs);
        let world = world.clone();
        connecting.spawn(async move {
            sleep(Duration::from_millis(after)).await;
            world.ready(host, Mode::Works);
        });
    }
    connecting
}

#[tokio::test(start_paused = true)]
async fn burst_is_spread_although_one_connects_first() {
    let world = World::default();
    let _connecting = connect(&world, &[("a", 5), ("b", 6), ("c", 8)]);
    let (answers, longest) = burst(&world, &["a", "b", "c"], 40).await;
    assert_eq!(answers.values().sum::<usize>(), 40);
    assert!(answers.len() == 3 && answers.values().all(|n| *n >= 8), "{answers:?}");
    assert!(longest <= Duration::from_millis(12), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn burst_survives_that_the_first_one_never_answers() {
    let world = World::default();
    world.answer("a", Mode::Hangs);
    let _connecting = connect(&world, &[("a", 5), ("b", 6), ("c", 8)]);
    let (answers, _) = burst(&world, &["a", "b", "c"], 40).await;
    assert!(answers.values().sum::<usize>() >= 24, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_never_connects_delays_a_burst_little() {
    let world = World::default();
    let _connecting = connect(&world, &[("a", 5), ("b", 6), ("c", 60_000)]);
    let (answers, longest) = burst(&world, &["a", "b", "c"], 40).await;
    assert_eq!(answers.values().sum::<usize>(), 40);
    assert!(answers.values().all(|n| *n >= 13), "{answers:?}");
    // 25 ms after the first connection, others are taken.
    assert!(longest <= Duration::from_millis(32), "{longest:?}");
    settle().await;
}

/// Its answer may be what the request waits for.
#[tokio::test(start_paused = true)]
async fn request_before_the_first_snapshot_has_the_registry_read_once() {
    let (mut registry, world) =
        (Registry::with_config(RegistryConfig::default()), World::default());
    world.make("a", Mode::Hangs);
    let client = balance(&Endpointer::with(&registry, world.factory()));
    for is_synced in [false, true] {
        if is_synced {
            registry.set(&["a"]).await;
        }
        let request = start({
            let client = client.clone();
            async move { call(&client).await }
        });
        settle().await;
        let is_asked = || timeout(Duration::from_millis(500), registry.refresh_requested());
        assert_eq!(is_asked().await.is_ok(), !is_synced);
        is_asked().await.expect_err("once");
        request.await.unwrap().unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn first_snapshot_ends_a_wait_although_it_is_empty() {
    let mut registry = Registry::with_config(RegistryConfig::default());
    let client = balance(&Endpointer::with(&registry, World::default().factory()));
    let (request, lease) = (client.clone(), client.clone());
    let request = start(async move { call(&request).await });
    let lease = start(async move { lease.lease().await.map(drop) });
    settle().await;
    let begun = Instant::now();
    registry.set(&[]).await;
    let error = request.await.unwrap().unwrap_err();
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Empty);
    assert_eq!(lease.await.unwrap().unwrap_err().reason(), NoInstancesReason::Empty);
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
}

/// Each may be a black hole.
#[tokio::test(start_paused = true)]
async fn request_connects_to_two_endpoints_more_with_each_step() {
    let hosts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (registry, world) = (Registry::new(&hosts), World::default());
    hosts.iter().for_each(|host| world.ready(host, Mode::Hangs));
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    let request = start(async move { call(&client).await });
    // Between two steps.
    sleep(Duration::from_millis(50)).await;
    for n in [2, 4, 6, 8] {
        let endpoints = endpointer.report().endpoints;
        let connecting = endpoints.iter().filter(|it| it.state == EndpointState::Connecting);
        assert_eq!(connecting.count(), n);
        sleep(Duration::from_millis(100)).await;
    }
    // None has refused: nothing is known of them.
    let error = request.await.unwrap().expect_err("none connects");
    let none = error.downcast_ref::<NoInstances>().expect("no instances");
    assert_eq!(none.reason(), NoInstancesReason::NotReady);
}

/// Whichever of four that are busy becomes free.
#[tokio::test(start_paused = true)]
async fn request_waits_for_two_busy_endpoints_more_with_each_step() {
    let hosts = ["a", "b", "c", "d"];
    for free in hosts {
        let (registry, world) = (Registry::new(&hosts), World::default());
        let endpointer = endpointer(&registry, &world).await;
        let client = balance(&endpointer);
        let request = || {
            let client = client.clone();
            start(async move { call(&client).await })
        };
        hosts.iter().for_each(|host| world.answer(host, Mode::Hangs));
        let _busy = [(); 4].map(|()| request());
        settle().await;
        hosts.iter().for_each(|host| world.ready(host, Mode::Hangs));
        let _waiting = request();
        sleep(Duration::from_millis(150)).await;
        world.ready(free, Mode::Works);
        settle().await;
        assert_eq!(world.n_calls(free), 2, "{free}");
    }
}
