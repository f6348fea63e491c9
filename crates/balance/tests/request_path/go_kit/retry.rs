//! Retry.

use std::{
    error::Error,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Random, Retry, RetryDecision, RetryError, RetryLayer,
    RetryPolicy, RoundRobin,
};

use crate::support::{
    Client, Mode, Registry, World, answers, balance, call, endpointer, n_in_flight,
};

fn retry(policy: RetryPolicy, balance: Balance<Client>) -> Retry<Balance<Client>> {
    RetryLayer::new(policy.with_seed(1)).layer(balance)
}

fn retry_error(error: &BoxError) -> &RetryError {
    error.downcast_ref().expect("a RetryError")
}

/// `TestRetryMaxTotalFail`, and a bug: with an empty set go-kit spins until the timeout.
#[tokio::test(start_paused = true)]
async fn attempts_without_an_instance_end_in_an_error() {
    let (registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new().max_attempts(999), balance(&endpointer));
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
    let error =
        call(&retry(policy.clone().max_attempts(2), balance(&endpointer))).await.unwrap_err();
    let tried: Vec<_> =
        retry_error(&error).attempts().iter().map(|a| a.instance().unwrap().to_string()).collect();
    assert_eq!(tried, [format!("{}:1", order[0]), format!("{}:1", order[1])]);
    assert_eq!(error.source().unwrap().to_string(), format!("{} fails", order[1]));
    let answer = call(&retry(policy.max_attempts(3), balance(&endpointer))).await.unwrap();
    assert_eq!(answer, order[2]);
}

/// `TestRetryTimeout`, and a bug: go-kit's timeout reports nothing of what was tried.
#[tokio::test(start_paused = true)]
async fn deadline_ends_it_and_the_error_lists_the_attempts() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().timeout(Duration::from_millis(500));
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
async fn callback_stops_it_and_replaces_the_error() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().max_attempts(9).idempotent();
    let policy = policy.on_failure(|_, _| RetryDecision::Fail("aborting early".into()));
    let error = call(&retry(policy, balance(&endpointer))).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "aborting early");
    assert_eq!(retry_error(&error).attempts().len(), 1);
    assert_eq!(retry_error(&error).attempts()[0].error().to_string(), "a fails");
}

/// `TestErrorPassedUnchangedToCallback`, and the number of the attempt counts from 1.
#[tokio::test(start_paused = true)]
async fn callback_gets_the_number_of_the_attempt_and_its_error() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let policy = RetryPolicy::new().max_attempts(9).idempotent().on_failure(move |n, attempt| {
        assert_eq!(attempt.instance().unwrap().as_str(), "a:1");
        log.lock().unwrap().push((n, attempt.error().to_string()));
        if n < 3 { RetryDecision::Retry } else { RetryDecision::Stop }
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

/// A bug of go-kit: everything is repeated, whatever it does.
#[tokio::test(start_paused = true)]
async fn request_that_may_have_been_done_is_repeated_on_demand_only() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Fails);
    world.answer("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let error = call(&retry(RetryPolicy::new(), balance(&endpointer))).await.unwrap_err();
    assert_eq!(retry_error(&error).attempts().len(), 1);
    assert_eq!(world.n_calls("a") + world.n_calls("b"), 1);
}

/// A bug of go-kit: one instance that hangs uses up the whole budget.
#[tokio::test(start_paused = true)]
async fn instance_that_hangs_costs_one_attempt() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let order = answers(&balance(&endpointer), 2).await;
    world.answer(&order[0], Mode::Hangs);
    let policy = RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(100));
    let client = retry(policy.timeout(Duration::from_secs(1)), balance(&endpointer));
    let started = Instant::now();
    assert_eq!(call(&client).await.unwrap(), order[1]);
    assert!(started.elapsed() <= Duration::from_millis(130), "{:?}", started.elapsed());
    assert_eq!(n_in_flight(&endpointer), 0, "the attempt that hung was dropped");
}

/// A bug of go-kit: with two instances go-kit often repeats at the one that has failed.
#[tokio::test(start_paused = true)]
async fn second_attempt_is_never_at_the_instance_that_failed() {
    for layer in [BalanceLayer::new(RoundRobin::new()), BalanceLayer::new(Random::new())] {
        let (registry, world) = (Registry::new(&["a", "b"]), World::default());
        let balance = layer.with_seed(3).layer(endpointer(&registry, &world).await);
        world.answer("a", Mode::Fails);
        let client = retry(RetryPolicy::new().max_attempts(2).idempotent(), balance);
        assert!(answers(&client, 200).await.iter().all(|host| host == "b"));
        assert!(world.n_calls("a") >= 5, "then it is ejected");
    }
}

/// A bug of go-kit: a panic of the endpoint kills the process, because it is in a goroutine of its
/// own.
#[tokio::test(start_paused = true)]
async fn panic_is_the_callers() {
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

/// A bug of go-kit: a response that is there is dropped when the deadline fires at the same
/// instant.
#[tokio::test(start_paused = true)]
async fn response_that_arrives_with_the_deadline_counts() {
    let bound = Duration::from_millis(100);
    let slow = service_fn(move |_: u32| async move {
        tokio::time::sleep(bound).await;
        Ok::<_, BoxError>("there")
    });
    let client =
        RetryLayer::new(RetryPolicy::new().timeout(bound).per_try_timeout(bound)).layer(slow);
    assert_eq!(client.oneshot(0).await.unwrap(), "there");
}
