//! The balancers.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tower::{Layer, service_fn};
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, BoxError, Endpointer, FixedInstancer, Instance, NoInstances,
    NoInstancesReason, Random, RoundRobin,
};

use crate::support::{Registry, World, all_ready, answers, balance, call, endpointer, start};

/// `TestRoundRobin`.
#[tokio::test(start_paused = true)]
async fn round_robin_goes_round() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let answers = answers(&balance(&endpointer), 30).await;
    assert_eq!(answers[..3].iter().collect::<HashSet<_>>().len(), 3);
    assert!(answers.iter().zip(&answers[3..]).all(|(now, later)| now == later), "{answers:?}");
}

/// `TestRoundRobinNoEndpoints` and `TestRandomNoEndpoints`.
#[tokio::test(start_paused = true)]
async fn empty_set_is_an_immediate_error() {
    for balancer in [BalanceLayer::new(RoundRobin::new()), BalanceLayer::new(Random::new())] {
        let (registry, world) = (Registry::new(&[]), World::default());
        let balance = balancer.layer(endpointer(&registry, &world).await);
        let started = Instant::now();
        let error = call(&balance).await.unwrap_err();
        assert_eq!(error.downcast_ref::<NoInstances>().unwrap().reason(), NoInstancesReason::Empty);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}

/// Answers with the instance's port.
async fn ports(n: u16, balancer: impl Balancer) -> Balance<impl Numbered> {
    let instancer = FixedInstancer::new((1..=n).map(|port| Instance::new("h", port)));
    let endpointer = Endpointer::with(&instancer, |instance| async move {
        Ok(service_fn(move |_: u32| std::future::ready(Ok::<_, BoxError>(instance.port()))))
    });
    let balance = BalanceLayer::new(balancer).with_seed(7).layer(endpointer.clone());
    all_ready(&endpointer, usize::from(n)).await;
    balance
}

trait Numbered:
    tower::Service<u32, Response = u16, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}
impl<S> Numbered for S where
    S: tower::Service<u32, Response = u16, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// `TestRoundRobinNoRace`; go-kit has none for Random, which races.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_pick_and_every_member_gets_its_share() {
    many_at_once(ports(5, RoundRobin::new()).await, 0.05).await;
    many_at_once(ports(5, Random::new()).await, 0.10).await;
}

async fn many_at_once(balance: Balance<impl Numbered>, tolerance: f64) {
    const TASKS: u32 = 20;
    const EACH: u32 = 1_000;
    let counts = Arc::new(Mutex::new(HashMap::<u16, u32>::new()));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (balance, counts) = (balance.clone(), Arc::clone(&counts));
            start(async move {
                for _ in 0..EACH {
                    let port = call(&balance).await.unwrap();
                    *counts.lock().unwrap().entry(port).or_default() += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counts = counts.lock().unwrap();
    let mean = f64::from(TASKS * EACH) / 5.0;
    assert_eq!(counts.values().sum::<u32>(), TASKS * EACH);
    assert!(counts.values().all(|n| (f64::from(*n) - mean).abs() < tolerance * mean), "{counts:?}");
}

/// `TestRandom`.
#[tokio::test]
async fn random_gives_each_of_seven_the_same_share_within_one_percent() {
    const PICKS: u32 = 1_000_000;
    let balance = ports(7, Random::new()).await;
    let mut counts = [0_u32; 7];
    for _ in 0..PICKS {
        let index = balance.choose().unwrap();
        counts[index] += 1;
    }
    let mean = f64::from(PICKS) / 7.0;
    assert!(counts.iter().all(|n| (f64::from(*n) - mean).abs() < 0.01 * mean), "{counts:?}");
}

/// A bug of go-kit: every process starts with the same instance.
#[tokio::test]
async fn fresh_clients_of_eight_instances_start_on_all_eight() {
    let mut rng = StdRng::seed_from_u64(42);
    let instancer = FixedInstancer::new((1..=8).map(|port| Instance::new("h", port)));
    let n_made = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&n_made);
    let endpointer = Endpointer::with(&instancer, move |instance| {
        made.fetch_add(1, Relaxed);
        async move {
            Ok(service_fn(move |_: u32| std::future::ready(Ok::<_, BoxError>(instance.port()))))
        }
    });
    all_ready(&endpointer, 8).await;
    let mut first = HashSet::new();
    for _ in 0..64 {
        let fresh = BalanceLayer::new(RoundRobin::new()).with_seed(rng.next_u64());
        first.insert(call(&fresh.layer(endpointer.clone())).await.unwrap());
    }
    assert_eq!(first.len(), 8, "{first:?}");
    assert_eq!(n_made.load(Relaxed), 8);
}
