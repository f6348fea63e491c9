//! Retries that a limit admits or refuses.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_sd_balance::{
    Endpointer, EndpointerConfig, Event, Limits, Observer, RequestScope, RetryLayer, RetryPolicy,
    ScopeLayer, factory_fn,
};

use crate::{
    limits::endpointer,
    support::{Mode, Registry, World, balance, call, settle, start},
};

const MS: Duration = Duration::from_millis(1);

/// Reads the request that is refused another attempt.
#[derive(Debug, Default)]
struct Reads(Mutex<Vec<String>>);

impl Observer for Reads {
    fn on(&self, event: &Event<'_>) {
        if let Event::Refused { .. } = event {
            let tried = RequestScope::current().expect("a scope").tried();
            self.0.lock().unwrap().extend(tried.iter().map(ToString::to_string));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn observer_of_a_refused_retry_may_read_the_scope() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let reads = Arc::<Reads>::default();
    let config = EndpointerConfig::new()
        .limits(Limits::new().max_retries(0))
        .observer(Arc::<Reads>::clone(&reads));
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let client = RetryLayer::new(RetryPolicy::new().idempotent()).layer(balance(&endpointer));
    let client = ScopeLayer::new(|_: &u32| RequestScope::new()).layer(client);
    call(&client).await.unwrap_err();
    assert_eq!(*reads.0.lock().unwrap(), ["a:1"]);
}

/// The first attempt goes to one, and the second to another.
#[tokio::test(start_paused = true)]
async fn retry_at_another_service_counts_there() {
    let pause = 1_000 * MS;
    for (max, n_second) in [(None, 1), (Some(1), 1), (Some(0), 0)] {
        let (registry, world) = (Registry::new(&["a"]), World::default());
        let (fallbacks, fallback) = (Registry::new(&["b"]), World::default());
        world.answer("a", Mode::Fails);
        fallback.answer("b", Mode::Hangs);
        let first = endpointer(&registry, &world, Limits::new().max_retries(1)).await;
        let limits = max.map_or_else(Limits::new, |max| Limits::new().max_retries(max));
        let second = endpointer(&fallbacks, &fallback, limits).await;
        let (one, other) = (balance(&first), balance(&second));
        let n_calls = Arc::new(AtomicUsize::new(0));
        let service = service_fn(move |request: u32| match n_calls.fetch_add(1, Relaxed) {
            0 => one.clone().oneshot(request),
            _ => other.clone().oneshot(request),
        });
        let policy = RetryPolicy::new().idempotent().backoff(pause, pause).with_seed(1);
        let client = RetryLayer::new(policy).layer(service);
        let request = start(client.oneshot(0));
        settle().await;
        assert_eq!(first.report().limits.retries, 1, "in the pause, {max:?}");
        sleep(2 * pause).await;
        let retries = second.report().limits.retries;
        assert_eq!((first.report().limits.retries, retries), (0, max.unwrap_or(0)), "{max:?}");
        assert_eq!(fallback.n_calls("b"), n_second, "{max:?}");
        request.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn retry_that_never_begins_does_not_count() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.answer("a", Mode::Fails);
    let limits = Limits::new().max_requests(1).max_retries(1);
    let endpointer = endpointer(&registry, &world, limits).await;
    let balance = balance(&endpointer);
    let pause = 1_000 * MS;
    let policy = RetryPolicy::new().idempotent().backoff(pause, pause).with_seed(1);
    let client = RetryLayer::new(policy).layer(balance.clone());
    let n_retries = || endpointer.report().limits.retries;
    let scope = RequestScope::new();
    // It is refused, and its future is kept.
    let mut refused = scope.enter(|| client.clone().call(0));
    assert!((&mut refused).now_or_never().is_none());
    world.answer("a", Mode::Hangs);
    let other = start(async move { call(&balance).await });
    settle().await;
    assert_eq!(n_retries(), 1);
    let error = (&mut refused).await.unwrap_err();
    assert!(error.to_string().contains("1 requests are in flight"), "{error}");
    assert_eq!(n_retries(), 0, "refused");
    other.abort();
    settle().await;
    // It is dropped, and its scope is kept.
    world.answer("a", Mode::Fails);
    let mut dropped = scope.enter(|| client.clone().call(0));
    assert!((&mut dropped).now_or_never().is_none());
    assert_eq!(n_retries(), 1);
    drop(dropped);
    assert_eq!(n_retries(), 0, "dropped");
}
