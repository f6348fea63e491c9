use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::*;
use crate::ErrorKind;

/// A publisher whose time is driven by the test.
struct Driven {
    publisher: Publisher,
    subscription: Subscription,
    n_confirms: usize,
}

impl Driven {
    fn new(config: PublisherConfig) -> Self {
        let publisher = Publisher::new(config);
        Self {
            subscription: publisher.subscribe(),
            publisher,
            n_confirms: 0,
        }
    }

    fn guarded() -> Self {
        Self::new(PublisherConfig::new("test", "s"))
    }

    fn read(&mut self, ids: impl IntoIterator<Item = u16>) {
        self.publisher.set(ids.into_iter().map(instance).collect());
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
        let changed = self
            .subscription
            .snapshots
            .has_changed()
            .expect("publisher lives");
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

/// T01.
#[tokio::test(start_paused = true)]
async fn an_error_leaves_the_set_and_makes_it_stale() {
    let mut driven = Driven::guarded();
    driven.read([1, 2]);
    let failed_at = Instant::now();
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(5)).await;
    driven.publisher.failed(unavailable("still gone"));
    let snapshot = driven.subscription.snapshot();
    assert_eq!(driven.listed(), [1, 2]);
    let Freshness::Stale { since, error } = snapshot.freshness() else {
        panic!("{snapshot:?}")
    };
    assert_eq!(*since, failed_at);
    assert_eq!(error.to_string(), "test follow: still gone");
    driven.read([1, 2]);
    assert!(driven.subscription.snapshot().freshness().is_fresh());
}

/// T02.
#[tokio::test(start_paused = true)]
async fn who_joins_during_an_outage_gets_the_last_set_and_that_it_is_stale() {
    let mut driven = Driven::guarded();
    driven.read([1]);
    driven.publisher.failed(unavailable("gone"));
    let late = driven.publisher.subscribe().snapshot();
    assert_eq!(ports(late.instances()), [1]);
    assert!(late.freshness().error().is_some());
}

/// T03.
#[tokio::test(start_paused = true)]
async fn an_emptied_set_is_held_and_believed_after_confirmation_and_hold_down() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!(
        (driven.listed(), driven.held()),
        (vec![], vec![1, 2, 3, 4, 5])
    );
    driven.pass(s(61)).await;
    assert_eq!(driven.n_confirms, 1, "half-way");
    driven.read([]);
    driven.pass(s(58)).await;
    assert_eq!(driven.held().len(), 5, "not before the end of the term");
    driven.pass(s(3)).await;
    assert_eq!(driven.n_confirms, 2, "at the end");
    assert_eq!(driven.held().len(), 5, "not before the confirming read");
    driven.read([]);
    assert!(driven.held().is_empty());
    assert_eq!(driven.publisher.stats().suppressed, 1);
}

/// T04.
#[tokio::test(start_paused = true)]
async fn a_loss_that_the_next_read_takes_back_removes_nobody() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([1, 2]);
    driven.pass(ms(200)).await;
    assert_eq!(
        (driven.listed(), driven.held()),
        (vec![1, 2], vec![3, 4, 5])
    );
    driven.read(1..=5);
    assert_eq!(
        (driven.listed(), driven.held()),
        (vec![1, 2, 3, 4, 5], vec![])
    );
    driven.pass(s(300)).await;
    assert_eq!(driven.listed().len(), 5);
    assert_eq!(driven.publisher.stats().suppressed, 1);
}

/// T05.
#[tokio::test(start_paused = true)]
async fn additions_are_published_at_once_while_removals_are_held() {
    let mut driven = Driven::guarded();
    driven.read(1..=5);
    driven.read([]);
    driven.pass(s(1)).await;
    driven.read([9]);
    assert_eq!(
        (driven.listed(), driven.held()),
        (vec![9], vec![1, 2, 3, 4, 5])
    );
    driven.read([9, 10]);
    assert_eq!(driven.listed(), [9, 10]);
}

/// T08.
#[tokio::test(start_paused = true)]
async fn the_same_set_in_another_order_or_twice_is_no_event() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    let first = driven.subscription.snapshot();
    assert!(driven.changed());
    driven.read([3, 1, 2, 2, 1]);
    assert!(!driven.changed());
    let second = driven.subscription.snapshot();
    assert!(
        first
            .instances()
            .iter()
            .zip(second.instances())
            .all(|(a, b)| a.ptr_eq(b))
    );
    assert_eq!(driven.publisher.stats().duplicates, 2);
}

/// T08.
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
        driven.publisher.set(entries);
        assert_eq!(driven.subscription.snapshot().instances(), [young.clone()]);
    }
    let mut driven = Driven::guarded();
    driven.publisher.set(all.to_vec());
    driven.publisher.set(vec![old.clone(), twin.clone()]);
    assert_eq!(
        driven.subscription.snapshot().instances(),
        [old, twin],
        "no longer one address"
    );
}

/// T09.
#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_blocks_nobody_and_ends_with_the_latest() {
    let mut driven = Driven::guarded();
    let mut slow = driven.publisher.subscribe();
    for n in 1..=1000 {
        driven.read(1..=n);
    }
    assert_eq!(slow.changed().await.expect("open").instances().len(), 1000);
    assert!(!slow.snapshots.has_changed().expect("open"), "no backlog");
}

/// T13.
#[tokio::test(start_paused = true)]
async fn refused_addresses_are_counted_and_the_rest_kept() {
    let mut driven = Driven::guarded();
    let hosts = [
        "169.254.169.254",
        "0.0.0.0",
        "::",
        "unix:/run/x",
        "10.0.0.1",
    ];
    let mut entries: Vec<_> = hosts.iter().map(|host| Instance::new(*host, 80)).collect();
    entries.push(Instance::new("10.0.0.2", 0));
    driven.publisher.set(entries);
    assert_eq!(
        driven.subscription.snapshot().instances(),
        [Instance::new("10.0.0.1", 80)]
    );
    assert_eq!(driven.publisher.stats().refused, 5);
    driven.publisher.set(vec![Instance::new("0.0.0.0", 80)]);
    let snapshot = driven.subscription.snapshot();
    assert_eq!(
        snapshot.instances().len(),
        1,
        "nothing but refused ones is an error"
    );
    assert!(!snapshot.freshness().is_fresh());
}

/// T11.
#[tokio::test(start_paused = true)]
async fn a_set_above_the_cap_is_an_error_and_the_old_one_kept() {
    let mut config = PublisherConfig::new("test", "s");
    config.max_instances = 3;
    let mut driven = Driven::new(config);
    driven.read([1, 2]);
    driven.read(1..=4);
    assert_eq!(driven.listed(), [1, 2]);
    let snapshot = driven.subscription.snapshot();
    let error = snapshot.freshness().error().expect("stale");
    assert!(error.to_string().contains("max_instances = 3"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_single_removal_is_published_within_100_ms_and_not_at_once() {
    let mut driven = Driven::guarded();
    driven.read([1, 2, 3]);
    driven.read([1, 2]);
    assert_eq!(driven.listed(), [1, 2, 3], "waits for what follows");
    driven.pass(ms(100)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![1, 2], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_mass_loss_one_by_one_is_held_like_one_at_once() {
    let at_once = [0];
    let one_by_one: Vec<u16> = (0..100).rev().collect();
    for losses in [&at_once[..], &one_by_one[..]] {
        let mut driven = Driven::guarded();
        driven.read(1..=100);
        for left in losses {
            driven.read(1..=*left);
            driven.pass(ms(10)).await;
        }
        driven.pass(ms(100)).await;
        assert_eq!(driven.held().len(), 100);
        driven.pass(s(100)).await;
        driven.read([]);
        assert_eq!(driven.held().len(), 100, "all of them for the long term");
        driven.pass(s(25)).await;
        driven.read([]);
        assert_eq!(driven.held().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_replacement_loses_none_and_holds_none() {
    let mut driven = Driven::guarded();
    driven.read(0..10);
    for step in 1..=10 {
        driven.read(step..10 + step - 1);
        driven.pass(ms(500)).await;
        assert!(driven.listed().len() >= 9);
        driven.read(step..10 + step);
        driven.pass(ms(500)).await;
        assert_eq!(driven.listed().len(), 10);
    }
    assert!(driven.held().is_empty());
    assert_eq!(driven.publisher.stats().suppressed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_singleton_is_not_held_for_long() {
    let mut driven = Driven::guarded();
    driven.read([1]);
    driven.read([]);
    driven.pass(s(3)).await;
    assert_eq!(driven.held(), [1]);
    driven.read([2]);
    assert_eq!((driven.listed(), driven.held()), (vec![2], vec![1]));
    driven.pass(s(8)).await;
    assert!(driven.n_confirms >= 1);
    driven.read([2]);
    assert!(
        driven.held().is_empty(),
        "the loss is replaced: 10 s, not 2 min"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wiped_registry_that_fills_slowly_keeps_everybody() {
    let mut driven = Driven::guarded();
    driven.read(1..=10);
    driven.read([]);
    driven.pass(s(61)).await;
    for n in 1..=10 {
        driven.read(1..=n);
        driven.pass(s(5)).await;
        assert_eq!(driven.listed().len() + driven.held().len(), 10);
    }
    assert_eq!(driven.listed().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn held_instances_outlast_an_outage() {
    let mut driven = Driven::guarded();
    driven.read(1..=4);
    driven.read([1]);
    driven.pass(s(1)).await;
    driven.publisher.failed(unavailable("gone"));
    driven.pass(s(600)).await;
    assert_eq!(driven.held().len(), 3, "nobody has confirmed the loss");
    driven.read([1]);
    assert!(driven.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_the_guard_every_loss_is_believed() {
    let mut driven = Driven::new(PublisherConfig::new("test", "s").loss(LossPolicy::Accept));
    driven.read(1..=5);
    driven.read([]);
    driven.pass(ms(60)).await;
    assert_eq!((driven.listed(), driven.held()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_changed_payload_is_published_at_once() {
    let mut driven = Driven::guarded();
    driven.read([1, 2]);
    driven
        .publisher
        .set(vec![instance(1), instance(2).with_weight(7)]);
    assert_eq!(driven.subscription.snapshot().instances()[1].weight(), 7);
}

/// go-kit's `TestEndpointCacheErrorAndTimeout`, without a call that triggers it.
#[tokio::test(start_paused = true)]
async fn invalidation_fires_by_timer_and_keeps_the_first_error() {
    let config = PublisherConfig::new("test", "s").stale(StalePolicy::InvalidateAfter(s(10)));
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
    assert_eq!(
        snapshot.freshness().error().expect("stale").to_string(),
        "test follow: first"
    );
    driven.read([1]);
    assert_eq!(driven.listed(), [1], "a good read restores");
    assert!(driven.subscription.snapshot().freshness().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_publisher_never_looks_fresh() {
    let Driven {
        publisher,
        mut subscription,
        ..
    } = Driven::guarded();
    drop(publisher);
    let snapshot = subscription.changed().await.expect("the last word");
    let error = snapshot.freshness().error().expect("not fresh");
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        subscription.changed().await.expect_err("ended").kind(),
        ErrorKind::Closed
    );
}
