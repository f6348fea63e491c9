use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};

use super::*;
use crate::{Error, ErrorKind, Freshness, Instance, Publisher, ReadMode, RegistryConfig, Sink};

struct All(Publisher);

impl All {
    fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut all = Self(Publisher::new("test", "test", RegistryConfig::default()));
        all.set(ports);
        all
    }

    fn set(&mut self, ports: impl IntoIterator<Item = u16>) {
        let all = ports.into_iter().map(|port| Instance::new("10.0.0.1", port));
        self.0.set(all.collect::<Vec<_>>().into());
    }
}

impl Instancer for All {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

/// Those with a port below 100.
fn low(all: &All) -> FilteredInstancer {
    FilteredInstancer::new(all, |snapshot| snapshot.retain(|instance| instance.port() < 100))
}

fn ports(instances: &[Instance]) -> Vec<u16> {
    instances.iter().map(Instance::port).collect()
}

/// What proves the other set proves nothing of the shown one.
async fn ages(all: &mut All, shown: &Subscription) {
    let as_of = shown.snapshot().as_of();
    advance(Duration::from_secs(10)).await;
    all.0.unchanged(ReadMode::Full);
    assert!(as_of.is_some() && shown.snapshot().as_of() == as_of, "{as_of:?}");
}

#[tokio::test(start_paused = true)]
async fn only_what_the_filter_lets_through_is_shown_and_wakes() {
    let mut all = All::new([1, 2, 200]);
    let mut shown = low(&all).subscribe();
    assert_eq!(ports(shown.snapshot().instances()), [1, 2]);
    assert_eq!(shown.snapshot().revision(), 1);
    all.set([1, 2, 200, 300]);
    timeout(Duration::from_secs(1), shown.changed()).await.expect_err("nothing of its own changed");
    all.set([1, 2, 3, 200, 300]);
    let snapshot = shown.changed().await.expect("one has come");
    assert_eq!((ports(snapshot.instances()), snapshot.revision()), (vec![1, 2, 3], 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stays_held_and_what_is_stale_stays_stale() {
    let mut all = All::new([1, 2, 200]);
    let mut shown = low(&all).subscribe();
    all.set([]);
    let _confirm = timeout(Duration::from_secs(1), all.0.due()).await;
    let snapshot = shown.changed().await.expect("a loss");
    assert!(snapshot.instances().is_empty());
    assert_eq!(ports(snapshot.held()), [1, 2]);
    all.0.failed(Error::new(ErrorKind::Unavailable, "test", "follow"));
    let snapshot = shown.changed().await.expect("trouble");
    assert!(matches!(snapshot.freshness(), Freshness::Stale { .. }));
    assert_eq!(ports(snapshot.held()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn refresh_is_passed_on() {
    let all = All::new([1]);
    low(&all).subscribe().refresh();
    timeout(Duration::from_secs(1), all.0.refresh_requested()).await.expect("passed on");
}

#[tokio::test(start_paused = true)]
async fn its_end_is_that_of_its_last_handle_and_of_the_other_one() {
    let all = All::new([1]);
    let filtered = low(&all);
    let mut shown = filtered.subscribe();
    drop(filtered);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(all.0.n_subscribers(), 1);
    drop(shown);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(all.0.n_subscribers(), 0);

    shown = low(&all).subscribe();
    drop(all);
    let last = shown.changed().await.expect("its last word");
    assert_eq!(last.freshness().error().map(Error::kind), Some(ErrorKind::Closed));
    assert_eq!(ports(last.instances()), [1]);
    shown.changed().await.expect_err("it has ended");
}

#[tokio::test(start_paused = true)]
async fn filter_that_panics_is_stale_until_it_works_again() {
    let mut all = All::new([1]);
    let filter = |snapshot: &Snapshot| {
        assert!(snapshot.instances().len() != 2, "a bug of the user");
        snapshot.clone()
    };
    let mut shown = FilteredInstancer::new(&all, filter).subscribe();
    all.set([1, 2]);
    let snapshot = shown.changed().await.expect("stale");
    assert!(snapshot.freshness().error().is_some(), "{snapshot:?}");
    assert_eq!(ports(snapshot.instances()), [1]);
    ages(&mut all, &shown).await;
    all.set([1, 2, 3]);
    let snapshot = shown.changed().await.expect("works again");
    assert!(snapshot.freshness().is_fresh());
    assert_eq!(snapshot.as_of(), Some(Instant::now()));
    advance(Duration::from_secs(10)).await;
    all.0.unchanged(ReadMode::Full);
    assert_eq!(snapshot.as_of(), Some(Instant::now()), "live");
    assert_eq!(ports(snapshot.instances()), [1, 2, 3]);
    let never = FilteredInstancer::new(&All::new([1, 2]), filter).subscribe().snapshot();
    assert!(!never.freshness().is_synced() && never.freshness().error().is_some());
}

#[tokio::test(start_paused = true)]
async fn closed_filter_is_stale() {
    let mut all = All::new([1]);
    let filtered = low(&all);
    let shown = filtered.subscribe();
    filtered.close().await;
    ages(&mut all, &shown).await;
    let snapshot = shown.snapshot();
    assert_eq!(snapshot.freshness().error().map(Error::kind), Some(ErrorKind::Closed));
    assert_eq!(ports(snapshot.instances()), [1]);
}
