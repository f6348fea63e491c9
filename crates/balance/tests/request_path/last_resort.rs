//! Requests for which no good endpoint is left.

use std::{
    collections::HashMap,
    future::{Future, Ready, ready},
    iter,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, EndpointState, Endpointer, FixedInstancer, Instance,
    InstanceStatus, Prioritized, RequestScope, Retry, RetryLayer, RetryPolicy, RoundRobin,
    ScopeLayer, Select,
};

use crate::support::{Mode, Registry, World, answers, balance, call, endpointer};

/// a zone is out (5 of 6 refuse, and are known to); the one that lives fails once.
#[tokio::test(start_paused = true)]
async fn retry_reaches_only_live_instance_among_many_down() {
    #[derive(Clone)]
    struct One(String, Arc<AtomicUsize>);
    impl Service<u32> for One {
        type Response = String;
        type Error = BoxError;
        type Future = BoxFuture<'static, Result<String, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            match self.0.as_str() {
                "live" => Poll::Ready(Ok(())),
                _ => Poll::Ready(Err("connection refused".into())),
            }
        }
        fn call(&mut self, _: u32) -> Self::Future {
            let (host, n) = (self.0.clone(), self.1.fetch_add(1, SeqCst));
            Box::pin(
                async move { if n == 6 { Err("reset by peer, once".into()) } else { Ok(host) } },
            )
        }
    }
    let hosts = ["live", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9"];
    let instancer = FixedInstancer::new(hosts.map(|h| Instance::new(h, 1)));
    let n = Arc::new(AtomicUsize::new(0));
    let endpointer = Endpointer::with(&instancer, move |i| {
        let one = One(i.host().to_owned(), Arc::clone(&n));
        async move { Ok::<_, BoxError>(one) }
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let policy = RetryPolicy::new().idempotent().with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy)
        .layer(BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer.clone()));
    for _ in 0..6 {
        assert_eq!(client.clone().oneshot(0).await.unwrap(), "live");
    }
    let outcome = client.clone().oneshot(0).await;
    assert!(outcome.is_ok());
}

/// the registry is wiped: does the backup site get no more than before?
#[tokio::test(start_paused = true)]
async fn priorities_hold_among_held_endpoints() {
    let (mut registry, world) = (Registry::guarded(&[]), World::default());
    let all = [("p1", 0), ("p2", 0), ("p3", 0), ("x1", 1), ("x2", 1), ("x3", 1)];
    registry.set_instances(all.map(|(h, p)| Instance::new(h, 1).with_priority(p)).to_vec()).await;
    let endpointer = endpointer(&registry, &world).await;
    let balance = BalanceLayer::new(Prioritized::default()).with_seed(1).layer(endpointer.clone());
    for _ in 0..100 {
        assert!(call(&balance).await.unwrap().starts_with('p'));
    }
    registry.set(&[]).await;
    let mut n_backup = 0;
    for _ in 0..300 {
        if call(&balance).await.unwrap().starts_with('x') {
            n_backup += 1;
        }
    }
    assert_eq!(n_backup, 0);
}

/// As HTTP without idle connections: each request connects for itself, and nothing is left of a
/// probe.
#[tokio::test(start_paused = true)]
async fn endpoints_that_connect_for_each_request_are_served() {
    for hosts in [&["a"][..], &["a", "b", "c"]] {
        let (endpointer, balance) = connecting(hosts, &[]).await;
        for _ in 0..20 {
            let begun = Instant::now();
            balance.clone().oneshot(0).await.unwrap();
            assert!(begun.elapsed() <= Duration::from_millis(12), "{:?}", begun.elapsed());
        }
        sleep(Duration::from_secs(5)).await;
        let endpoints = endpointer.report().endpoints;
        assert!(endpoints.iter().all(|e| e.state == EndpointState::Ready), "{endpoints:?}");
    }
}

/// What connects beside the one whose turn it is takes no turn.
#[tokio::test(start_paused = true)]
async fn endpoints_that_connect_for_each_request_take_turns() {
    for (hosts, weights) in [
        (&["a", "b"][..], &[1, 1][..]),
        (&["a", "b", "c", "d"], &[1; 4]),
        (&["a", "b", "c", "d"], &[1, 1, 2, 2]),
    ] {
        let (_endpointer, balance) = connecting(hosts, weights).await;
        let mut counts = HashMap::<_, u32>::new();
        for _ in 0..60 {
            *counts.entry(balance.clone().oneshot(0).await.unwrap()).or_default() += 1;
            sleep(Duration::from_millis(50)).await;
        }
        let unit = 60 / weights.iter().sum::<u32>();
        for (host, weight) in hosts.iter().zip(weights) {
            let n = counts.get(*host).copied().unwrap_or(0);
            assert!(n.abs_diff(unit * weight) <= 1 + weight, "{weights:?}: {counts:?}");
        }
    }
}

struct Fresh(String, Option<Pin<Box<Sleep>>>);

impl Clone for Fresh {
    fn clone(&self) -> Self {
        Self(self.0.clone(), None)
    }
}

impl Service<u32> for Fresh {
    type Response = String;
    type Error = BoxError;
    type Future = Ready<Result<String, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let connect = self.1.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(5))));
        connect.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// Endpoints that connect for each request.
async fn connecting(hosts: &[&str], weights: &[u32]) -> (Endpointer<Fresh>, Balance<Fresh>) {
    let weights = weights.iter().copied().chain(iter::repeat(1));
    let weighing = |(host, weight): (&&str, u32)| Instance::new(*host, 1).with_weight(weight);
    let instancer = FixedInstancer::new(hosts.iter().zip(weights).map(weighing));
    let endpointer = Endpointer::with(&instancer, |instance| {
        let host = instance.host().to_owned();
        async { Ok(Fresh(host, None)) }
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let balance = BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer.clone());
    (endpointer, balance)
}

/// A health check that fails everywhere: the guard holds vanished instances, but not critical ones.
#[tokio::test(start_paused = true)]
async fn instances_that_are_all_critical_still_get_requests() {
    let (mut registry, world) = (Registry::guarded(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    call(&balance).await.unwrap();
    let critical =
        ["a", "b", "c"].map(|h| Instance::new(h, 1).with_status(InstanceStatus::Critical));
    registry.set_instances(critical.to_vec()).await;
    let outcome = call(&balance).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Serves one request at a time; on the host "fails" every one fails immediately.
async fn one_at_a_time(
    took: Duration,
    instances: impl IntoIterator<Item = Instance>,
) -> Vec<Result<String, BoxError>> {
    let instancer = FixedInstancer::new(instances);
    let endpointer = Endpointer::with(&instancer, move |instance| async move {
        let inner = service_fn(move |_: u32| {
            let host = instance.host().to_owned();
            async move {
                if host == "fails" {
                    return Err(BoxError::from("reset by peer"));
                }
                sleep(took).await;
                Ok(host)
            }
        });
        Ok::<_, BoxError>(ServiceBuilder::new().concurrency_limit(1).service(inner))
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let policy = RetryPolicy::new().max_attempts(2).idempotent().with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy)
        .layer(BalanceLayer::new(RoundRobin::new()).with_seed(1).layer(endpointer.clone()));
    join_all((0..6).map(|_| client.clone().oneshot(0))).await.into_iter().collect()
}

/// The only instance that works is busy: a retry waits for it.
#[tokio::test(start_paused = true)]
async fn retry_waits_for_busy_endpoint_before_it_repeats_a_failed_one() {
    let took = Duration::from_millis(20);
    let answers = one_at_a_time(took, ["fails", "works"].map(|host| Instance::new(host, 1))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn request_waits_for_busy_endpoint_rather_than_unhealthy_one() {
    let critical = Instance::new("critical", 1).with_status(InstanceStatus::Critical);
    // The last ones wait for longer than the grace.
    let took = Duration::from_millis(100);
    let answers = one_at_a_time(took, [Instance::new("works", 1), critical]).await;
    for answer in answers {
        assert_eq!(answer.unwrap(), "works");
    }
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoint_serves_when_the_others_do_not_connect() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    world.ready("hangs", Mode::Hangs);
    let critical = Instance::new("critical", 1).with_status(InstanceStatus::Critical);
    let endpointer = endpointer(&registry, &world).await;
    registry.set_instances(vec![Instance::new("hangs", 1), critical]).await;
    let begun = Instant::now();
    assert_eq!(call(&balance(&endpointer)).await.unwrap(), "critical");
    let waited = begun.elapsed().as_millis();
    assert!((250..=350).contains(&waited), "{waited} ms");
}

#[tokio::test(start_paused = true)]
async fn instance_that_is_created_counts_for_its_priority() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    world.make("idle", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let (best, next) = (Instance::new("best", 1), Instance::new("next", 1).with_priority(1));
    let client = BalanceLayer::new(Prioritized::default()).with_seed(1).layer(endpointer);
    for weight in [0, 1] {
        let idle = Instance::new("idle", 1).with_weight(weight);
        registry.set_instances(vec![best.clone(), next.clone(), idle]).await;
        let answers = answers(&client, 50).await;
        assert_eq!(answers.contains(&"next".to_owned()), weight > 0, "{answers:?}");
    }
}

/// v1 serves always, and v2 one request at a time.
#[tokio::test(start_paused = true)]
async fn request_with_a_label_waits_for_a_busy_member_that_has_it() {
    let versioned = |v: &str| Instance::new(v, 1).with_metadata("version", v);
    let instancer = FixedInstancer::new([versioned("v1"), versioned("v2")]);
    let endpointer = Endpointer::with(&instancer, |instance| async move {
        let host = instance.host().to_owned();
        let took = Duration::from_millis(if host == "v1" { 0 } else { 200 });
        let inner = service_fn(move |_: u32| {
            let host = host.clone();
            async move {
                sleep(took).await;
                Ok::<_, BoxError>(host)
            }
        });
        Ok::<_, BoxError>(ServiceBuilder::new().concurrency_limit(1).service(inner))
    });
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let select = Select::by_metadata("version", RoundRobin::new());
    let client = ServiceBuilder::new()
        .layer(ScopeLayer::new(|_: &u32| RequestScope::new().with_label("v2")))
        .layer(BalanceLayer::new(select).with_seed(1))
        .service(endpointer.clone());
    // The second after 200 ms; beyond the grace of 250 ms requests go to others.
    let answers = join_all((0..3).map(|_| client.clone().oneshot(0))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, ["v2", "v2", "v1"]);
}

#[tokio::test(start_paused = true)]
async fn instance_that_was_down_is_found_whatever_its_status() {
    for status in [InstanceStatus::Passing, InstanceStatus::Critical, InstanceStatus::Draining] {
        for _ in 0..10 {
            let (mut registry, world) = (Registry::new(&[]), World::default());
            registry.set_instances(vec![Instance::new("a", 1).with_status(status)]).await;
            let endpointer = endpointer(&registry, &world).await;
            let client = balance(&endpointer);
            world.ready("a", Mode::Fails);
            call(&client).await.unwrap_err();
            // The pauses between probes are of up to 10 s by now.
            sleep(Duration::from_secs(120)).await;
            // What leases it polls it itself.
            drop(client.lease().await.unwrap_or_else(|error| panic!("{status:?}: {error}")));
            world.ready("a", Mode::Works);
            assert_eq!(call(&client).await.expect("is back"), "a", "{status:?}");
        }
    }
}
