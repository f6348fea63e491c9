//! Many requests while the set changes at random, from a seed.

use std::{collections::HashSet, time::Duration};

use fastrand::Rng;
use tower::Layer;
use tower_sd_balance::{BalanceLayer, Random, RetryLayer, RetryPolicy, RoundRobin};

use crate::support::{Registry, World, call, endpointer, n_in_flight, settle, start};

/// 100 000 requests over instances that come and go: none fails, none goes to an instance whose
/// removal was applied, and nothing is left behind.
#[tokio::test(start_paused = true)]
async fn nothing_fails_and_nothing_leaks_under_random_churn() {
    const ALL: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let mut rng = Rng::with_seed(17);
    let (mut registry, world) = (Registry::new(&ALL), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let layers = [BalanceLayer::new(RoundRobin::new()), BalanceLayer::new(Random::new())];
    let clients = layers.map(|layer| {
        let balance = layer.with_seed(5).layer(endpointer.clone());
        RetryLayer::new(RetryPolicy::new()).layer(balance)
    });
    let mut n_requests = 0;
    while n_requests < 100_000 {
        let present: Vec<_> = ALL.into_iter().filter(|_| rng.u8(..3) > 0).collect();
        if present.is_empty() {
            continue;
        }
        registry.set(&present).await;
        for client in &clients {
            for _ in 0..rng.u32(100..1_000) {
                let answer = call(client).await.expect("there is one");
                assert!(present.contains(&answer.as_str()), "{answer} has left: {present:?}");
                n_requests += 1;
            }
        }
        assert_eq!(n_in_flight(&endpointer), 0);
        assert_eq!(world.n_live_in_all(), present.len());
    }
    drop(clients);
    drop(endpointer);
    assert_eq!(world.n_live_in_all(), 0);
}

/// The same with threads that pick while the set changes under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_pick_while_the_set_changes() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    endpointer.ready(Duration::from_secs(5)).await.unwrap();
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let balance = balance.clone();
            start(async move {
                for _ in 0..5_000 {
                    call(&balance).await.expect("there is one");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut rng = Rng::with_seed(9);
    while tasks.iter().any(|task| !task.is_finished()) {
        let others: HashSet<_> = ["b", "c", "d"].into_iter().filter(|_| rng.bool()).collect();
        let present: Vec<_> = others.into_iter().chain(["a"]).collect();
        registry.set(&present).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    settle().await;
    assert_eq!(n_in_flight(&endpointer), 0);
    drop(balance);
    endpointer.close().await;
    assert_eq!(world.n_live_in_all(), 0);
}
