//! What balancers, metrics and other crates' retries are built on.

use std::{
    collections::BTreeSet,
    future::{Ready, pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_sd_balance::{
    BalanceLayer, Balancer, BoxError, Choice, Endpointer, EndpointerConfig, Event, FactoryExt,
    FailureClass, FixedInstancer, InFlight, Instance, Members, Observer, Outcome, Picker, Protocol,
    RequestScope, RetryError, RetryLayer, RetryPolicy, RoundRobin, ScopeLayer, Subset, Tier,
    factory_fn,
};

use crate::support::{Mode, Registry, World, answers, balance, call, endpointer, settle};

/// Chooses by the key alone.
#[derive(Clone, Copy, Debug)]
struct ByKey;

impl Balancer for ByKey {
    fn picker(&self, _members: &Members<'_>) -> Arc<dyn Picker> {
        Arc::new(Self)
    }
}

impl Picker for ByKey {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        assert_eq!(choice.tier(), Tier::Ready);
        assert!(choice.stats(0).is_some_and(|stats| stats.created() <= choice.now()));
        let key = choice.scope().and_then(RequestScope::key)?;
        choice.first_usable(usize::try_from(key).ok()? % choice.len())
    }
}

#[tokio::test(start_paused = true)]
async fn key_of_the_scope_decides_with_and_without_a_retry() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let keyed = ScopeLayer::new(|n: &u32| RequestScope::new().with_key(u64::from(*n)));
    let plain = ServiceBuilder::new()
        .layer(keyed.clone())
        .layer(BalanceLayer::new(ByKey))
        .service(endpointer.clone());
    let retried = ServiceBuilder::new()
        .layer(keyed)
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(BalanceLayer::new(ByKey))
        .service(endpointer.clone());
    let mut hosts = BTreeSet::new();
    for n in 0..3 {
        let host = plain.clone().oneshot(n).await.unwrap();
        for _ in 0..5 {
            assert_eq!(plain.clone().oneshot(n).await.unwrap(), host);
            assert_eq!(retried.clone().oneshot(n).await.unwrap(), host);
        }
        hosts.insert(host);
    }
    assert_eq!(hosts.len(), 3);
    world.ready("a", Mode::Fails);
    for n in 0..3 {
        assert_ne!(plain.clone().oneshot(n).await.unwrap(), "a");
    }
}

/// As a hedge does it: two requests of one scope.
#[tokio::test(start_paused = true)]
async fn requests_of_one_scope_go_to_different_instances() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    for _ in 0..10 {
        let scope = RequestScope::new();
        let layer = ScopeLayer::new(|_: &u32| scope.clone());
        let scoped = layer.layer(client.clone());
        let (one, two) = (call(&scoped).await.unwrap(), call(&scoped).await.unwrap());
        assert_ne!(one, two);
        let tried: Vec<_> = scope.tried().iter().map(ToString::to_string).collect();
        assert_eq!(tried, [format!("{one}:1"), format!("{two}:1")]);
    }
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Log {
    fn on(&self, event: &Event<'_>) {
        let line = match event {
            Event::State { endpoint, from, to, why, .. } => {
                let (state, _since) = endpoint.state();
                assert!(state != *to || endpoint.why() == why.map(|why| why.to_string()));
                format!("{} {from:?} {to:?} {}", endpoint.instance(), why.is_some())
            }
            Event::Picked { endpoint, tier, .. } => format!("{} {tier:?}", endpoint.instance()),
            Event::Ended { endpoint, outcome, latency, .. } => {
                format!("{} {outcome:?} {latency:?}", endpoint.instance())
            }
            Event::Waited { none, .. } => format!("waited {:?}", none.map(|none| none.reason())),
            Event::Retried { attempt, instance, .. } => {
                format!("retried {attempt} {}", instance.unwrap())
            }
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn observer_sees_picks_outcomes_states_waits_and_retries() {
    let log = Arc::new(Log::default());
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let (observer, again): (Arc<dyn Observer>, Arc<dyn Observer>) =
        (Arc::<Log>::clone(&log), Arc::<Log>::clone(&log));
    let config = EndpointerConfig::new().observer(observer);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let policy = RetryPolicy::new().max_attempts(2).idempotent().observer(again);
    let client = RetryLayer::new(policy).layer(balance(&endpointer));
    call(&client).await.unwrap();
    assert_eq!(log.take(), ["a:1 Ready", "a:1 Success 0ns"]);
    world.answer("a", Mode::Fails);
    assert!(call(&client).await.is_err());
    let failed = "a:1 Failed(Exchange) 0ns";
    let log_of = log.take();
    assert_eq!(log_of[..3], ["a:1 Ready", failed, "retried 1 a:1"]);
    assert!(log_of.contains(&"waited None".to_owned()), "{log_of:?}");
    world.ready("a", Mode::Fails);
    assert!(call(&balance(&endpointer)).await.is_err());
    let log_of = log.take();
    assert!(log_of.contains(&"a:1 Ready Down true".to_owned()), "{log_of:?}");
    assert!(log_of.contains(&"waited Some(Refused)".to_owned()), "{log_of:?}");
    let report = &endpointer.report().endpoints[0];
    assert!(report.refusals > 0 && report.since.unwrap() >= Duration::from_millis(900));
}

/// A balancer that learns: the latency of each endpoint, in its record.
#[derive(Clone, Copy, Debug)]
struct Latencies;

impl Balancer for Latencies {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        RoundRobin::new().picker(members)
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(*self))
    }
}

impl Observer for Latencies {
    fn on(&self, event: &Event<'_>) {
        if let Event::Ended { endpoint, latency, .. } = event {
            let millis = u64::try_from(latency.as_millis()).unwrap();
            endpoint.extra()[0].store(millis, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn balancer_observes_the_requests_that_it_chose_for() {
    let seen = Arc::new(Mutex::new(0));
    let log = Arc::clone(&seen);
    let endpointer = Endpointer::with(&FixedInstancer::new([Instance::new("a", 1)]), move |_| {
        let log = Arc::clone(&log);
        async move {
            InFlight::enable();
            Ok(service_fn(move |()| {
                let (guard, log) = (InFlight::take().unwrap(), Arc::clone(&log));
                async move {
                    let before =
                        guard.stats().extra()[0].load(std::sync::atomic::Ordering::Relaxed);
                    *log.lock().unwrap() = before;
                    sleep(Duration::from_millis(30)).await;
                    guard.done(Outcome::Success);
                    Ok::<_, BoxError>(())
                }
            }))
        }
    });
    let client = BalanceLayer::new(Latencies).layer(endpointer);
    client.clone().oneshot(()).await.unwrap();
    client.clone().oneshot(()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), 30);
}

#[derive(Debug)]
struct EvenPorts;

impl Subset for EvenPorts {
    fn select(&self, instances: &[Instance]) -> Vec<Instance> {
        instances.iter().filter(|instance| instance.host() != "b").cloned().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_created_for_the_subset_alone() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let config = EndpointerConfig::new().subset(EvenPorts);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let mut hosts = answers(&balance(&endpointer), 2).await;
    hosts.sort();
    assert_eq!((hosts, world.n_made("b")), (vec!["a".to_owned(), "c".to_owned()], 0));
    registry.set(&["b", "c"]).await;
    assert_eq!(answers(&balance(&endpointer), 3).await, ["c"; 3]);
    assert_eq!((world.n_made("b"), world.n_live("a")), (0, 0));
}

/// 500 and above are failures of the instance.
#[derive(Clone, Copy)]
struct Codes;

impl Protocol<u32, u32> for Codes {
    fn copy(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn outcome(&self, result: Result<&u32, &BoxError>) -> Outcome {
        match result {
            Ok(500..) => Outcome::Failed(FailureClass::Response),
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::of_error(error),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn factory_wraps_its_services_by_protocol_and_by_instance() {
    let factory = factory_fn(|_: Instance| async {
        Ok(service_fn(|code: u32| ready(Ok::<_, BoxError>(code))))
    });
    let instancer = FixedInstancer::new([Instance::new("a", 7)]);
    let endpointer = Endpointer::new(&instancer, factory.protocol(Codes));
    let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    for code in [200, 500, 503, 404] {
        assert_eq!(client.clone().oneshot(code).await.unwrap(), code);
    }
    let outcomes = endpointer.report().endpoints[0].outcomes;
    assert_eq!((outcomes.success, outcomes.failed_response), (2, 2));

    let factory = factory_fn(|_: Instance| async {
        Ok(service_fn(|_: u32| pending::<Result<u32, BoxError>>()))
    });
    let bound = |instance: &Instance| Duration::from_millis(u64::from(instance.port()));
    let factory = factory.layer_with(move |instance| TimeoutLayer::new(bound(instance)));
    let client = BalanceLayer::new(RoundRobin::new()).layer(Endpointer::new(&instancer, factory));
    let begun = Instant::now();
    assert!(client.oneshot(1).await.is_err());
    assert!((7..20).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

/// Each refusal, not the first alone: the instance may have moved since.
#[tokio::test(start_paused = true)]
async fn every_refusal_requests_a_refresh_of_the_registry() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    world.ready("a", Mode::Fails);
    for n in 0..3 {
        let requested = registry.refresh_requested();
        let client = balance(&endpointer);
        let refused = call(&client);
        let (refused, requested) =
            tokio::join!(refused, timeout(Duration::from_secs(5), requested));
        assert!(refused.is_err());
        assert!(requested.is_ok(), "refusal {n}");
        sleep(Duration::from_secs(20)).await;
    }
}

/// The endpoint reads the deadline of the whole request from its guard.
#[tokio::test(start_paused = true)]
async fn deadline_of_the_retry_reaches_the_endpoint() {
    let seen = Arc::new(Mutex::new(None));
    let log = Arc::clone(&seen);
    let endpointer = Endpointer::with(&FixedInstancer::new([Instance::new("a", 1)]), move |_| {
        let log = Arc::clone(&log);
        async move {
            InFlight::enable();
            Ok(service_fn(move |(): ()| {
                *log.lock().unwrap() = InFlight::take().and_then(|guard| guard.deadline());
                ready(Ok::<_, BoxError>(()))
            }))
        }
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    let begun = Instant::now();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().timeout(Duration::from_secs(3))))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer);
    client.clone().oneshot(()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(begun + Duration::from_secs(3)));
    let earlier = begun + Duration::from_secs(1);
    let outer = ScopeLayer::new(move |(): &()| RequestScope::new().with_deadline(earlier));
    outer.layer(client).oneshot(()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(earlier));
}

/// Without a timeout in the policy, or with a longer one; a head-only timeout is no exception.
#[tokio::test(start_paused = true)]
async fn deadline_of_an_outer_scope_bounds_all_attempts() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    ["a", "b"].iter().for_each(|host| world.answer(host, Mode::Hangs));
    let endpointer = endpointer(&registry, &world).await;
    let long = Duration::from_secs(60);
    for policy in [
        RetryPolicy::new(),
        RetryPolicy::new().timeout(long),
        RetryPolicy::new().timeout_to_head(long),
        RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(400)),
    ] {
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(1);
        let scope = ScopeLayer::new(move |_: &u32| RequestScope::new().with_deadline(deadline));
        let client = scope.layer(RetryLayer::new(policy.with_seed(1)).layer(balance(&endpointer)));
        let outcome = timeout(Duration::from_secs(30), call(&client)).await;
        let error = outcome.expect("within its deadline").unwrap_err();
        assert_eq!(begun.elapsed().as_millis(), 1_000);
        assert!(error.downcast_ref::<RetryError>().unwrap().is_deadline());
    }
}

/// Its readiness and its calls may be requests of its own.
#[tokio::test(start_paused = true)]
async fn endpoint_works_outside_the_scope_of_its_request() {
    #[derive(Clone)]
    struct Watching(Arc<Mutex<Vec<bool>>>, Arc<AtomicUsize>);
    impl Watching {
        fn note(&self) {
            self.0.lock().unwrap().push(RequestScope::current().is_some());
        }
    }
    impl Service<u32> for Watching {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<Result<(), BoxError>>;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.note();
            // The first polls of a request are pending: it searches.
            if self.1.fetch_add(1, SeqCst) % 3 == 2 {
                return Poll::Ready(Ok(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        fn call(&mut self, _: u32) -> Self::Future {
            self.note();
            ready(Ok(()))
        }
    }
    let seen = Arc::<Mutex<Vec<bool>>>::default();
    let service = Watching(Arc::clone(&seen), Arc::default());
    let instancer = FixedInstancer::new([Instance::new("a", 1)]);
    let endpointer = Endpointer::with(&instancer, move |_| ready(Ok(service.clone())));
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer);
    for _ in 0..3 {
        call(&client).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 12 && seen.iter().all(|is_inside| !is_inside), "{seen:?}");
}
