//! One request decides about the end of an ejection.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Sleep, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, EjectionPolicy, EndpointState, Endpointer, EndpointerConfig,
    FailureClass, FixedInstancer, HedgeLayer, HedgePolicy, InFlight, Instance, Limits, NotSent,
    Outcome, RetryLayer, RetryPolicy, RoundRobin, factory_fn,
};

use crate::{
    fleet::Fleet,
    support::{
        Client, Mode, Registry, World, balance, call, endpointer, instances, report, settle, start,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn state(endpointer: &Endpointer<Client>, host: &str) -> EndpointState {
    report(endpointer, host).unwrap().state
}

/// Three instances, of which "b" has just been ejected.
async fn without_b(config: EndpointerConfig) -> (World, Endpointer<Client>, Balance<Client>) {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let client = balance(&endpointer);
    world.answer("b", Mode::Fails);
    for _ in 0..30 {
        let _result = call(&client).await;
        settle().await;
    }
    assert_eq!(state(&endpointer, "b"), EndpointState::Ejected);
    (world, endpointer, client)
}

/// As HTTP without idle connections: its readiness is pending for each request.
struct Fresh {
    host: String,
    n_calls: Arc<AtomicUsize>,
    connect: Option<Pin<Box<Sleep>>>,
}

impl Clone for Fresh {
    fn clone(&self) -> Self {
        Self { host: self.host.clone(), n_calls: Arc::clone(&self.n_calls), connect: None }
    }
}

impl Service<u32> for Fresh {
    type Response = ();
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let connect = self.connect.get_or_insert_with(|| Box::pin(sleep(SECOND / 200)));
        connect.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let fails = self.host == "b";
        self.n_calls.fetch_add(usize::from(fails), SeqCst);
        Box::pin(async move { if fails { Err("it fails".into()) } else { Ok(()) } })
    }
}

#[tokio::test(start_paused = true)]
async fn ejection_holds_where_each_request_connects() {
    let n_calls = Arc::new(AtomicUsize::new(0));
    let n = Arc::clone(&n_calls);
    let instancer = FixedInstancer::new(instances(&["a", "b", "c"]));
    let endpointer = Endpointer::with(&instancer, move |instance| {
        let (host, n_calls) = (instance.host().to_owned(), Arc::clone(&n));
        async move { Ok(Fresh { host, n_calls, connect: None }) }
    });
    endpointer.ready(SECOND).await.unwrap();
    let client = BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer);
    while n_calls.load(SeqCst) < 5 {
        sleep(SECOND / 50).await;
        let _result = call(&client).await;
    }
    n_calls.store(0, SeqCst);
    for _ in 0..100 {
        sleep(SECOND).await;
        let _result = call(&client).await;
    }
    let n = n_calls.load(SeqCst);
    assert!((3..=9).contains(&n), "{n} of 100");
}

#[tokio::test(start_paused = true)]
async fn refusing_instance_is_ejected_for_longer_each_time() {
    for fails_first in [true, false] {
        let fails = Arc::new(AtomicBool::new(fails_first));
        let counts: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let instancer = FixedInstancer::new(instances(&["a", "b", "c"]));
        let (is_broken, n) = (Arc::clone(&fails), Arc::clone(&counts));
        let endpointer = Endpointer::with(&instancer, move |instance| {
            let (fails, counts) = (Arc::clone(&is_broken), Arc::clone(&n));
            let service = service_fn(move |_: u32| {
                let host = instance.host().to_owned();
                *counts.lock().unwrap().entry(host.clone()).or_default() += 1;
                let error: BoxError = match fails.load(SeqCst) {
                    true => "reset by peer".into(),
                    false => NotSent::new("connection refused").into(),
                };
                async move { if host == "b" { Err(error) } else { Ok(()) } }
            });
            async move { Ok::<_, BoxError>(service) }
        });
        endpointer.ready(SECOND).await.unwrap();
        settle().await;
        let client = BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer);
        for n in 0..600 {
            sleep(SECOND / 10).await;
            let _result = call(&client).await;
            if n == 20 {
                fails.store(false, SeqCst);
            }
        }
        let n = counts.lock().unwrap()["b"];
        assert!((8..=12).contains(&n), "{n} of 600");
    }
}

#[tokio::test(start_paused = true)]
async fn probation_survives_panic_of_its_request() {
    let (world, endpointer, client) = without_b(EndpointerConfig::new()).await;
    sleep(2 * SECOND).await;
    world.ready("b", Mode::Panics);
    let request = client.clone();
    assert!(start(async move { call(&request).await }).await.unwrap_err().is_panic());
    world.ready("b", Mode::Works);
    world.answer("b", Mode::Works);
    assert_eq!(call(&client).await.unwrap(), "b");
    settle().await;
    assert_eq!(state(&endpointer, "b"), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn probation_that_lasts_lets_another_request_decide() {
    let policy = EjectionPolicy::new().times(SECOND, 5 * SECOND);
    let (world, endpointer, client) = without_b(EndpointerConfig::new().ejection(policy)).await;
    sleep(2 * SECOND).await;
    world.answer("b", Mode::Hangs);
    let n = world.n_calls("b");
    let request = client.clone();
    let stream = start(async move { call(&request).await });
    settle().await;
    for _ in 0..10 {
        call(&client).await.expect("the others serve");
    }
    assert_eq!(world.n_calls("b"), n + 1);
    sleep(6 * SECOND).await;
    let request = client.clone();
    let second = start(async move { call(&request).await });
    settle().await;
    assert_eq!(world.n_calls("b"), n + 2);
    world.answer("b", Mode::Works);
    assert_eq!(second.await.unwrap().unwrap(), "b");
    assert_eq!(stream.await.unwrap().unwrap(), "b");
    settle().await;
    assert_eq!(state(&endpointer, "b"), EndpointState::Ready);
}

/// Its process is stopped: the kernel still accepts connections, and callers give up.
#[tokio::test(start_paused = true)]
async fn request_that_is_given_up_postpones_the_next_that_decides() {
    let (world, endpointer, client) = without_b(EndpointerConfig::new()).await;
    sleep(2 * SECOND).await;
    world.answer("b", Mode::Hangs);
    let n = world.n_calls("b");
    for _ in 0..60 {
        let _elapsed = timeout(SECOND / 2, call(&client)).await;
        sleep(SECOND / 10).await;
    }
    let n_lost = world.n_calls("b") - n;
    assert!((4..=8).contains(&n_lost), "one a second, of 60: {n_lost}");
    let ejection = report(&endpointer, "b").unwrap().ejection.unwrap();
    assert_eq!(ejection.times, 1, "it is no failure");
    world.answer("b", Mode::Works);
    sleep(SECOND).await;
    assert_eq!(call(&client).await.unwrap(), "b");
    settle().await;
    assert_eq!(state(&endpointer, "b"), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn hedges_send_no_ejected_instance_one_request_after_another() {
    let (world, _endpointer, client) = without_b(EndpointerConfig::new()).await;
    sleep(2 * SECOND).await;
    world.answer("b", Mode::Hangs);
    let n = world.n_calls("b");
    let hedge = HedgePolicy::after(SECOND / 20).idempotent();
    let client = HedgeLayer::new(hedge).layer(client);
    for _ in 0..20 {
        timeout(SECOND, call(&client)).await.expect("an end").expect("the others serve");
        sleep(SECOND / 20).await;
    }
    assert!(world.n_calls("b") - n <= 2, "{}", world.n_calls("b") - n);
}

/// The guards of the next `n` requests that "b" gets.
async fn leases(client: &Balance<Client>, n: usize) -> Vec<InFlight> {
    let mut guards = Vec::new();
    for _ in 0..100 {
        let (_service, guard) = client.lease().await.unwrap();
        if guard.instance().as_str().starts_with('b') && guards.len() < n {
            guards.push(guard);
        } else {
            guard.done(Outcome::Success);
        }
    }
    assert_eq!(guards.len(), n);
    guards
}

const FAILED: Outcome = Outcome::Failed(FailureClass::Response);

#[tokio::test(start_paused = true)]
async fn lease_decides_about_end_of_ejection() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    let mut guards = leases(&client, 6).await;
    let last = guards.pop().unwrap();
    guards.into_iter().for_each(|guard| guard.done(FAILED));
    settle().await;
    assert_eq!(state(&endpointer, "b"), EndpointState::Ejected);
    assert_eq!(last.stats().why().unwrap(), "ejected: 5 consecutive failures");
    sleep(2 * SECOND).await;
    for _ in 0..20 {
        client.lease().await.unwrap().1.done(Outcome::Success);
        settle().await;
    }
    assert_eq!(state(&endpointer, "b"), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn instance_that_failed_after_it_left_is_ejected_on_return() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    let mut guards = leases(&client, 7).await;
    registry.set(&["a", "c"]).await;
    let last = guards.pop();
    guards.into_iter().for_each(|guard| guard.done(FAILED));
    settle().await;
    registry.set(&["a", "b", "c"]).await;
    drop(last);
    leases(&client, 5).await.into_iter().for_each(|guard| guard.done(FAILED));
    settle().await;
    assert_eq!(state(&endpointer, "b"), EndpointState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn second_attempt_goes_to_no_ejected_instance() {
    let fleet = Fleet::new(8);
    let (endpointer, client) = fleet.client(RoundRobin::new(), |instance| instance).await;
    fleet.fail(2, true);
    fleet.fail(5, true);
    fleet.load(&client, 100, SECOND / 1000).await;
    settle().await;
    let is_ejected = |e: &_| matches!(e, EndpointState::Ejected);
    let endpoints = endpointer.report().endpoints;
    assert_eq!(endpoints.iter().filter(|e| is_ejected(&e.state)).count(), 2);
    sleep(3 * SECOND).await;
    let client = RetryLayer::new(RetryPolicy::new().max_attempts(2).idempotent()).layer(client);
    assert_eq!(fleet.load(&client, 100, SECOND / 10).await.1, 0);
}

/// One request at a time: "fails" fails each immediately, "works" takes 20 ms.
#[tokio::test(start_paused = true)]
async fn request_waits_for_busy_endpoint_rather_than_ejected_one() {
    let instancer = FixedInstancer::new(["fails", "works"].map(|host| Instance::new(host, 1)));
    let endpointer = Endpointer::with(&instancer, |instance| async move {
        let inner = service_fn(move |_: u32| {
            let host = instance.host().to_owned();
            async move {
                if host == "fails" {
                    return Err(BoxError::from("reset by peer"));
                }
                sleep(SECOND / 50).await;
                Ok(host)
            }
        });
        Ok::<_, BoxError>(ServiceBuilder::new().concurrency_limit(1).service(inner))
    });
    endpointer.ready(SECOND).await.unwrap();
    settle().await;
    let client = BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer.clone());
    for _ in 0..10 {
        let _result = call(&client).await;
    }
    settle().await;
    let endpoints = endpointer.report().endpoints;
    let ejected = endpoints.iter().find_map(|e| e.ejection.as_ref()).expect("one is ejected");
    // Its ejection ends while they wait.
    sleep(ejected.left.saturating_sub(SECOND / 20)).await;
    for answer in join_all((0..6).map(|_| call(&client))).await {
        assert_eq!(answer.unwrap(), "works");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_prefers_endpoints_that_failed_to_ejected_ones() {
    let (world, _endpointer, client) = without_b(EndpointerConfig::new()).await;
    ["a", "c"].iter().for_each(|host| world.answer(host, Mode::Fails));
    let n = world.n_calls("b");
    let policy = RetryPolicy::new().max_attempts(4).idempotent();
    call(&RetryLayer::new(policy).layer(client)).await.unwrap_err();
    assert_eq!(world.n_calls("b"), n);
}

#[tokio::test(start_paused = true)]
async fn request_prefers_connecting_or_full_endpoint_to_ejected_one() {
    let limits = Limits::new().max_requests_per_endpoint(1);
    let limited = EndpointerConfig::new().limits(limits);
    for (config, is_full) in [(EndpointerConfig::new(), false), (limited, true)] {
        let (world, _endpointer, client) = without_b(config).await;
        let n = world.n_calls("b");
        let set = |mode| {
            ["a", "c"].iter().for_each(|host| match is_full {
                true => world.answer(host, mode),
                false => world.ready(host, mode),
            });
        };
        set(Mode::Hangs);
        let requests = [(); 3].map(|()| {
            let client = client.clone();
            start(async move { call(&client).await })
        });
        sleep(SECOND / 20).await;
        set(Mode::Works);
        for request in requests {
            request.await.unwrap().unwrap();
        }
        assert_eq!(world.n_calls("b"), n);
    }
}

#[tokio::test(start_paused = true)]
async fn ejection_without_end_lasts() {
    let policy = EjectionPolicy::new().times(Duration::MAX, Duration::MAX);
    let (world, endpointer, client) = without_b(EndpointerConfig::new().ejection(policy)).await;
    world.answer("b", Mode::Works);
    for _ in 0..20 {
        sleep(600 * SECOND).await;
        assert_ne!(call(&client).await.unwrap(), "b");
    }
    assert_eq!(state(&endpointer, "b"), EndpointState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn ejected_ones_that_are_down_count_among_ejected_half() {
    let (registry, world) = (Registry::new(&["a", "b", "c", "d"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    ["a", "b"].iter().for_each(|host| world.answer(host, Mode::Fails));
    for _ in 0..40 {
        let _result = call(&client).await;
        settle().await;
    }
    assert_eq!(state(&endpointer, "b"), EndpointState::Ejected);
    ["a", "b"].iter().for_each(|host| world.ready(host, Mode::Fails));
    sleep(2 * SECOND).await;
    for _ in 0..4 {
        call(&client).await.expect("the others serve");
    }
    settle().await;
    let states = ["a", "b"].map(|host| state(&endpointer, host));
    assert_eq!(states, [EndpointState::Down; 2]);
    world.answer("c", Mode::Fails);
    for _ in 0..40 {
        let _result = call(&client).await;
        settle().await;
    }
    assert_eq!(state(&endpointer, "c"), EndpointState::Ready);
}
