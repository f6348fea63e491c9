//! Exclusion, what is safe to repeat, pauses; and what a `Buffer` in between costs.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;
use tower::{Layer, ServiceBuilder, ServiceExt, buffer::Buffer, service_fn, timeout::TimeoutLayer};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FailureClass, FixedInstancer, Instance,
    NoInstances, NoInstancesReason, NotSent, Outcome, Protocol, Retry, RetryError, RetryLayer,
    RetryPolicy, RoundRobin, Verdict,
};

use crate::support::{
    Client, Mode, Registry, World, answers, balance, call, endpointer, n_in_flight, settle, start,
};

fn retry(policy: RetryPolicy, balance: Balance<Client>) -> Retry<Balance<Client>> {
    RetryLayer::new(policy.with_seed(1)).layer(balance)
}

fn tried(error: &BoxError) -> Vec<String> {
    let error: &RetryError = error.downcast_ref().expect("a RetryError");
    let instance =
        |attempt: &tower_sd_balance::Attempt| attempt.instance().map(ToString::to_string);
    error.attempts().iter().map(|attempt| instance(attempt).unwrap_or_default()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_instance_is_tried_before_one_is_tried_twice() {
    let (registry, world) = (Registry::new(&["a", "b", "c", "d"]), World::default());
    ["a", "b", "c", "d"].iter().for_each(|host| world.answer(host, Mode::Fails));
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new().max_attempts(6).idempotent(), balance(&endpointer));
    let error = call(&client).await.unwrap_err();
    let tried = tried(&error);
    assert_eq!(tried.len(), 6);
    assert_eq!(tried[..4].iter().collect::<HashSet<_>>().len(), 4, "{tried:?}");
    assert_eq!(n_in_flight(&endpointer), 0);
}

/// A server that was killed and started again is down until it has connected; meanwhile another one
/// dies.
#[tokio::test(start_paused = true)]
async fn retry_prefers_down_endpoints_to_those_that_failed() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    assert!(answers(&balance, 4).await.iter().all(|host| host == "a"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.ready("b", Mode::Works);
    world.answer("a", Mode::Fails);
    let client = retry(RetryPolicy::new().max_attempts(2).idempotent(), balance);
    assert_eq!(call(&client).await.unwrap(), "b");
    assert_eq!(world.n_calls("a"), 5);
}

#[tokio::test(start_paused = true)]
async fn record_of_one_request_does_not_bind_the_next() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new(), balance(&endpointer));
    let answers = answers(&client, 10).await;
    assert_eq!(answers.iter().filter(|host| *host == "a").count(), 5);
}

/// What never left is repeated without a declaration of the caller.
#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_always_repeated() {
    let n_calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&n_calls);
    let service = service_fn(move |_: u32| {
        let n = counter.fetch_add(1, Relaxed);
        async move {
            match n {
                0 => Err(BoxError::from(NotSent::new("connection closed"))),
                _ => Ok(n),
            }
        }
    });
    let client = RetryLayer::new(RetryPolicy::new()).layer(service);
    assert_eq!(client.oneshot(0).await.unwrap(), 1);
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = retry(RetryPolicy::new().max_attempts(200), balance(&endpointer));
    let waiting = start(async move { call(&client).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    registry.set(&["a"]).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
}

/// Of two that die together, one breaks off, and the other's connection was closed before.
#[tokio::test(start_paused = true)]
async fn attempts_that_were_not_sent_use_up_no_retry() {
    // An attempt each: "f" has failed, "u" was not sent.
    for (attempts, n) in
        [("fu.", 3), ("uf.", 3), ("ff.", 2), ("uu.", 2), ("fuf.", 3), ("fuu.", 3), ("ufu.", 3)]
    {
        let n_calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&n_calls);
        let service = service_fn(move |_: u32| {
            let nth = usize::try_from(counter.fetch_add(1, Relaxed)).unwrap();
            async move {
                match attempts.as_bytes()[nth] {
                    b'f' => Err(BoxError::from("reset by peer")),
                    b'u' => Err(NotSent::new("connection closed").into()),
                    _ => Ok(()),
                }
            }
        });
        let policy = RetryPolicy::new().max_attempts(2).idempotent();
        let result = RetryLayer::new(policy).layer(service).oneshot(0).await;
        let n_failed = attempts.len() - 1;
        assert_eq!(n_calls.load(Relaxed), n, "{attempts}");
        assert_eq!(result.is_ok(), usize::try_from(n).unwrap() > n_failed, "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_lists_every_attempt_and_has_the_last_as_its_source() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Fails);
    world.answer("b", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let policy =
        RetryPolicy::new().max_attempts(2).idempotent().per_try_timeout(Duration::from_millis(40));
    let error = call(&retry(policy, balance(&endpointer))).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("at a:1 (a fails, 0.0ns)"), "{text}");
    assert!(text.contains("at b:1 (no response within 40ms, 40.0ms)"), "{text}");
    let source = error.source().unwrap().to_string();
    let last = tried(&error).last().unwrap().clone();
    assert_eq!(source, if last == "a:1" { "a fails" } else { "no response within 40ms" });
}

/// A request whose copy is its own business, and responses that are failures: what the HTTP crate
/// needs.
#[derive(Clone, Debug)]
struct Numbers;

impl Protocol<u32, u32> for Numbers {
    fn copy(&self, request: &u32) -> Option<u32> {
        (*request < 10).then_some(*request + 1)
    }

    fn is_idempotent(&self, request: &u32) -> bool {
        request.is_multiple_of(2)
    }

    fn outcome(&self, result: Result<&u32, &BoxError>) -> Outcome {
        match result {
            Ok(response) if *response > 4 => Outcome::Success,
            Ok(_) => Outcome::Failed(FailureClass::Response),
            Err(error) => Outcome::of_error(error),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn protocol_decides_what_is_repeated_and_what_has_failed() {
    let echo = service_fn(|n: u32| async move { Ok::<_, BoxError>(n) });
    let client = RetryLayer::new(RetryPolicy::new().protocol(Numbers)).layer(echo);
    assert_eq!(client.clone().oneshot(4).await.unwrap(), 5, "repeated: even, and 4 has failed");
    assert_eq!(client.clone().oneshot(3).await.unwrap(), 3, "odd: the response is the caller's");
    assert_eq!(
        client.clone().oneshot(2).await.unwrap(),
        4,
        "three attempts, and the last response"
    );
    assert_eq!(client.oneshot(12).await.unwrap(), 12, "cannot be repeated, need not be");
}

/// The documented loss: below a `Buffer` nothing is excluded, and the attempts name no instance.
#[tokio::test(start_paused = true)]
async fn buffer_between_retry_and_balance_loses_the_record() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let policy = || RetryPolicy::new().max_attempts(2).idempotent();
    let buffered = RetryLayer::new(policy()).layer(Buffer::new(balance(&endpointer), 8));
    let error = buffered.oneshot(0).await.unwrap_err();
    assert_eq!(tried(&error), ["", ""]);
    let direct = retry(policy(), balance(&endpointer));
    assert_eq!(tried(&call(&direct).await.unwrap_err()), ["a:1", "a:1"]);
}

/// The same loss across a task that is spawned in between.
#[tokio::test(start_paused = true)]
async fn task_between_retry_and_balance_loses_the_record() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Fails);
    world.answer("b", Mode::Fails);
    let balance = balance(&endpointer(&registry, &world).await);
    let spawning = service_fn(move |_: u32| {
        let balance = balance.clone();
        async move { start(async move { call(&balance).await }).await? }
    });
    let client = RetryLayer::new(RetryPolicy::new().max_attempts(2).idempotent()).layer(spawning);
    assert_eq!(tried(&client.oneshot(0).await.unwrap_err()), ["", ""]);
}

#[tokio::test(start_paused = true)]
async fn wait_that_ends_in_nothing_names_its_reason_through_the_chain() {
    let (registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let error = call(&retry(RetryPolicy::new(), balance(&endpointer))).await.unwrap_err();
    let none: &NoInstances = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Empty);
    assert_eq!(tried(&error).len(), 3);
    settle().await;
}

/// The guard of another request, ended on this thread, is not this one's.
#[tokio::test(start_paused = true)]
async fn mark_of_another_request_does_not_repeat_one_that_was_sent() {
    let n_sent = Arc::new(AtomicU32::new(0));
    let instancer = FixedInstancer::new([Instance::new("a", 1)]);
    let endpointer = Endpointer::with(&instancer, {
        let n_sent = Arc::clone(&n_sent);
        move |_instance| {
            let n_sent = Arc::clone(&n_sent);
            let service = service_fn(move |_: u32| {
                n_sent.fetch_add(1, Relaxed);
                async { Err::<(), _>(BoxError::from("reset by peer")) }
            });
            async move { Ok::<_, BoxError>(service) }
        }
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    let (_service, guard) = balance.lease().await.unwrap();
    guard.done(Outcome::NotSent);
    let client: Retry<_> = RetryLayer::new(RetryPolicy::new()).layer(balance);
    client.oneshot(0).await.unwrap_err();
    assert_eq!(n_sent.load(Relaxed), 1, "it may have been executed");
}

/// The timeout drops the search for an endpoint: nothing was sent, and the reason stays.
#[tokio::test(start_paused = true)]
async fn timeout_below_a_retry_keeps_not_sent() {
    let bound = Duration::from_millis(100);
    for works in [true, false] {
        let (registry, world) = (Registry::new(&["a"]), World::default());
        world.ready("a", Mode::Hangs);
        let endpointer = endpointer(&registry, &world).await;
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::new().with_seed(1)))
            .layer(TimeoutLayer::new(bound))
            .service(balance(&endpointer));
        let sent = start(client.oneshot(0));
        tokio::time::sleep(bound.mul_f64(1.5)).await;
        if works {
            world.ready("a", Mode::Works);
            assert_eq!(sent.await.unwrap().unwrap(), "a");
            continue;
        }
        let error = sent.await.unwrap().unwrap_err();
        assert_eq!(tried(&error), ["", "", ""]);
        let none: &NoInstances = error.source().unwrap().downcast_ref().unwrap();
        assert_eq!(none.reason(), NoInstancesReason::NotReady);
    }
}

/// A body that is streamed is kept up to a bound, which it may pass at any time.
#[derive(Clone)]
struct Streamed(Arc<AtomicBool>);

impl Protocol<u32, u32> for Streamed {
    fn copy(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn is_repeatable(&self, _copy: &u32) -> bool {
        !self.0.load(Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_is_spent_during_the_pause_is_not_sent_again() {
    let (is_spent, n_calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
    let counter = Arc::clone(&n_calls);
    let service = service_fn(move |_: u32| {
        counter.fetch_add(1, Relaxed);
        async { Err::<u32, _>(BoxError::from("failed")) }
    });
    let pause = Duration::from_secs(10);
    let policy = RetryPolicy::new().idempotent().backoff(pause, pause).with_seed(1);
    let client = RetryLayer::new(policy.protocol(Streamed(Arc::clone(&is_spent)))).layer(service);
    let request = start(client.oneshot(0));
    settle().await;
    is_spent.store(true, Relaxed);
    let error = request.await.unwrap().unwrap_err();
    let error: &RetryError = error.downcast_ref().unwrap();
    assert_eq!((n_calls.load(Relaxed), error.attempts().len()), (1, 1));
    assert!(!error.is_deadline());
}

/// Ready for one call.
#[derive(Clone)]
struct Once<S>(S, Arc<AtomicU32>);

impl<S: tower::Service<u32, Error = BoxError>> tower::Service<u32> for Once<S> {
    type Response = S::Response;
    type Error = BoxError;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.1.load(Relaxed) {
            0 => self.0.poll_ready(cx),
            _ => Poll::Ready(Err("closed".into())),
        }
    }

    fn call(&mut self, request: u32) -> S::Future {
        self.1.fetch_add(1, Relaxed);
        self.0.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_that_was_not_begun_names_no_instance() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let balance = balance(&endpointer(&registry, &world).await);
    let layer = RetryLayer::new(RetryPolicy::new().idempotent().with_seed(1));
    let client = layer.layer(Once(balance, Arc::default()));
    assert_eq!(tried(&client.oneshot(0).await.unwrap_err()), ["a:1", ""]);
}

#[tokio::test(start_paused = true)]
async fn debug_shows_settings_and_attempts() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let hour = Duration::from_secs(3600);
    let policy = RetryPolicy::new().max_attempts(7).idempotent().backoff(hour, hour);
    assert!(format!("{policy:?}").contains("attempts: 7"), "{policy:?}");
    let mut client = retry(policy, balance(&endpointer(&registry, &world).await));
    let mut request = Box::pin(tower::Service::call(&mut client, 0));
    timeout(Duration::from_millis(1), &mut request).await.expect_err("it pauses");
    assert!(format!("{request:?}").contains("a fails"), "{request:?}");
}

#[tokio::test(start_paused = true)]
async fn request_with_one_attempt_is_sent_once() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let policy = RetryPolicy::new().max_attempts(1).idempotent();
    let client = retry(policy, balance(&endpointer(&registry, &world).await));
    assert_eq!(tried(&call(&client).await.unwrap_err()), ["a:1"]);
    assert_eq!(world.n_calls("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn timeout_per_try_bounds_a_service_without_a_balancer() {
    let bound = Duration::from_millis(40);
    let policy = RetryPolicy::new().max_attempts(2).idempotent().per_try_timeout(bound);
    let hanging = service_fn(|_: u32| std::future::pending::<Result<(), BoxError>>());
    let request = RetryLayer::new(policy).layer(hanging).oneshot(0);
    let error = timeout(Duration::from_secs(1), request).await.expect("in time").unwrap_err();
    assert_eq!(tried(&error), ["", ""]);
}

/// No error is mended by another attempt.
struct Fatal;

impl Protocol<u32, String> for Fatal {
    fn copy(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn verdict(&self, _result: Result<&String, &BoxError>) -> Verdict {
        Verdict::Final
    }
}

#[tokio::test(start_paused = true)]
async fn final_verdict_of_the_protocol_ends_the_attempts() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let policy = RetryPolicy::new().idempotent().protocol(Fatal);
    let client = RetryLayer::new(policy).layer(balance(&endpointer(&registry, &world).await));
    call(&client).await.unwrap_err();
    assert_eq!(world.n_calls("a"), 1);
}
