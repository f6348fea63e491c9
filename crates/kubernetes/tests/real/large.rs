//! Large Services, and a large namespace.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_sd_core::{Snapshot, Subscription};
use tower_sd_testkit::{usage::resident_kib, wait::shows_that};

use crate::{
    scene::{RECOVERED, Scene, note, shows_now},
    support::{Condition, endpoint, slice},
};

/// A slice with as many endpoints as it may have.
fn full_slice(service: &str, n: u32) -> Value {
    let one = |i: u32| {
        let address = format!("10.{n}.{}.{}", i / 250, i % 250 + 1);
        endpoint(&format!("pod-{n}-{i:04}"), &address, Condition::Ready)
    };
    slice(service, &format!("{service}-{n}"), 80, &(0..1000).map(one).collect::<Vec<_>>())
}

async fn has(subscription: &mut Subscription, n: usize) -> Snapshot {
    let accepting =
        |it: &Snapshot| it.instances().iter().filter(|it| it.accepts_requests()).count();
    let wanted = |it: &Snapshot| accepting(it) == n;
    shows_that(subscription, &format!("{n} that accept requests"), RECOVERED, wanted).await
}

/// For a busy machine.
const PUBLISHED: Duration = Duration::from_secs(1);

/// The half of some changes that a busy machine delays least; a development build is slower.
const FASTER_HALF: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });

/// What a removal waits for others.
const REMOVAL_WAIT: Duration = Duration::from_millis(50);

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn change_in_one_of_three_full_slices_is_published_once() {
    let scene = Scene::new().await;
    for n in 1..=3 {
        scene.apply(&full_slice("orders", n)).await;
    }
    let mut orders = scene.follow("orders");
    has(&mut orders, 3000).await;
    let mut changed = full_slice("orders", 2);
    changed["endpoints"][500]["conditions"] = json!({ "ready": false, "serving": false });
    let (mut removals, mut additions) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        for (slice, n, times) in
            [(&changed, 2999, &mut removals), (&full_slice("orders", 2), 3000, &mut additions)]
        {
            let (before, n_updates) = (orders.snapshot(), orders.stats().updates);
            scene.apply(slice).await;
            let answered = Instant::now();
            let after = has(&mut orders, n).await;
            times.push(answered.elapsed());
            assert_eq!(after.revision(), before.revision() + 1);
            assert_eq!(orders.stats().updates, n_updates + 1);
            // The loop publishes ten times a second at most.
            sleep(Duration::from_millis(300)).await;
        }
    }
    removals.sort();
    additions.sort();
    note(&format!("of 3 000 endpoints one is ready: {additions:?}; is not: {removals:?}"));
    assert!(additions[3] < FASTER_HALF, "{additions:?}");
    assert!(removals[3] < FASTER_HALF + REMOVAL_WAIT, "{removals:?}");
}

/// The loop publishes ten times a second at most: what has come meanwhile is one set.
#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn burst_of_changes_is_published_without_a_backlog() {
    let scene = Scene::new().await;
    scene.lists("orders", &["a"]).await;
    let mut orders = scene.follow("orders");
    shows_now(&mut orders, &["a"]).await;
    for _ in 0..50 {
        for pods in [["a", "b"], ["a", "c"]] {
            scene.lists("orders", &pods).await;
        }
    }
    scene.lists("orders", &["a", "d"]).await;
    let answered = Instant::now();
    shows_now(&mut orders, &["a", "d"]).await;
    let (took, n_updates) = (answered.elapsed(), orders.stats().updates);
    note(&format!("the last of 101 changes: seen after {took:?}, in {n_updates} updates"));
    assert!(took < PUBLISHED, "{took:?}");
}

mod slow {
    use super::*;

    /// What is not followed is read and dropped.
    #[tokio::test]
    #[ignore = "slow: writes 10 000 slices"]
    async fn slices_of_other_services_take_no_memory() {
        const N_FOLLOWED: usize = 100;
        let scene = Scene::new().await;
        let pod = |n: u32, i: u32| {
            let address = format!("10.{}.{}.{}", n / 250, n % 250, i + 1);
            endpoint(&format!("pod-{n}-{i}"), &address, Condition::Ready)
        };
        let one = |n: u32| {
            let endpoints: Vec<_> = (0..10).map(|i| pod(n, i)).collect();
            slice(&format!("s{n}"), &format!("s{n}-1"), 80, &endpoints)
        };
        let create = |n: u32| {
            let (api, slice) = (scene.api.clone(), one(n));
            async move { api.create(&slice).await }
        };
        let start = Instant::now();
        let written = stream::iter((0..10_000).map(create)).buffer_unordered(32);
        let written: Vec<_> = written.try_collect().await.expect("a well server takes slices");
        drop(written);
        note(&format!("10 000 slices written in {:?}", start.elapsed()));
        let (before, start) = (resident_kib().expect("Linux"), Instant::now());
        let mut followed: Vec<_> =
            (0..N_FOLLOWED).map(|n| scene.follow(&format!("s{n}"))).collect();
        for subscription in &mut followed {
            has(subscription, 10).await;
        }
        let (kib, took) = (resident_kib().expect("Linux").saturating_sub(before), start.elapsed());
        note(&format!("{N_FOLLOWED} services among 10 000 slices: {took:?}, {kib} KiB"));
        assert!(kib < 64 << 10, "{kib} KiB");
        scene.lists("s0", &["a"]).await;
        shows_now(&mut followed[0], &["a"]).await;
    }
}
