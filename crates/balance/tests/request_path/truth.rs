//! Readiness, connecting, nesting, time limits: what a request may rely on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, service_fn};
use tower_sd_balance::{
    BalanceLayer, BoxError, EndpointState, Endpointer, EndpointerConfig, FixedInstancer, Instance,
    Retry, RetryError, RetryLayer, RetryPolicy, RoundRobin,
};

use crate::support::{Mode, Registry, World, balance, call, endpointer, report, start};

/// one of two hosts black-holes connects; the caller's timeout per try is shorter than the
/// balancer's wait.
#[tokio::test(start_paused = true)]
async fn black_hole_is_found_with_short_per_try_timeout() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    // Not idempotent: POSTs.
    let policy = RetryPolicy::new().per_try_timeout(Duration::from_millis(300)).with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy).layer(balance(&endpointer));
    let (mut failed, mut n) = (0, 0);
    for _ in 0..200 {
        n += 1;
        if call(&client).await.is_err() {
            failed += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let state = report(&endpointer, "a").unwrap().state;
    assert!(failed <= 2 && state == EndpointState::Down, "{failed} of {n}, a is {state:?}");
}

/// the same with a plain timeout above the balancer, and with GETs: latency.
#[tokio::test(start_paused = true)]
async fn black_hole_delays_few_idempotent_requests() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let policy =
        RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(300)).with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy).layer(balance(&endpointer));
    let mut slow = 0;
    for _ in 0..200 {
        let begun = Instant::now();
        call(&client).await.unwrap();
        if begun.elapsed() >= Duration::from_millis(300) {
            slow += 1;
        }
    }
    assert!(slow <= 2, "{slow} of 200 were slow");
}

/// the registry is wiped, all instances are held and alive, and for two seconds all are saturated.
#[tokio::test(start_paused = true)]
async fn held_endpoints_that_are_pending_are_not_dropped() {
    let (mut registry, world) = (Registry::guarded(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    registry.set(&[]).await;
    for host in ["a", "b", "c"] {
        assert_eq!(report(&endpointer, host).unwrap().state, EndpointState::Held);
        world.ready(host, Mode::Hangs);
    }
    let busy: Vec<_> = (0..6)
        .map(|_| {
            start({
                let b = balance.clone();
                async move { call(&b).await }
            })
        })
        .collect();
    for one in busy {
        let _answer = one.await;
    }
    for host in ["a", "b", "c"] {
        world.ready(host, Mode::Works);
    }
    sleep(Duration::from_secs(5)).await;
    let outcome = call(&balance).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// the deadline while the second attempt waits for readiness (a limit between Retry and Balance).
#[tokio::test(start_paused = true)]
async fn deadline_holds_while_attempt_waits_for_readiness() {
    #[derive(Clone)]
    struct OnceReady(Arc<AtomicUsize>);
    impl Service<u32> for OnceReady {
        type Response = ();
        type Error = BoxError;
        type Future = BoxFuture<'static, Result<(), BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            match self.0.load(SeqCst) {
                0 => Poll::Ready(Ok(())),
                _ => Poll::Pending, // as a limit whose permits are gone
            }
        }
        fn call(&mut self, _: u32) -> Self::Future {
            self.0.fetch_add(1, SeqCst);
            Box::pin(async { Err("failed".into()) })
        }
    }
    let policy = RetryPolicy::new().idempotent().timeout(Duration::from_secs(1)).with_seed(1);
    let client: Retry<_> = RetryLayer::new(policy).layer(OnceReady(Arc::default()));
    let outcome = timeout(Duration::from_secs(60), client.oneshot(0)).await;
    assert!(outcome.is_ok(), "the deadline of 1 s did not end it within 60 s");
}

/// tower's contract: a service whose poll_ready failed is dead for good, and has to be made anew.
#[tokio::test(start_paused = true)]
async fn service_that_is_dead_for_good_is_made_again() {
    let n_made = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&n_made);
    let instancer = FixedInstancer::new([Instance::new("a", 1)]);
    let endpointer = Endpointer::with(&instancer, move |_instance| {
        let n = made.fetch_add(1, SeqCst);
        async move {
            let inner = service_fn(move |_: u32| {
                assert!(n > 0, "a bug in the first one");
                async move { Ok::<_, BoxError>(n) }
            });
            // What every non-Clone client is wrapped in.
            Ok::<_, BoxError>(Buffer::new(inner, 16))
        }
    });
    let balance = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    drop(call(&balance).await);
    sleep(Duration::from_secs(600)).await;
    let later = call(&balance).await;
    assert!(later.is_ok(), "{later:?}");
}

/// "never" as a duration.
#[tokio::test(start_paused = true)]
async fn drain_without_bound_does_not_end_updates() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().drain_timeout(Duration::MAX);
    let endpointer =
        Endpointer::with_config(&registry, tower_sd_balance::factory_fn(world.factory()), config);
    let ready = endpointer.ready(Duration::from_secs(5)).await;
    assert!(ready.is_ok(), "{ready:?}");
}

#[tokio::test(start_paused = true)]
async fn wait_without_bound_does_not_panic() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let balance =
        BalanceLayer::new(RoundRobin::new()).ready_timeout(Duration::MAX).layer(endpointer);
    let outcome =
        tokio::spawn(
            async move { timeout(Duration::from_secs(1), call(&balance)).await.map(|_| ()) },
        )
        .await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// an endpoint that itself calls another service through another balancer: whose instance does the
/// error name?
#[tokio::test(start_paused = true)]
async fn nested_balancer_does_not_write_into_outer_record() {
    let inner_instancer = FixedInstancer::new([Instance::new("token", 1)]);
    let inner = Endpointer::with(&inner_instancer, |_i| async {
        Ok::<_, BoxError>(service_fn(|_: u32| async { Ok::<_, BoxError>("token") }))
    });
    inner.ready(Duration::from_secs(1)).await.unwrap();
    let tokens = BalanceLayer::new(RoundRobin::new()).layer(inner);
    let outer_instancer = FixedInstancer::new([Instance::new("shop", 1)]);
    let outer = Endpointer::with(&outer_instancer, move |_i| {
        let tokens = tokens.clone();
        async move {
            Ok::<_, BoxError>(service_fn(move |n: u32| {
                let tokens = tokens.clone();
                async move {
                    tokens.oneshot(n).await?;
                    Err::<&str, BoxError>("the shop fails".into())
                }
            }))
        }
    });
    outer.ready(Duration::from_secs(1)).await.unwrap();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().max_attempts(1)))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(outer);
    let error = client.oneshot(0).await.unwrap_err();
    let told: &RetryError = error.downcast_ref().unwrap();
    assert_eq!(
        told.attempts()[0].instance().map(|i| i.as_str().to_owned()).as_deref(),
        Some("shop:1")
    );
}

/// nested NoInstances after a side effect: a non-idempotent request is repeated.
#[tokio::test(start_paused = true)]
async fn nested_no_instances_does_not_count_as_unsent() {
    let nobody = FixedInstancer::new([]);
    let mailer = BalanceLayer::new(RoundRobin::new())
        .layer(Endpointer::with(&nobody, |_i| async {
            Ok::<_, BoxError>(service_fn(|_: u32| async { Ok::<_, BoxError>(()) }))
        }));
    let orders = Arc::new(AtomicUsize::new(0));
    let n_orders = Arc::clone(&orders);
    let here = FixedInstancer::new([Instance::new("here", 1)]);
    let shop = Endpointer::with(&here, move |_i| {
        let (mailer, orders) = (mailer.clone(), Arc::clone(&orders));
        async move {
            Ok::<_, BoxError>(service_fn(move |n: u32| {
                let (mailer, orders) = (mailer.clone(), Arc::clone(&orders));
                async move {
                    orders.fetch_add(1, SeqCst); // the order is written
                    mailer.oneshot(n).await?; // then a mail is sent
                    Ok::<_, BoxError>(())
                }
            }))
        }
    });
    shop.ready(Duration::from_secs(1)).await.unwrap();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(shop);
    drop(client.oneshot(0).await);
    assert_eq!(n_orders.load(SeqCst), 1);
}

/// A handler that no balancer stands above writes an order, and then uses a client of its own.
#[tokio::test(start_paused = true)]
async fn client_inside_a_handler_keeps_its_own_record() {
    let orders = Arc::new(AtomicUsize::new(0));
    let nobody = FixedInstancer::new([]);
    let mailer = RetryLayer::new(RetryPolicy::new()).layer(
        BalanceLayer::new(RoundRobin::new()).layer(Endpointer::with(&nobody, |_i| async {
            Ok::<_, BoxError>(service_fn(|_: u32| async { Ok::<_, BoxError>(()) }))
        })),
    );
    let n_orders = Arc::clone(&orders);
    let handler = service_fn(move |n: u32| {
        let (mailer, orders): (Retry<_>, _) = (mailer.clone(), Arc::clone(&n_orders));
        async move {
            orders.fetch_add(1, SeqCst);
            mailer.oneshot(n).await
        }
    });
    let client: Retry<_> = RetryLayer::new(RetryPolicy::new()).layer(handler);
    let error = client.oneshot(0).await.unwrap_err();
    assert_eq!((orders.load(SeqCst), n_attempts(&error)), (1, 1));
}

/// The same, with a mailer that refuses: the attempt names no instance of it.
#[tokio::test(start_paused = true)]
async fn instances_of_a_client_inside_a_handler_are_not_the_handlers() {
    let orders = Arc::new(AtomicUsize::new(0));
    let (registry, world) = (Registry::new(&["mailer"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    world.answer("mailer", Mode::Fails);
    let mailer: Retry<_> = RetryLayer::new(RetryPolicy::new()).layer(balance(&endpointer));
    let n_orders = Arc::clone(&orders);
    let handler = service_fn(move |_: u32| {
        let (mailer, orders) = (mailer.clone(), Arc::clone(&n_orders));
        async move {
            orders.fetch_add(1, SeqCst);
            call(&mailer).await
        }
    });
    let client: Retry<_> = RetryLayer::new(RetryPolicy::new()).layer(handler);
    let error = client.oneshot(0).await.unwrap_err();
    let outer: &RetryError = error.downcast_ref().unwrap();
    assert_eq!((orders.load(SeqCst), outer.attempts().len()), (1, 1));
    assert_eq!(outer.attempts()[0].instance(), None);
}

fn n_attempts(error: &BoxError) -> usize {
    error.downcast_ref::<RetryError>().unwrap().attempts().len()
}

/// a request waits for one that is busy although another is idle.
#[tokio::test(start_paused = true)]
async fn request_does_not_wait_for_busy_endpoint_beside_idle_ones() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let instancer = FixedInstancer::new([
                Instance::new("a", 1),
                Instance::new("b", 1),
                Instance::new("c", 1),
            ]);
            let endpointer = Endpointer::with(&instancer, |instance| async move {
                let inner = service_fn(move |slow: bool| {
                    let host = instance.host().to_owned();
                    async move {
                        if slow {
                            sleep(Duration::from_millis(800)).await;
                        }
                        Ok::<_, BoxError>(host)
                    }
                });
                // One at a time, as a database connection, or
                // HttpFactory::layered(ConcurrencyLimitLayer::new(1)).
                Ok::<_, BoxError>(ServiceBuilder::new().concurrency_limit(1).service(inner))
            });
            endpointer.ready(Duration::from_secs(1)).await.unwrap();
            sleep(Duration::from_millis(10)).await;
            let balance = BalanceLayer::new(RoundRobin::new().with_start(0))
                .with_seed(1)
                .layer(endpointer.clone());
            let one = tokio::task::spawn_local(balance.clone().oneshot(true));
            sleep(Duration::from_millis(1)).await;
            let mut worst = Duration::ZERO;
            for _ in 0..3 {
                let begun = Instant::now();
                balance.clone().oneshot(false).await.unwrap();
                worst = worst.max(begun.elapsed());
            }
            one.await.unwrap().unwrap();
            assert!(worst < Duration::from_millis(100), "{worst:?} with two of three idle");
        })
        .await;
}

/// one slow request of 1.2 s on a one-at-a-time endpoint, and another request for it: is it "down"
/// then?
#[tokio::test(start_paused = true)]
async fn busy_endpoint_is_not_down() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let instancer = FixedInstancer::new([Instance::new("a", 1), Instance::new("b", 1)]);
            let endpointer = Endpointer::with(&instancer, |_instance| async move {
                let inner = service_fn(|ms: u64| async move {
                    sleep(Duration::from_millis(ms)).await;
                    Ok::<_, BoxError>(())
                });
                Ok::<_, BoxError>(ServiceBuilder::new().concurrency_limit(1).service(inner))
            });
            endpointer.ready(Duration::from_secs(1)).await.unwrap();
            sleep(Duration::from_millis(10)).await;
            let balance = BalanceLayer::new(RoundRobin::new().with_start(0))
                .with_seed(1)
                .layer(endpointer.clone());
            let spawn = |ms| tokio::task::spawn_local(balance.clone().oneshot(ms));
            let long = [spawn(1_300), spawn(1_300)];
            sleep(Duration::from_millis(1)).await;
            let next = [spawn(1), spawn(1)];
            sleep(Duration::from_millis(1_150)).await;
            let states: Vec<_> =
                endpointer.report().endpoints.iter().map(|e| (e.state, e.error.clone())).collect();
            for one in long.into_iter().chain(next) {
                let _answer = one.await;
            }
            assert!(states.iter().all(|(state, _)| *state != EndpointState::Down), "{states:?}");
        })
        .await;
}

/// a user's balancer panics once.
#[tokio::test(start_paused = true)]
async fn balancer_panic_does_not_end_updates() {
    #[derive(Debug)]
    struct Touchy(AtomicUsize);
    impl tower_sd_balance::Balancer for Touchy {
        fn picker(
            &self,
            members: &tower_sd_balance::Members<'_>,
        ) -> Arc<dyn tower_sd_balance::Picker> {
            assert!(self.0.fetch_add(1, SeqCst) != 2, "a bug of the user's");
            RoundRobin::new().picker(members)
        }
    }
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = BalanceLayer::new(Touchy(AtomicUsize::new(0))).layer(endpointer.clone());
    for hosts in [&["a", "b"][..], &["a", "b", "c"], &["c"], &["d"]] {
        registry.set(hosts).await;
    }
    sleep(Duration::from_secs(5)).await;
    let outcome = call(&balance).await;
    assert_eq!(outcome.unwrap(), "d");
}
