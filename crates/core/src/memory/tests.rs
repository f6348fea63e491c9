use std::time::Duration;

use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::{ErrorKind, Instancer, RegistrationHandle, RegistrationState, Snapshot, Subscription};

const TTL: Duration = Duration::from_secs(15);

/// With the loss guard.
fn cautious() -> MemoryRegistry {
    MemoryRegistry::with_config(RegistryConfig::default())
}

fn registration(port: u16) -> Registration {
    Registration::new("s", Instance::new("127.0.0.1", port))
}

async fn register(registry: &MemoryRegistry, port: u16) -> RegistrationHandle {
    registry.register(registration(port)).await.expect("registered")
}

async fn until(
    subscription: &mut Subscription,
    wanted: impl Fn(&Snapshot) -> bool + Sync,
) -> Duration {
    let start = Instant::now();
    while !wanted(&subscription.snapshot()) {
        let changed = tokio::time::timeout(Duration::from_secs(600), subscription.changed());
        changed.await.expect("such a snapshot").expect("open");
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_seen_and_what_is_deregistered_is_gone() {
    let registry = cautious();
    let mut subscription = registry.instancer("s").subscribe();
    assert!(subscription.ready(TTL).await.expect("answers").instances().is_empty());
    let (first, _second) = (register(&registry, 1).await, register(&registry, 2).await);
    until(&mut subscription, |s| s.instances().len() == 2).await;
    first.deregister().await.expect("withdrawn");
    until(&mut subscription, |s| s.instances().len() == 1).await;
    assert!(subscription.snapshot().held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn orderly_departure_of_the_last_instance_is_seen_immediately() {
    let registry = MemoryRegistry::new();
    let mut subscription = registry.instancer("s").subscribe();
    let handle = register(&registry, 1).await;
    until(&mut subscription, |s| s.instances().len() == 1).await;
    handle.deregister().await.expect("withdrawn");
    let took = until(&mut subscription, |s| s.instances().is_empty()).await;
    assert!(took < Duration::from_millis(5), "{took:?}");
    assert!(subscription.snapshot().held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn entry_without_renewals_expires() {
    let registry = cautious();
    let _handle = register(&registry, 1).await;
    registry.interrupt();
    sleep(TTL).await;
    assert!(registry.entries("s").is_empty());
}

#[tokio::test(start_paused = true)]
async fn expired_entry_is_back_in_less_than_two_seconds() {
    let registry = cautious();
    let handle = register(&registry, 1).await;
    registry.expire("s", handle.id());
    assert!(registry.entries("s").is_empty());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(registry.entries("s").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn wiped_registry_is_filled_again_and_no_instance_is_lost() {
    let registry = cautious();
    let mut handles = Vec::new();
    for port in 1..=10 {
        handles.push(register(&registry, port).await);
    }
    let mut subscription = registry.instancer("s").subscribe();
    until(&mut subscription, |s| s.instances().len() == 10).await;
    registry.wipe();
    for _ in 0..200 {
        assert_eq!(subscription.snapshot().known().count(), 10);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(subscription.snapshot().instances().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn readers_keep_the_set_of_an_interrupted_or_lying_registry() {
    let registry = cautious();
    let _handles = (register(&registry, 1).await, register(&registry, 2).await);
    let mut subscription = registry.instancer("s").subscribe();
    until(&mut subscription, |s| s.instances().len() == 2).await;
    registry.interrupt();
    until(&mut subscription, |s| s.freshness().error().is_some()).await;
    assert_eq!(subscription.snapshot().instances().len(), 2);
    registry.resume();
    until(&mut subscription, |s| s.freshness().is_fresh()).await;
    registry.drop_to_empty();
    until(&mut subscription, |s| s.held().len() == 2).await;
    registry.resume();
    until(&mut subscription, |s| s.instances().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn corrupt_entry_is_skipped_until_it_is_announced_again() {
    let registry = cautious();
    let (first, _second) = (register(&registry, 1).await, register(&registry, 2).await);
    let mut subscription = registry.instancer("s").subscribe();
    until(&mut subscription, |s| s.instances().len() == 2).await;
    registry.corrupt("s", first.id());
    until(&mut subscription, |s| s.instances().len() == 1).await;
    assert!(subscription.stats().malformed > 0);
    first.update(|instance| instance.with_weight(2)).await.expect("accepted");
    until(&mut subscription, |s| s.instances().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn slow_registry_is_waited_for() {
    let registry = cautious();
    registry.delay(Duration::from_secs(2));
    let start = Instant::now();
    let handle = register(&registry, 1).await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    handle.deregister().await.expect("withdrawn");
}

#[tokio::test(start_paused = true)]
async fn registrations_are_independent_and_one_id_twice_ends_well() {
    let registry = cautious();
    let (first, second) = (register(&registry, 1).await, register(&registry, 2).await);
    let again = register(&registry, 1).await;
    first.deregister().await.expect("not ours any more: success");
    assert_eq!(registry.entries("s").len(), 2, "the later registration owns the entry");
    again.deregister().await.expect("withdrawn");
    assert_eq!(registry.entries("s").len(), 1);
    assert!(matches!(second.state(), RegistrationState::Registered));
}

#[tokio::test(start_paused = true)]
async fn jump_of_the_clock_past_the_ttl_is_mended_immediately() {
    let registry = cautious();
    let handle = register(&registry, 1).await;
    sleep(Duration::from_secs(1)).await;
    advance(TTL * 2).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.entries("s").len(), 1);
    assert!(matches!(handle.state(), RegistrationState::Registered));
}

#[tokio::test(start_paused = true)]
async fn registry_that_is_down_at_the_start_is_followed_later() {
    let registry = cautious();
    registry.interrupt();
    let handle = registry.register(registration(1).retry_in_background()).await.expect("immediate");
    let mut subscription = registry.instancer("s").subscribe();
    let error = subscription.ready(Duration::from_secs(1)).await.expect_err("down");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    registry.resume();
    until(&mut subscription, |s| s.instances().len() == 1).await;
    assert_eq!(subscription.snapshot().instances()[0].id(), handle.id());
}

#[tokio::test(start_paused = true)]
async fn ipv6_goes_from_end_to_end() {
    let registry = cautious();
    let registration = Registration::new("s", Instance::new("::1", 8080));
    let _handle = registry.register(registration).await.expect("registered");
    let mut subscription = registry.instancer("s").subscribe();
    until(&mut subscription, |s| s.instances().len() == 1).await;
    assert_eq!(subscription.snapshot().instances()[0].to_string(), "[::1]:8080");
}

#[tokio::test(start_paused = true)]
async fn registration_without_effect_has_nothing_to_withdraw() {
    let registry = cautious();
    registry.interrupt();
    let unsent = registration(1).retry_in_background();
    let handle = registry.register(unsent).await.expect("in the background");
    sleep(Duration::from_secs(3)).await;
    assert!(handle.last_error().expect("interrupted").is_without_effect());
    let start = Instant::now();
    handle.deregister().await.expect("nothing was written");
    assert_eq!(start.elapsed(), Duration::ZERO);

    // A call that got no answer may have written the entry.
    registry.resume();
    registry.delay(Duration::from_secs(3600));
    let unanswered = registration(1).retry_in_background();
    let handle = registry.register(unanswered).await.expect("in the background");
    sleep(Duration::from_secs(30)).await;
    registry.interrupt();
    handle.deregister().await.expect_err("not known");
    assert!(start.elapsed() >= Duration::from_secs(34), "{:?}", start.elapsed());
}
