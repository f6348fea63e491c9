mod fitness;
mod loss;
mod stated;
mod terms;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::*;
use crate::{ErrorKind, LossGuard, LossPolicy};

/// A publisher whose time is driven by the test.
struct Driven {
    publisher: Publisher,
    subscription: Subscription,
    n_confirms: usize,
}

impl Driven {
    fn new(config: RegistryConfig) -> Self {
        Self::of(Publisher::new("test", "s", config))
    }

    fn of(publisher: Publisher) -> Self {
        Self { subscription: publisher.subscribe(), publisher, n_confirms: 0 }
    }

    fn guarded() -> Self {
        Self::new(RegistryConfig::default())
    }

    fn read(&mut self, ids: impl IntoIterator<Item = u16>) {
        self.set(ids.into_iter().map(instance).collect());
    }

    fn set(&mut self, entries: Vec<Instance>) {
        self.publisher.set(entries.into());
    }

    fn confirm(&mut self, ids: impl IntoIterator<Item = u16>) {
        let entries = Entries::new(ids.into_iter().map(instance).collect());
        self.publisher.set(entries.with_mode(ReadMode::Confirm));
    }

    async fn pass(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while timeout_at(until, self.publisher.due()).await.is_ok() {
            self.n_confirms += 1;
        }
    }

    fn listed(&self) -> Vec<u16> {
        ports(self.subscription.snapshot().instances())
    }

    fn held(&self) -> Vec<u16> {
        ports(self.subscription.snapshot().held())
    }

    fn changed(&mut self) -> bool {
        let changed = self.subscription.snapshots.has_changed().expect("publisher lives");
        self.subscription.snapshots.mark_unchanged();
        changed
    }
}

fn instance(port: u16) -> Instance {
    Instance::new("10.0.0.1", port).with_id(format!("{port:05}"))
}

fn ports(instances: &[Instance]) -> Vec<u16> {
    instances.iter().map(Instance::port).collect()
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "test", "follow").with_message(message)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[tokio::test(start_paused = true)]
async fn error_leaves_the_set_and_makes_it_stale() {
    let mut driven = Driven::guarded();
    driven.read([1, 2]);
    let failed_at = Instant::now();
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(5)).await;
    driven.publisher.failed(unavailable("still gone"));
    let snapshot = driven.subscription.snapshot();
    assert_eq!(driven.listed(), [1, 2]);
    let Freshness::Stale { since, error } = snapshot.freshness() else { panic!("{snapshot:?}") };
    assert_eq!(*since, failed_at);
    assert_eq!(error.to_string(), "test follow: still gone");
    driven.read([1, 2]);
    assert!(driven.subscription.snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn becoming_stale_wakes_subscribers_once() {
    let mut driven = Driven::guarded();
    driven.publisher.failed(unavailable("not yet"));
    assert!(driven.changed());
    driven.publisher.failed(unavailable("not yet either"));
    assert!(!driven.changed());
    driven.read([1]);
    assert!(driven.changed());
    driven.publisher.failed(unavailable("gone"));
    assert!(driven.changed());
    driven.publisher.failed(unavailable("still gone"));
    assert!(!driven.changed());
    driven.read([1]);
    assert!(driven.changed());
}

#[tokio::test(start_paused = true)]
async fn subscriber_during_an_outage_gets_the_last_set_as_stale() {
    let mut driven = Driven::guarded();
    driven.read([1]);
    driven.publisher.failed(unavailable("gone"));
    let late = driven.publisher.subscribe().snapshot();
    assert_eq!(ports(late.instances()), [1]);
    assert!(late.freshness().error().is_some());
}

#[tokio::test(start_paused = true)]
async fn same_set_in_another_order_or_twice_is_no_event() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    let first = driven.subscription.snapshot();
    assert!(driven.changed());
    driven.read([3, 1, 2, 2, 1]);
    assert!(!driven.changed());
    let second = driven.subscription.snapshot();
    assert!(first.instances().iter().zip(second.instances()).all(|(a, b)| a.ptr_eq(b)));
    assert_eq!(driven.publisher.stats().duplicates, 2);
}

#[tokio::test(start_paused = true)]
async fn of_two_with_one_id_or_one_address_always_the_same_is_kept() {
    let old = Instance::new("a", 1).with_id("x").with_started_at_ms(1);
    let young = Instance::new("b", 1).with_id("x").with_started_at_ms(2);
    let twin = Instance::new("b", 1).with_id("y");
    let all = [old.clone(), young.clone(), twin.clone()];
    for turn in 0..3 {
        let mut driven = Driven::guarded();
        let mut entries = all.to_vec();
        entries.rotate_left(turn);
        driven.set(entries);
        assert_eq!(driven.subscription.snapshot().instances(), std::slice::from_ref(&young));
    }
    let mut driven = Driven::guarded();
    driven.set(all.to_vec());
    driven.set(vec![old.clone(), twin.clone()]);
    assert_eq!(driven.subscription.snapshot().instances(), [old, twin], "no longer one address");
}

#[tokio::test(start_paused = true)]
async fn slow_subscriber_blocks_no_other_and_ends_with_the_latest() {
    let mut driven = Driven::guarded();
    let mut slow = driven.publisher.subscribe();
    for n in 1..=1000 {
        driven.read(1..=n);
    }
    assert_eq!(slow.changed().await.expect("open").instances().len(), 1000);
    assert!(!slow.snapshots.has_changed().expect("open"), "no backlog");
}

#[tokio::test(start_paused = true)]
async fn refused_addresses_are_counted_and_the_rest_kept() {
    let mut driven = Driven::guarded();
    let hosts = ["169.254.169.254", "0.0.0.0", "::", "unix:/run/x", "10.0.0.1"];
    let mut entries: Vec<_> = hosts.iter().map(|host| Instance::new(*host, 80)).collect();
    entries.push(Instance::new("10.0.0.2", 0));
    driven.set(entries);
    assert_eq!(driven.subscription.snapshot().instances(), [Instance::new("10.0.0.1", 80)]);
    assert_eq!(driven.publisher.stats().refused, 5);
    driven.set(vec![Instance::new("0.0.0.0", 80)]);
    let snapshot = driven.subscription.snapshot();
    assert_eq!(snapshot.instances().len(), 1, "nothing but refused ones is an error");
    assert!(!snapshot.freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn set_above_the_cap_is_an_error_and_the_old_one_kept() {
    let mut driven = Driven::new(RegistryConfig::default().max_instances(3));
    driven.read([1, 2]);
    driven.read(1..=4);
    assert_eq!(driven.listed(), [1, 2]);
    let snapshot = driven.subscription.snapshot();
    let error = snapshot.freshness().error().expect("stale");
    assert!(error.to_string().contains("max_instances = 3"), "{error}");
}

/// go-kit's `TestEndpointCacheErrorAndTimeout`, without a call that triggers it.
#[tokio::test(start_paused = true)]
async fn invalidation_fires_by_timer_and_keeps_the_first_error() {
    let config = RegistryConfig::default().invalidate_after(s(10));
    let mut driven = Driven::new(config);
    driven.read([1]);
    driven.publisher.failed(unavailable("first"));
    driven.pass(s(5)).await;
    driven.publisher.failed(unavailable("second"));
    assert_eq!(driven.listed(), [1]);
    driven.pass(s(6)).await;
    driven.publisher.failed(unavailable("third"));
    let snapshot = driven.subscription.snapshot();
    assert!(snapshot.instances().is_empty());
    assert_eq!(snapshot.freshness().error().expect("stale").to_string(), "test follow: first");
    driven.read([1]);
    assert_eq!(driven.listed(), [1], "a good read restores");
    assert!(driven.subscription.snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn dropped_publisher_is_never_fresh() {
    let Driven { publisher, mut subscription, .. } = Driven::guarded();
    drop(publisher);
    let snapshot = subscription.changed().await.expect("the last word");
    let error = snapshot.freshness().error().expect("not fresh");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(subscription.changed().await.expect_err("ended").kind(), ErrorKind::Closed);
}
