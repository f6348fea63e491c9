//! Cancellation at every await point: poll k times, drop, for every k.

use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_sd_balance::{Retry, RetryBudget, RetryLayer, RetryPolicy};

use crate::support::{Client, Mode, Registry, World, balance, endpointer, n_in_flight, settle};

/// Polls `future` at most `k` times, letting time pass in between; `true` when it has ended by
/// then.
async fn poll_times<F: Future>(future: F, k: usize) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..k {
        if future.as_mut().now_or_never().is_some() {
            return true;
        }
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    false
}

/// Drops a call after every number of polls until one gets to its end, and checks what is left
/// behind.
async fn dropped_after_every_poll(prepare: impl Fn(&World)) {
    for k in 0.. {
        let (registry, world) = (Registry::new(&["a", "b"]), World::default());
        prepare(&world);
        let endpointer = endpointer(&registry, &world).await;
        let budget = RetryBudget::with(100, 100).unwrap();
        let policy = RetryPolicy::new().idempotent().per_try_timeout(Duration::from_millis(300));
        let policy = policy.budget(budget.clone());
        let balance = balance(&endpointer);
        let mut client: Retry<_> = RetryLayer::new(policy.with_seed(1)).layer(balance.clone());
        let ended = poll_times(client.call(0), k).await;
        assert_eq!(n_in_flight(&endpointer), 0, "after {k} polls");
        // What was sent again is paid, and what was withdrawn for a pause is back.
        let sent = world.n_calls("a") + world.n_calls("b");
        let paid = usize::try_from(budget.report(Instant::now()).retries).unwrap();
        assert_eq!(paid, sent.saturating_sub(1), "after {k} polls");
        drop((client, balance));
        // The reconnecting task drops its clone when it is stopped.
        endpointer.close().await;
        drop(endpointer);
        settle().await;
        assert_eq!(world.n_live_in_all(), 0, "after {k} polls");
        if ended {
            assert!(k > 0);
            return;
        }
        assert!(k < 1_000, "it never ends");
    }
}

#[tokio::test(start_paused = true)]
async fn call_that_hangs_can_be_dropped_at_any_time() {
    let hang = |world: &World| {
        world.answer("a", Mode::Hangs);
        world.answer("b", Mode::Hangs);
    };
    dropped_after_every_poll(hang).await;
}

#[tokio::test(start_paused = true)]
async fn search_among_pending_endpoints_can_be_dropped_at_any_time() {
    let hang = |world: &World| {
        world.ready("a", Mode::Hangs);
        world.ready("b", Mode::Hangs);
    };
    dropped_after_every_poll(hang).await;
}

#[tokio::test(start_paused = true)]
async fn search_among_refusing_endpoints_can_be_dropped_at_any_time() {
    let refuse = |world: &World| {
        world.ready("a", Mode::Fails);
        world.ready("b", Mode::Fails);
    };
    dropped_after_every_poll(refuse).await;
}

#[tokio::test(start_paused = true)]
async fn wait_for_factories_can_be_dropped_at_any_time() {
    let fail = |world: &World| {
        world.make("a", Mode::Fails);
        world.make("b", Mode::Hangs);
    };
    dropped_after_every_poll(fail).await;
}

#[tokio::test(start_paused = true)]
async fn repeated_failures_can_be_dropped_at_any_time() {
    let fail = |world: &World| {
        world.answer("a", Mode::Fails);
        world.answer("b", Mode::Fails);
    };
    dropped_after_every_poll(fail).await;
}

/// The public lease, `ready` and `close` too.
#[tokio::test(start_paused = true)]
async fn handles_can_stop_waiting_at_any_time() {
    for k in 0..60 {
        let (registry, world) = (Registry::new(&["a"]), World::default());
        world.make("a", Mode::Fails);
        let endpointer = endpointer(&registry, &world).await;
        let balance = balance(&endpointer);
        poll_times(balance.lease(), k).await;
        poll_times(endpointer.ready(Duration::from_millis(500)), k).await;
        world.make("a", Mode::Works);
        tokio::time::sleep(Duration::from_secs(11)).await;
        let (service, lease): (Client, _) = balance.lease().await.unwrap();
        poll_times(endpointer.close(), k).await;
        drop((service, lease));
        drop((balance, endpointer));
        settle().await;
        assert_eq!(world.n_live_in_all(), 0, "after {k} polls");
    }
}
