//! The end of each request reaches its endpoint once.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FailureClass, FixedInstancer, InFlight, Instance,
    NoInstances, NoInstancesReason, NotSent, Outcome, Outcomes, Retry, RetryError, RetryLayer,
    RetryPolicy, RoundRobin, Served,
};

use crate::support::{
    Mode, Registry, World, balance, call, endpointer, n_in_flight, report, start,
};

fn outcomes<S: Clone + Send + Sync + 'static>(endpointer: &Endpointer<S>) -> Outcomes {
    endpointer.report().endpoints[0].outcomes
}

#[tokio::test(start_paused = true)]
async fn per_try_timeouts_are_counted_exactly() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let policy =
        RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(100)).with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy).layer(balance(&endpointer));
    for _ in 0..20 {
        call(&client).await.unwrap();
    }
    let (a, b) = (report(&endpointer, "a").unwrap(), report(&endpointer, "b").unwrap());
    assert_eq!(a.picks, 5, "then it is ejected");
    assert_eq!((a.outcomes.timed_out, a.failures), (a.picks, a.picks));
    assert_eq!((b.outcomes.success, b.failures), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn deadline_is_a_timeout_and_a_caller_that_leaves_cancels() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().timeout(Duration::from_millis(100));
    let client: Retry<_> = RetryLayer::new(policy).layer(balance(&endpointer));
    assert!(call(&client).await.is_err());
    assert_eq!(outcomes(&endpointer).timed_out, 1);
    let leaving = start(async move { call(&client).await });
    sleep(Duration::from_millis(10)).await;
    leaving.abort();
    assert!(leaving.await.is_err());
    let outcomes = outcomes(&endpointer);
    assert_eq!((outcomes.timed_out, outcomes.cancelled, outcomes.success), (1, 1, 0));
}

type Answer = BoxFuture<'static, Result<&'static str, BoxError>>;

trait Leasing:
    tower::Service<u32, Response = &'static str, Error = BoxError, Future = Answer>
    + Clone
    + Send
    + Sync
    + 'static
{
}
impl<S> Leasing for S where
    S: tower::Service<u32, Response = &'static str, Error = BoxError, Future = Answer>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// One endpoint that does with its lease what `with` does.
async fn leasing(
    with: impl Fn(Option<InFlight>) -> Answer + Clone + Send + Sync + 'static,
) -> (Endpointer<impl Leasing>,) {
    let endpointer = Endpointer::with(&FixedInstancer::new([Instance::new("a", 1)]), move |_| {
        let with = with.clone();
        async move {
            InFlight::enable();
            Ok(service_fn(move |_: u32| with(InFlight::take())))
        }
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    (endpointer,)
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_takes_its_lease_decides_its_end_and_outcome() {
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let (endpointer,) = leasing(move |lease| {
        *keep.lock().unwrap() = lease;
        Box::pin(async { Ok("head") })
    })
    .await;
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    assert_eq!(balance.clone().oneshot(0).await.unwrap(), "head");
    assert_eq!(endpointer.report().endpoints[0].in_flight, 1);
    let lease = kept.lock().unwrap().take().unwrap();
    lease.done(Outcome::Failed(FailureClass::Response));
    assert_eq!(endpointer.report().endpoints[0].in_flight, 0);
    let expected = (1, 0, 0);
    let seen = outcomes(&endpointer);
    assert_eq!((seen.failed_response, seen.success, seen.cancelled), expected);
}

#[tokio::test(start_paused = true)]
async fn lease_dropped_by_its_endpoint_gets_the_outcome_of_the_error() {
    let (endpointer,) = leasing(|lease| {
        Box::pin(async move {
            drop(lease);
            Err("broken".into())
        })
    })
    .await;
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    assert!(balance.oneshot(0).await.is_err());
    let seen = outcomes(&endpointer);
    assert_eq!((seen.failed_exchange, seen.cancelled, seen.success), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_times_out_by_a_layer_of_its_own_has_failed() {
    let endpointer = Endpointer::with(&FixedInstancer::new([Instance::new("a", 1)]), |_| async {
        InFlight::enable();
        let hangs = service_fn(|_: u32| {
            let lease = InFlight::take();
            async move {
                let _lease = lease;
                pending::<Result<(), BoxError>>().await
            }
        });
        Ok(ServiceBuilder::new()
            .timeout(Duration::from_millis(50))
            .map_future(|f| Box::pin(f) as BoxFuture<'static, Result<(), BoxError>>)
            .service(hangs))
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    assert!(balance.oneshot(0).await.is_err());
    let seen = outcomes(&endpointer);
    assert_eq!((seen.failed_exchange, seen.cancelled, seen.success), (1, 0, 0));
}

/// What an endpoint reports by its lease is known exactly: also beside an endpoint's own requests
/// that were not sent.
#[tokio::test(start_paused = true)]
async fn not_sent_is_reported_by_the_lease_and_repeated() {
    let n_calls = Arc::new(AtomicU32::new(0));
    let calls = Arc::clone(&n_calls);
    let (endpointer,) = leasing(move |lease| {
        let n = calls.fetch_add(1, Relaxed);
        Box::pin(async move {
            match n {
                0 => {
                    lease.unwrap().done(Outcome::NotSent);
                    Err("connection closed".into())
                }
                _ => Ok("sent"),
            }
        })
    })
    .await;
    let client = RetryLayer::new(RetryPolicy::new())
        .layer(BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone()));
    assert_eq!(client.clone().oneshot(0).await.unwrap(), "sent");
    assert_eq!(outcomes(&endpointer).not_sent, 1);
    // An order is written, and then a request of the endpoint's own is not sent.
    let (shop,) = leasing(|lease| {
        Box::pin(async move {
            lease.unwrap().done(Outcome::Failed(FailureClass::Exchange));
            Err(NotSent::new("the mailer is gone").into())
        })
    })
    .await;
    let client =
        RetryLayer::new(RetryPolicy::new()).layer(BalanceLayer::new(RoundRobin::new()).layer(shop));
    let error = client.oneshot(0).await.unwrap_err();
    assert_eq!(error.downcast_ref::<RetryError>().unwrap().attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn served_names_instance_and_attempts() {
    let n_calls = Arc::new(AtomicU32::new(0));
    let served = Arc::new(Mutex::new(Vec::<Served>::new()));
    let log = Arc::clone(&served);
    let (endpointer,) = leasing(move |lease| {
        let (n, lease) = (n_calls.fetch_add(1, Relaxed), lease.unwrap());
        log.lock().unwrap().push(lease.served());
        Box::pin(async move {
            let _lease = lease;
            if n == 0 { Err("fails once".into()) } else { Ok("served") }
        })
    })
    .await;
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer);
    let client = RetryLayer::new(RetryPolicy::new().idempotent()).layer(balance);
    client.oneshot(0).await.unwrap();
    let served = served.lock().unwrap();
    let attempts: Vec<_> = served.iter().map(Served::attempts).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(served[1].instance().as_str(), "a:1");
}

/// A request that waits longer than the timeout of an attempt was never sent: the reason stays, and
/// it is not repeated.
#[tokio::test(start_paused = true)]
async fn search_is_not_bounded_by_the_per_try_timeout() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    ["a", "b", "c"].iter().for_each(|host| world.ready(host, Mode::Fails));
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().per_try_timeout(Duration::from_millis(300)).with_seed(1);
    let client: Retry<Balance<_>> = RetryLayer::new(policy).layer(balance(&endpointer));
    let started = tokio::time::Instant::now();
    let error = call(&client).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 1_000, "one wait, not three");
    let error: &RetryError = error.downcast_ref().unwrap();
    let [attempt] = error.attempts() else { panic!("one: {error}") };
    let none: &NoInstances = attempt.error().downcast_ref().unwrap();
    assert_eq!((none.reason(), attempt.instance()), (NoInstancesReason::Refused, None));
    assert_eq!(n_in_flight(&endpointer), 0);
}

#[tokio::test(start_paused = true)]
async fn deadline_during_a_search_keeps_the_reason() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let policy = RetryPolicy::new().timeout(Duration::from_millis(200));
    let client: Retry<Balance<_>> = RetryLayer::new(policy).layer(balance(&endpointer));
    let error = call(&client).await.unwrap_err();
    let error: &RetryError = error.downcast_ref().unwrap();
    assert!(error.is_deadline());
    let none: &NoInstances = error.attempts()[0].error().downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Refused);
}

/// The guard is dropped while the panic leaves the endpoint.
#[tokio::test(start_paused = true)]
async fn panic_of_an_endpoint_keeps_no_request_in_flight() {
    let instancer = FixedInstancer::new([Instance::new("a", 1)]);
    let endpointer = Endpointer::with(&instancer, |_| async {
        InFlight::enable();
        Ok(service_fn(|n: u32| {
            let guard = InFlight::take();
            async move {
                assert_eq!(n, 0, "panics with its guard");
                drop(guard);
                Ok::<_, BoxError>(n)
            }
        }))
    });
    let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    client.clone().oneshot(0).await.unwrap();
    let panics = start(client.clone().oneshot(1)).await;
    assert!(panics.unwrap_err().is_panic());
    let report = &endpointer.report().endpoints[0];
    assert_eq!((report.in_flight, report.outcomes.cancelled), (0, 1));
    client.oneshot(0).await.unwrap();
    assert_eq!(outcomes(&endpointer).cancelled, 1);
}
