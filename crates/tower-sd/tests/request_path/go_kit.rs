//! go-kit's own tests of its core, cache, endpointer, balancers and retry, with what they leave out; and its bugs, each
//! as a test that its behaviour would fail.

use std::{
    collections::{HashMap, HashSet},
    error::Error as _,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_sd::{
    Balance, BalanceLayer, Balancer, BoxError, Endpointer, FixedInstancer, Instance, Next,
    NoInstances, NoInstancesReason, PublisherConfig, Random, Retry, RetryError, RetryLayer,
    RetryPolicy, RoundRobin, StalePolicy,
};

use crate::support::{
    Client, Mode, Registry, World, all_ready, answers, balance, call, endpointer, instances,
    n_in_flight, report, settle, start,
};

fn retry(policy: RetryPolicy, balance: Balance<Client>) -> Retry<Balance<Client>> {
    RetryLayer::new(policy.seed(1)).layer(balance)
}

fn retry_error(error: &BoxError) -> &RetryError {
    error.downcast_ref().expect("a RetryError")
}

/// `TestEndpointCache`.
#[tokio::test(start_paused = true)]
async fn the_cache_keeps_who_stays_and_closes_who_leaves() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let live = || (world.n_live("a"), world.n_live("b"));
    assert_eq!(live(), (1, 1));
    registry.set(&["b", "a"]).await;
    assert_eq!(live(), (1, 1));
    registry.fail("error").await;
    assert_eq!(live(), (1, 1));
    registry.set(&["a"]).await;
    assert_eq!(live(), (1, 0));
    registry.set(&[]).await;
    assert_eq!(live(), (0, 0));
    assert!(endpointer.inspect().endpoints.is_empty());
    assert_eq!((world.n_made("a"), world.n_made("b")), (1, 1));
}

/// `TestEndpointCacheErrorAndTimeout`, and go-kit's bug B8: it invalidates only when somebody asks.
#[tokio::test(start_paused = true)]
async fn an_error_that_lasts_invalidates_the_set_by_a_timer_and_stays_the_reason() {
    let timeout = Duration::from_secs(5);
    let config = PublisherConfig::new("test", "test");
    let mut registry = Registry::with_config(config.stale(StalePolicy::InvalidateAfter(timeout)));
    registry.set(&["a"]).await;
    let world = World::default();
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    registry.fail("first").await;
    tokio::time::advance(timeout / 2).await;
    registry.tick().await;
    assert_eq!(world.n_live("a"), 1);
    registry.fail("second").await;
    tokio::time::advance(timeout).await;
    registry.tick().await;
    assert_eq!(world.n_live("a"), 0, "nobody has asked, and it is closed");
    let error = call(&balance).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("first"), "{error:?}");
    registry.set(&["a"]).await;
    assert_eq!(answers(&balance, 1).await, ["a"]);
}

/// `TestBadFactory`, and go-kit's bug B3: a factory that fails once is not asked again.
#[tokio::test(start_paused = true)]
async fn a_factory_that_fails_is_asked_again_although_the_set_stays_the_same() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.make("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    assert_eq!(world.n_live("a"), 0);
    let error = report(&endpointer, "a").unwrap().error.unwrap();
    assert_eq!(error, "a cannot be made");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let n_made = world.n_made("a");
    assert!((8..60).contains(&n_made), "with growing pauses: {n_made}");
    world.make("a", Mode::Works);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(answers(&balance(&endpointer), 1).await, ["a"]);
}

/// `TestDefaultEndpointer`, with what its TODO says is missing, and bugs B4 (`Close` leaks every endpoint) and B10 (a
/// second `Close` panics).
#[tokio::test(start_paused = true)]
async fn close_drops_every_service_and_the_subscription_and_may_be_called_twice() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    assert_eq!(world.n_live_in_all(), 2);
    endpointer.close().await;
    assert_eq!(world.n_live_in_all(), 0);
    endpointer.close().await;
    registry.set(&["a", "b", "c"]).await;
    assert_eq!((world.n_live_in_all(), world.n_made("c")), (0, 0));
    let error = call(&balance).await.unwrap_err();
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Closed);
}

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
async fn an_empty_set_is_an_error_at_once() {
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
    let balance = BalanceLayer::new(balancer).seed(7).layer(endpointer.clone());
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

/// `TestRoundRobinNoRace`; go-kit has none for Random, which races (bug L1).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_pick_at_once_and_every_member_gets_its_share() {
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

/// `TestRetryMaxTotalFail`, and bug L2: with an empty set go-kit spins until the timeout.
#[tokio::test(start_paused = true)]
async fn many_attempts_at_nobody_end_in_an_error_and_do_not_spin() {
    let (registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new().attempts(999), balance(&endpointer));
    let started = Instant::now();
    let error = call(&client).await.unwrap_err();
    assert_eq!(retry_error(&error).attempts().len(), 999);
    assert!(started.elapsed() > Duration::from_secs(60), "{:?}", started.elapsed());
}

/// `TestRetryMaxPartialFail` and `TestRetryMaxSuccess`: max counts all attempts.
#[tokio::test(start_paused = true)]
async fn two_of_three_fail_two_attempts_fail_and_three_succeed() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let order = answers(&balance(&endpointer), 3).await;
    world.answer(&order[0], Mode::Fails);
    world.answer(&order[1], Mode::Fails);
    let policy = RetryPolicy::new().idempotent();
    let error = call(&retry(policy.clone().attempts(2), balance(&endpointer))).await.unwrap_err();
    let tried: Vec<_> =
        retry_error(&error).attempts().iter().map(|a| a.instance().unwrap().to_string()).collect();
    assert_eq!(tried, [format!("{}:1", order[0]), format!("{}:1", order[1])]);
    assert_eq!(error.source().unwrap().to_string(), format!("{} fails", order[1]));
    let answer = call(&retry(policy.attempts(3), balance(&endpointer))).await.unwrap();
    assert_eq!(answer, order[2]);
}

/// `TestRetryTimeout`, and bug L5: go-kit's timeout says nothing of what was tried.
#[tokio::test(start_paused = true)]
async fn the_deadline_ends_it_and_the_error_tells_the_story() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().deadline(Duration::from_millis(500));
    let client = retry(policy, balance(&endpointer));
    assert_eq!(call(&client).await.unwrap(), "a");
    world.answer("a", Mode::Hangs);
    let started = Instant::now();
    let error = call(&client).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 500);
    let error = retry_error(&error);
    assert!(error.is_deadline());
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(error.attempts()[0].instance().unwrap().as_str(), "a:1");
    assert_eq!(error.attempts()[0].elapsed().as_millis(), 500);
    assert!(error.source().is_some());
    assert_eq!(n_in_flight(&endpointer), 0);
}

/// `TestAbortEarlyCustomMessage`.
#[tokio::test(start_paused = true)]
async fn the_callback_stops_it_and_replaces_the_error() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().attempts(9).idempotent();
    let policy = policy.on_failure(|_, _| Next::StopWith("aborting early".into()));
    let error = call(&retry(policy, balance(&endpointer))).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "aborting early");
    assert_eq!(retry_error(&error).attempts().len(), 1);
    assert_eq!(retry_error(&error).attempts()[0].error().to_string(), "a fails");
}

/// `TestErrorPassedUnchangedToCallback`, and the number of the attempt counts from 1.
#[tokio::test(start_paused = true)]
async fn the_callback_is_given_the_number_of_the_attempt_and_its_error_unchanged() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let policy = RetryPolicy::new().attempts(9).idempotent().on_failure(move |n, error| {
        log.lock().unwrap().push((n, error.to_string()));
        if n < 3 { Next::Repeat } else { Next::Stop }
    });
    let error = call(&retry(policy, balance(&endpointer))).await.unwrap_err();
    let expected: Vec<_> = (1..=3).map(|n| (n, "a fails".to_owned())).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(error.source().unwrap().to_string(), "a fails");
}

/// `TestHandleNilCallback`.
#[tokio::test(start_paused = true)]
async fn no_callback_is_needed() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    assert_eq!(call(&retry(RetryPolicy::new(), balance(&endpointer))).await.unwrap(), "a");
}

/// Bug B2: a factory that dials slowly freezes every request.
#[tokio::test(start_paused = true)]
async fn a_factory_that_hangs_delays_neither_requests_nor_other_factories() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    world.make("b", Mode::Hangs);
    registry.set(&["a", "b", "c"]).await;
    let started = Instant::now();
    let answers: HashSet<_> = answers(&balance, 10).await.into_iter().collect();
    assert_eq!(answers, HashSet::from(["a".to_owned(), "c".to_owned()]));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// Bug B5: the second of two equal instances leaks, with every update again.
#[tokio::test(start_paused = true)]
async fn duplicates_make_one_endpoint() {
    let (mut registry, world) = (Registry::new(&["a", "a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    for _ in 0..5 {
        registry.set(&["a", "a", "b"]).await;
        registry.set(&["a", "a"]).await;
    }
    assert_eq!((world.n_made("a"), world.n_live("a"), world.n_live("b")), (1, 1, 0));
    assert_eq!(endpointer.inspect().endpoints.len(), 1);
}

/// Bug B6: an instance that is removed is closed with requests in flight.
#[tokio::test(start_paused = true)]
async fn a_request_in_flight_finishes_after_its_instance_was_removed() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    world.answer("a", Mode::Hangs);
    let in_flight = start(async move { call(&balance).await });
    settle().await;
    registry.set(&[]).await;
    assert_eq!(world.n_live("a"), 1);
    world.answer("a", Mode::Works);
    assert_eq!(in_flight.await.unwrap().unwrap(), "a");
    settle().await;
    assert_eq!(world.n_live("a"), 0);
}

/// Bug B7: an outage at the start is reported as an empty set, without the registry's error.
#[tokio::test(start_paused = true)]
async fn an_outage_at_the_start_is_told_from_an_empty_set() {
    let mut registry = Registry::with_config(PublisherConfig::new("test", "test"));
    let world = World::default();
    let endpointer = endpointer(&registry, &world).await;
    registry.fail("connection refused by the registry").await;
    let started = Instant::now();
    let error = call(&balance(&endpointer)).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 1, "it may come yet");
    assert_eq!(
        error.downcast_ref::<NoInstances>().unwrap().reason(),
        NoInstancesReason::NeverSynced
    );
    assert!(error.source().unwrap().to_string().contains("connection refused by the registry"));
    assert!(endpointer.ready(Duration::from_millis(10)).await.is_err());
    assert!(endpointer.inspect().trouble.unwrap().contains("connection refused by the registry"));
}

/// Bug L2: everything is repeated, whatever it does.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_done_is_not_repeated_without_a_word_of_the_user() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Fails);
    world.answer("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let error = call(&retry(RetryPolicy::new(), balance(&endpointer))).await.unwrap_err();
    assert_eq!(retry_error(&error).attempts().len(), 1);
    assert_eq!(world.n_calls("a") + world.n_calls("b"), 1);
}

/// Bug L3: one instance that hangs uses up the whole budget.
#[tokio::test(start_paused = true)]
async fn an_instance_that_hangs_costs_one_attempt() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let order = answers(&balance(&endpointer), 2).await;
    world.answer(&order[0], Mode::Hangs);
    let policy = RetryPolicy::new().idempotent().per_try(Duration::from_millis(100));
    let client = retry(policy.deadline(Duration::from_secs(1)), balance(&endpointer));
    let started = Instant::now();
    assert_eq!(call(&client).await.unwrap(), order[1]);
    assert!(started.elapsed() <= Duration::from_millis(130), "{:?}", started.elapsed());
    assert_eq!(n_in_flight(&endpointer), 0, "the attempt that hung was dropped");
}

/// Bug L4: with two instances go-kit often repeats at the one that has failed.
#[tokio::test(start_paused = true)]
async fn the_second_attempt_is_never_at_the_instance_that_failed() {
    for layer in [BalanceLayer::new(RoundRobin::new()), BalanceLayer::new(Random::new())] {
        let (registry, world) = (Registry::new(&["a", "b"]), World::default());
        let balance = layer.seed(3).layer(endpointer(&registry, &world).await);
        world.answer("a", Mode::Fails);
        let client = retry(RetryPolicy::new().attempts(2).idempotent(), balance);
        assert!(answers(&client, 200).await.iter().all(|host| host == "b"));
        assert!(world.n_calls("a") > 50);
    }
}

/// Bug L6: a panic of the endpoint kills the process, because it is in a goroutine of its own.
#[tokio::test(start_paused = true)]
async fn a_panic_is_the_callers() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Panics);
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new().idempotent(), balance(&endpointer));
    let caught = AssertUnwindSafe(client.clone().oneshot(0)).catch_unwind().await;
    assert!(caught.is_err());
    assert_eq!(n_in_flight(&endpointer), 0);
    world.answer("a", Mode::Works);
    assert_eq!(call(&client).await.unwrap(), "a");
}

/// Bug L6: a response that is there is dropped when the deadline fires at the same instant.
#[tokio::test(start_paused = true)]
async fn a_response_that_arrives_with_the_deadline_counts() {
    let bound = Duration::from_millis(100);
    let slow = service_fn(move |_: u32| async move {
        tokio::time::sleep(bound).await;
        Ok::<_, BoxError>("there")
    });
    let client = RetryLayer::new(RetryPolicy::new().deadline(bound).per_try(bound)).layer(slow);
    assert_eq!(client.oneshot(0).await.unwrap(), "there");
}

/// Bug L7: every process starts with the same instance.
#[tokio::test]
async fn sixty_four_fresh_clients_of_eight_instances_start_on_all_eight() {
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(42);
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
        let fresh = BalanceLayer::new(RoundRobin::new()).seed_from(&mut rng);
        first.insert(call(&fresh.layer(endpointer.clone())).await.unwrap());
    }
    assert_eq!(first.len(), 8, "{first:?}");
    assert_eq!(n_made.load(Relaxed), 8);
}

/// Bug B9: the caller's own list is sorted in place.
#[test]
fn the_fixed_instancer_leaves_the_callers_list_alone() {
    let list = instances(&["b", "a"]);
    let _instancer = FixedInstancer::new(list.clone());
    assert_eq!(list[0].host(), "b");
}
