//! Too many requests: another endpoint, a bounded wait, or an immediate error.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, coop},
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt, buffer::Buffer, service_fn, util::BoxCloneSyncService};
use tower_sd_balance::{
    BalanceLayer, BoxError, EndpointState, Endpointer, EndpointerConfig, Event, FixedInstancer,
    HedgePolicy, Instance, Limit, Limits, LimitsReport, NoInstances, NoInstancesReason, Observer,
    Overloaded, Protocol, RetryError, RetryLayer, RetryPolicy, Verdict, factory_fn,
};

use crate::support::{
    self, Client, Mode, Registry, World, balance, call, n_in_flight, settle, start,
};

const MS: Duration = Duration::from_millis(1);

pub(crate) async fn endpointer(
    registry: &Registry,
    world: &World,
    limits: Limits,
) -> Endpointer<Client> {
    let config = EndpointerConfig::new().limits(limits);
    let endpointer = Endpointer::with_config(registry, factory_fn(world.factory()), config);
    settle().await;
    endpointer
}

fn limit(error: &BoxError) -> Option<Limit> {
    error.downcast_ref::<Overloaded>().map(Overloaded::limit)
}

#[tokio::test(start_paused = true)]
async fn endpoint_with_all_its_requests_is_busy() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer =
        endpointer(&registry, &world, Limits::new().max_requests_per_endpoint(1)).await;
    let client = balance(&endpointer);
    world.answer("a", Mode::Hangs);
    let first = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    for _ in 0..5 {
        assert_eq!(call(&client).await.unwrap(), "b");
    }
    // All are busy: one waits for the first free place, or for as long as it may.
    world.answer("b", Mode::Hangs);
    let second = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    let begun = Instant::now();
    let error = call(&client).await.unwrap_err();
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!((none.reason(), begun.elapsed()), (NoInstancesReason::Busy, 1_000 * MS));
    assert!(registry.refresh_requested().now_or_never().is_none(), "a query of the registry");
    let third = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    world.answer("a", Mode::Works);
    assert_eq!(first.await.unwrap().unwrap(), "a");
    assert_eq!(third.await.unwrap().unwrap(), "a");
    assert_eq!((begun.elapsed() < 1_100 * MS, world.n_calls("b")), (true, 6));
    second.abort();
}

/// Whether it has to wait is known when others were tried.
#[tokio::test(start_paused = true)]
async fn request_that_another_endpoint_takes_is_not_pending() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let limits = Limits::new().max_requests_per_endpoint(1).max_pending(0);
    let endpointer = endpointer(&registry, &world, limits).await;
    let client = balance(&endpointer);
    world.ready("a", Mode::Fails);
    for _ in 0..20 {
        assert_eq!(call(&client).await.unwrap(), "b");
    }
    let report = endpointer.report();
    assert_eq!(report.endpoints[0].state, EndpointState::Down);
    assert_eq!(report.limits.refused_pending, 0);
    world.answer("b", Mode::Hangs);
    let hanging = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    let error = call(&client).await.unwrap_err();
    assert_eq!(limit(&error), Some(Limit::Pending), "{error}");
    hanging.abort();
}

/// To it, tokio's channels seem full.
#[tokio::test(start_paused = true)]
async fn task_that_has_run_for_long_is_not_refused() {
    let make = factory_fn(|instance: Instance| async move {
        let host = instance.host().to_owned();
        let service = service_fn(move |_: u32| {
            let host = host.clone();
            async move { Ok::<_, BoxError>(host) }
        });
        Ok(Buffer::new(service, 10))
    });
    let config = EndpointerConfig::new().limits(Limits::new().max_requests(10).max_pending(0));
    let instances = FixedInstancer::new([Instance::new("a", 80)]);
    let endpointer = Endpointer::with_config(&instances, make, config);
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    let client = BalanceLayer::default().layer(endpointer.clone());
    for _ in 0..3 {
        while coop::has_budget_remaining() {
            coop::consume_budget().await;
        }
        assert_eq!(call(&client).await.unwrap(), "a");
        let report = endpointer.report();
        assert_eq!(report.limits.refused_pending, 0);
        assert_eq!(report.endpoints[0].state, EndpointState::Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn lease_obeys_no_limit() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let limits = Limits::new().max_requests_per_endpoint(1);
    let endpointer = endpointer(&registry, &world, limits).await;
    let client = balance(&endpointer);
    world.answer("a", Mode::Hangs);
    let hanging = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    let begun = Instant::now();
    let lease = client.lease().await.unwrap();
    assert!(begun.elapsed() < MS, "{:?}", begun.elapsed());
    drop(lease);
    hanging.abort();
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Limit>>);

impl Observer for Seen {
    fn on(&self, event: &Event<'_>) {
        if let Event::Refused { error, .. } = event {
            self.0.lock().unwrap().push(error.limit());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_above_a_limit_fails_immediately_and_once() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Hangs);
    let seen = Arc::<Seen>::default();
    let limits = Limits::new().max_requests_per_endpoint(1).max_requests(3).max_pending(1);
    let config = EndpointerConfig::new().limits(limits).observer(Arc::<Seen>::clone(&seen));
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let client = RetryLayer::new(RetryPolicy::new()).layer(balance(&endpointer));
    let mut requests = JoinSet::new();
    for _ in 0..2 {
        requests.spawn(client.clone().oneshot(0));
    }
    settle().await;
    let begun = Instant::now();
    let error = call(&client).await.unwrap_err();
    assert!(begun.elapsed() <= MS, "{:?}", begun.elapsed());
    let error: &RetryError = error.downcast_ref().unwrap();
    let attempts: Vec<_> = error.attempts().iter().map(|it| limit(it.error())).collect();
    assert_eq!(attempts, [Some(Limit::Pending)], "{error}");
    assert!(error.to_string().contains("overloaded: 1 requests wait for an instance"), "{error}");
    assert_eq!(*seen.0.lock().unwrap(), [Limit::Pending]);
    let report = endpointer.report().limits;
    assert_eq!((report.requests, report.pending, report.refused_pending), (2, 1, 1));
    // What has ended makes room.
    world.answer("a", Mode::Works);
    requests.join_all().await.into_iter().for_each(|result| drop(result.unwrap()));
    call(&client).await.unwrap();
    let report = endpointer.report().limits;
    assert_eq!((report.requests, report.pending, report.retries), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn retries_have_a_limit_of_their_own() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.answer("a", Mode::Fails);
    world.answer("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world, Limits::new().max_retries(0)).await;
    let client = RetryLayer::new(RetryPolicy::new().idempotent()).layer(balance(&endpointer));
    let begun = Instant::now();
    let error = call(&client).await.unwrap_err();
    let error: &RetryError = error.downcast_ref().unwrap();
    // The first error is the request's, without a pause.
    assert_eq!((error.attempts().len(), begun.elapsed()), (1, Duration::ZERO));
    assert_eq!(error.refused_retry().map(Overloaded::limit), Some(Limit::Retries));
    assert_eq!(error.source().unwrap().to_string(), "a fails");
    let message = "request failed: overloaded: 0 retries are in flight after attempt 1 at";
    assert!(error.to_string().starts_with(message), "{error}");
    assert_eq!(endpointer.report().limits.refused_retries, 1);
    // A hedge is left out, and costs its request nothing.
    world.answer("a", Mode::Hangs);
    world.answer("b", Mode::Works);
    let (retry, hedge) = RetryPolicy::new().idempotent().hedged(HedgePolicy::after(MS));
    let client = retry.layer(hedge.layer(balance(&endpointer)));
    let request = start(async move { call(&client).await });
    settle().await;
    assert_eq!(endpointer.report().limits.refused_retries, 2);
    world.answer("a", Mode::Works);
    assert_eq!(request.await.unwrap().unwrap(), "a");
}

/// Each response is one of failure, of a request that may be repeated.
struct Rejecting;

impl Protocol<u32, String> for Rejecting {
    fn copy(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn verdict(&self, result: Result<&String, &BoxError>) -> Verdict {
        result.map_or_else(Verdict::of_error, |_| Verdict::NotSent)
    }
}

#[tokio::test(start_paused = true)]
async fn first_response_is_returned_where_no_retry_is_admitted() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let seen = Arc::<Seen>::default();
    let config = EndpointerConfig::new()
        .limits(Limits::new().max_retries(1))
        .observer(Arc::<Seen>::clone(&seen));
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let pause = 1_000 * MS;
    let policy = RetryPolicy::new().max_attempts(2).backoff(pause, pause).protocol(Rejecting);
    let client = RetryLayer::new(policy).layer(balance(&endpointer));
    let mut requests = JoinSet::new();
    for _ in 0..3 {
        requests.spawn(client.clone().oneshot(0));
    }
    settle().await;
    // One pauses before its second attempt, and the two others have what there is.
    assert_eq!(endpointer.report().limits.retries, 1);
    for _ in 0..2 {
        let ended = requests.try_join_next().expect("ended").expect("no panic");
        assert!(["a", "b"].contains(&ended.expect("a response").as_str()));
    }
    assert_eq!(*seen.0.lock().unwrap(), [Limit::Retries; 2]);
    requests.join_all().await.into_iter().for_each(|ended| drop(ended.unwrap()));
    assert_eq!(world.n_calls("a") + world.n_calls("b"), 4);
    let LimitsReport { retries, refused_retries, .. } = endpointer.report().limits;
    assert_eq!((retries, refused_retries), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn limited_request_can_be_dropped_at_any_time() {
    for (answer, ready) in [(Mode::Hangs, Mode::Works), (Mode::Works, Mode::Hangs)] {
        for k in 0..20 {
            let (registry, world) = (Registry::new(&["a", "b"]), World::default());
            ["a", "b"].iter().for_each(|host| {
                world.answer(host, answer);
                world.ready(host, ready);
            });
            let limits = Limits::new().max_requests_per_endpoint(1).max_requests(5).max_retries(1);
            let endpointer = endpointer(&registry, &world, limits).await;
            let (retry, hedge) = RetryPolicy::new()
                .idempotent()
                .per_try_timeout(90 * MS)
                .with_seed(1)
                .hedged(HedgePolicy::after(30 * MS));
            let client = retry.layer(hedge.layer(balance(&endpointer)));
            let mut requests: Vec<_> = (0..3).map(|_| Box::pin(call(&client))).collect();
            for _ in 0..k {
                requests.retain_mut(|request| request.as_mut().now_or_never().is_none());
                tokio::time::advance(20 * MS).await;
            }
            drop(requests);
            let LimitsReport { requests, pending, retries, .. } = endpointer.report().limits;
            assert_eq!((requests, pending, retries), (0, 0, 0), "after {k} polls");
            assert_eq!(n_in_flight(&endpointer), 0, "after {k} polls");
            // All places are free.
            ["a", "b"].iter().for_each(|host| {
                world.answer(host, Mode::Works);
                world.ready(host, Mode::Works);
            });
            sleep(11_000 * MS).await;
            support::all_ready(&endpointer, 2).await;
            for _ in 0..4 {
                call(&balance(&endpointer)).await.unwrap();
            }
        }
    }
}

#[test]
#[should_panic(expected = "limit of 20 requests per endpoint is above limit of 10 requests")]
fn contradicting_limits_are_refused_by_the_endpointer() {
    let limits = Limits::new().max_requests_per_endpoint(20).max_requests(10);
    let factory = factory_fn(|_| async { Ok(service_fn(async |()| Ok::<_, BoxError>(()))) });
    let config = EndpointerConfig::new().limits(limits);
    drop(Endpointer::with_config(&FixedInstancer::new([]), factory, config));
}

/// What clients get of two servers that answer 1 000 requests/s, and are offered 3 000.
struct Overload {
    /// Answers within 1 s, in those that the servers can give.
    goodput: f64,
    p99: Duration,
    slowest_refusal: Duration,
}

async fn overload(limits: Limits) -> Overload {
    let instancer = FixedInstancer::new(["a", "b"].map(|host| Instance::new(host, 1)));
    let factory = factory_fn(|_| async {
        let workers = Arc::new(Semaphore::new(5));
        Ok(service_fn(move |()| {
            let workers = Arc::clone(&workers);
            // It works on what its client has given up, as servers do.
            let served = start(async move {
                let _worker = workers.acquire().await.unwrap();
                sleep(10 * MS).await;
            });
            async move { served.await.map_err(BoxError::from) }
        }))
    });
    let config = EndpointerConfig::new().limits(limits);
    let endpointer = Endpointer::with_config(&instancer, factory, config);
    settle().await;
    let balance = BalanceLayer::default().with_seed(1).layer(endpointer);
    let policy = RetryPolicy::new().timeout(1_000 * MS).with_seed(1);
    let client = BoxCloneSyncService::new(RetryLayer::new(policy).layer(balance));
    let (mut requests, begin) = (JoinSet::new(), Instant::now());
    for n in 0..15_000_u32 {
        sleep_until(begin + n * MS / 3).await;
        let client = client.clone();
        requests.spawn(async move {
            let begun = Instant::now();
            let is_ok = client.oneshot(()).await.is_ok();
            (is_ok, begun.elapsed())
        });
    }
    let all = requests.join_all().await;
    let times = |ok| all.iter().filter(move |(is_ok, _)| *is_ok == ok).map(|(_, time)| *time);
    let mut accepted: Vec<_> = times(true).collect();
    accepted.sort_unstable();
    let n_accepted = u32::try_from(accepted.len()).unwrap();
    Overload {
        goodput: f64::from(n_accepted) / 5_000.0,
        p99: accepted[accepted.len() * 99 / 100],
        slowest_refusal: times(false).max().unwrap_or_default(),
    }
}

/// | | answered, of the capacity | p99 | slowest refusal |
/// |---|---|---|---|
/// | limits | 1.00 | 19 ms | immediate |
/// | none | 0.30: then all queues are longer than the patience | 990 ms | 1 s |
#[tokio::test(start_paused = true)]
async fn overload_costs_those_that_are_accepted_nothing() {
    let limits = Limits::new().max_requests_per_endpoint(5).max_pending(5);
    let Overload { goodput, p99, slowest_refusal } = overload(limits).await;
    assert!(goodput >= 0.9, "goodput {goodput}");
    assert!(p99 <= 30 * MS, "p99 {p99:?}");
    assert!(slowest_refusal <= MS, "{slowest_refusal:?}");
    let Overload { goodput, p99, slowest_refusal } = overload(Limits::new()).await;
    assert!(goodput < 0.5 && p99 > 900 * MS, "without limits: {goodput} {p99:?}");
    assert_eq!(slowest_refusal, 1_000 * MS);
}
