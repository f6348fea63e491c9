//! The deadline of a caller bounds the clients inside its server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_sd_balance::{
    Attempt, BalanceLayer, BoxError, CallerDeadline, EndpointState, Endpointer, FixedInstancer,
    InFlight, Instance, NotSent, Protocol, RequestScope, Retry, RetryError, RetryLayer,
    RetryPolicy, Verdict,
};

use crate::support::{Mode, Registry, World, balance, call, endpointer};

const MS: Duration = Duration::from_millis(1);

/// Never responds, and counts its requests.
fn silent(
    policy: RetryPolicy,
) -> (Retry<impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone>, Arc<AtomicU32>)
{
    let n_calls = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&n_calls);
    let service = service_fn(move |()| {
        counter.fetch_add(1, Relaxed);
        async {
            sleep(100 * Duration::from_secs(1)).await;
            Ok::<_, BoxError>(())
        }
    });
    (RetryLayer::new(policy).layer(service), n_calls)
}

fn is_deadline(error: &BoxError) -> bool {
    error.downcast_ref::<RetryError>().is_some_and(RetryError::is_deadline)
}

#[tokio::test(start_paused = true)]
async fn client_has_the_time_that_its_caller_has_left() {
    let begun = Instant::now();
    for deadline in
        [CallerDeadline::new(begun + 300 * MS), CallerDeadline::to_head(begun + 300 * MS)]
    {
        let (client, _) = silent(RetryPolicy::new().timeout(Duration::from_secs(5)));
        let error = deadline.scope(client.oneshot(())).await.unwrap_err();
        assert!(is_deadline(&error), "{error}");
        assert!(begun.elapsed() <= 301 * MS, "{:?}", begun.elapsed());
    }
    // Its own is nearer, and the caller's may be left out.
    let begun = Instant::now();
    let deadline = CallerDeadline::new(begun + 300 * MS);
    let (client, _) = silent(RetryPolicy::new().timeout(100 * MS));
    deadline.scope(client.oneshot(())).await.unwrap_err();
    assert_eq!(begun.elapsed(), 100 * MS);
    let (client, _) = silent(RetryPolicy::new().timeout(900 * MS).without_caller_deadline());
    deadline.scope(client.oneshot(())).await.unwrap_err();
    assert_eq!(begun.elapsed(), 1_000 * MS);
}

#[tokio::test(start_paused = true)]
async fn request_without_time_is_not_sent() {
    let (client, n_calls) = silent(RetryPolicy::new());
    let past = CallerDeadline::new(Instant::now());
    let error = past.scope(client.oneshot(())).await.unwrap_err();
    assert!(is_deadline(&error), "{error}");
    assert_eq!(n_calls.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn endpoint_sees_both_deadlines() {
    let instancer = FixedInstancer::new([Instance::new("a", 1)]);
    let endpointer = Endpointer::with(&instancer, |_| async {
        InFlight::enable();
        Ok(service_fn(|()| {
            let guard = InFlight::take().expect("a guard");
            std::future::ready(Ok::<_, BoxError>((guard.deadline(), guard.head_deadline())))
        }))
    });
    let stack =
        |policy| RetryLayer::new(policy).layer(BalanceLayer::default().layer(endpointer.clone()));
    let bound = Duration::from_secs(1);
    let seen = stack(RetryPolicy::new().timeout(bound)).oneshot(()).await.unwrap();
    assert!(seen.0.is_some() && seen.0 == seen.1, "{seen:?}");
    let seen = stack(RetryPolicy::new().timeout_to_head(bound)).oneshot(()).await.unwrap();
    assert!(seen.0.is_none() && seen.1.is_some(), "{seen:?}");
    // A default is a guard, and no promise to the server.
    let seen = stack(RetryPolicy::new().default_timeouts(bound, bound)).oneshot(()).await.unwrap();
    assert_eq!(seen, (None, None));
    // A bound of each attempt is carried when the user has set it.
    let begun = Instant::now();
    let policy = RetryPolicy::new().timeout(bound).per_try_timeout(300 * MS);
    let seen = stack(policy).oneshot(()).await.unwrap();
    assert_eq!(seen, (Some(begun + bound), Some(begun + 300 * MS)));
}

/// What an outer retry has tried is not an attempt of the inner one.
#[tokio::test(start_paused = true)]
async fn retry_inside_an_outer_scope_names_only_its_own_instances() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let scope = RequestScope::new();
    let first = scope.enter(|| balance.clone().call(0));
    assert_eq!((first.await.unwrap(), scope.tried().len()), ("a".into(), 1));
    world.answer("a", Mode::Fails);
    let failing = service_fn(async |_: u32| Err::<u32, _>(BoxError::from(NotSent::new("early"))));
    let client = RetryLayer::new(RetryPolicy::new().max_attempts(1)).layer(failing);
    let mut entered = std::pin::pin!(scope.enter(|| call(&client)));
    let error =
        std::future::poll_fn(|cx| scope.enter(|| entered.as_mut().poll(cx))).await.unwrap_err();
    let error: &RetryError = error.downcast_ref().unwrap();
    assert_eq!(error.attempts().first().and_then(Attempt::instance), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline() {
    let n_calls = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&n_calls);
    let service = service_fn(move |()| {
        counter.fetch_add(1, Relaxed);
        async {
            sleep(300 * MS).await;
            Err::<(), _>(BoxError::from("late itself"))
        }
    });
    let policy = RetryPolicy::new().idempotent().backoff(Duration::ZERO, Duration::ZERO);
    let client = RetryLayer::new(policy.timeout(300 * MS)).layer(service);
    let error = client.oneshot(()).await.unwrap_err();
    assert!(is_deadline(&error), "{error}");
    assert_eq!(n_calls.load(Relaxed), 1);
}

/// What the caller would wait for is another error than the one that is known.
#[tokio::test(start_paused = true)]
async fn pause_that_ends_after_the_deadline_is_not_waited_for() {
    let policy = RetryPolicy::new().idempotent().with_seed(1).timeout(MS);
    let policy = policy.backoff(Duration::from_secs(10), Duration::from_secs(10));
    let service = service_fn(async |()| Err::<(), _>(BoxError::from("refused")));
    let begun = Instant::now();
    let error = RetryLayer::new(policy).layer(service).oneshot(()).await.unwrap_err();
    assert!(!is_deadline(&error), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let policy = RetryPolicy::new().idempotent().timeout(Busy::PAUSE - MS).protocol(Busy);
    let service = service_fn(async |()| Ok::<_, BoxError>("busy"));
    let response = RetryLayer::new(policy).layer(service).oneshot(()).await.unwrap();
    assert_eq!((response, begun.elapsed()), ("busy", Duration::ZERO));
}

/// Each response is a failure, and requires a pause.
struct Busy;

impl Busy {
    const PAUSE: Duration = Duration::from_secs(1);
}

impl Protocol<(), &'static str> for Busy {
    fn copy(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn verdict(&self, _: Result<&&'static str, &BoxError>) -> Verdict {
        Verdict::Failed
    }

    fn pause(&self, _: &&'static str) -> Option<Duration> {
        Some(Self::PAUSE)
    }
}

#[tokio::test(start_paused = true)]
async fn future_that_is_polled_after_its_end_sends_nothing() {
    let (mut client, n_calls) = silent(RetryPolicy::new().timeout(100 * MS));
    let mut request = Box::pin(client.call(()));
    request.as_mut().await.unwrap_err();
    request.as_mut().await.unwrap_err();
    assert_eq!(n_calls.load(Relaxed), 1);
}

/// A stranger's header, or a caller that has waited elsewhere, is no fault of the instance.
#[tokio::test(start_paused = true)]
async fn callers_without_time_eject_no_instance() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    ["a", "b"].iter().for_each(|host| world.answer(host, Mode::Hangs));
    let endpointer = endpointer(&registry, &world).await;
    let client = RetryLayer::new(RetryPolicy::new().max_attempts(1)).layer(balance(&endpointer));
    for _ in 0..50 {
        let deadline = CallerDeadline::new(Instant::now() + MS);
        deadline.scope(call(&client)).await.unwrap_err();
    }
    for endpoint in endpointer.report().endpoints {
        assert_eq!((endpoint.failures, endpoint.state), (0, EndpointState::Ready));
    }
    // Its own timeout is.
    let policy = RetryPolicy::new().max_attempts(1).timeout(MS);
    let client = RetryLayer::new(policy).layer(balance(&endpointer));
    for _ in 0..50 {
        call(&client).await.unwrap_err();
    }
    assert!(endpointer.report().endpoints.iter().any(|it| it.state == EndpointState::Ejected));
}
