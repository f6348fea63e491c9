//! Two registrations with one id: a process and its successor, whose lives overlap.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use tower_sd_core::{
    ErrorKind, InstanceStatus, Registrar, RegistrationHandle, RegistrationState, Snapshot,
};

use crate::{
    Fixture,
    scene::{Scene, instance},
};

/// The predecessor has not noticed its successor yet.
pub(super) fn predecessor_that_leaves_last_takes_nothing_away(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let Pair { mut scene, first, second } = Pair::new(fixture).await;
        first.deregister().await.expect("nothing to remove is success");
        stays(&mut scene, is_the_second, fixture.ttl() * 2).await;
        is_undisturbed(&second, 0);
        second.deregister().await.expect("a well registry deregisters");
        scene.sees_nobody().await;
    }
    .boxed()
}

/// A server that drains sets its status to draining before it deregisters.
pub(super) fn predecessor_that_updates_takes_nothing_away(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let Pair { mut scene, first, second } = Pair::new(fixture).await;
        let draining = first.update(|it| it.with_status(InstanceStatus::Draining).with_weight(1));
        let error = draining.await.expect_err("the entry is the successor's");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        stays(&mut scene, is_the_second, fixture.ttl()).await;
        first.deregister().await.expect("nothing to remove is success");
        stays(&mut scene, is_the_second, fixture.ttl()).await;
        is_undisturbed(&second, 0);
    }
    .boxed()
}

pub(super) fn predecessor_observes_its_successor(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let Pair { mut scene, mut first, second } = Pair::new(fixture).await;
        is_taken_over(fixture, &mut first).await;
        stays(&mut scene, is_the_second, fixture.ttl() * 2).await;
        assert_eq!(first.stats().lost, 1, "one loss, and no fight");
        assert!(matches!(first.state(), RegistrationState::TakenOver { .. }), "{first:?}");
        is_undisturbed(&second, 0);
    }
    .boxed()
}

pub(super) fn predecessor_is_back_when_its_successor_is_gone(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let Pair { mut scene, mut first, second } = Pair::new(fixture).await;
        is_taken_over(fixture, &mut first).await;
        second.deregister().await.expect("a well registry deregisters");
        let bound = fixture.ttl() / 3 + fixture.reannounce_bound();
        first.registered(bound).await.expect("the entry is free");
        scene.sees_that("the predecessor", is_the_first).await;
        // A registry may keep an entry that is not renewed for twice its TTL.
        stays(&mut scene, is_the_first, fixture.ttl() * 3).await;
        is_undisturbed(&first, 1);
    }
    .boxed()
}

/// Two registrations of one id, made by two registrars as by two processes.
struct Pair<'a> {
    scene: Scene<'a>,
    first: RegistrationHandle,
    second: RegistrationHandle,
}

impl<'a> Pair<'a> {
    async fn new(fixture: &'a dyn Fixture) -> Self {
        let mut scene = Scene::new(fixture).await;
        let first = scene.register(instance("a", 8001).with_weight(FIRST_WEIGHT)).await;
        scene.sees(&["a"]).await;
        let successor = scene.registration(instance("a", 8001).with_weight(SECOND_WEIGHT));
        let second = fixture.client().registrar().register(successor).await;
        let second = second.expect("a successor takes over");
        scene.sees_that("the successor", is_the_second).await;
        Self { scene, first, second }
    }
}

async fn is_taken_over(fixture: &dyn Fixture, handle: &mut RegistrationHandle) {
    let taken = timeout(fixture.ttl() + fixture.reannounce_bound(), async {
        loop {
            if let RegistrationState::TakenOver { by } = handle.state() {
                return by;
            }
            handle.changed().await;
        }
    });
    let by = taken.await.unwrap_or_else(|_| panic!("not observed within a TTL: {handle:?}"));
    assert!(!by.is_empty());
}

/// This entry, and nothing else, is there all the time.
async fn stays(scene: &mut Scene<'_>, is_it: fn(&Snapshot) -> bool, time: Duration) {
    let watched = timeout(time, async {
        loop {
            let snapshot = scene.subscription.changed().await.expect("the loop lives");
            assert!(is_it(&snapshot), "{snapshot:#?}");
        }
    });
    watched.await.expect_err("it watches to the end");
    let snapshot = scene.look().await;
    assert!(is_it(&snapshot), "{snapshot:#?}");
}

fn is_undisturbed(handle: &RegistrationHandle, n_lost: u64) {
    assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
    assert_eq!(handle.stats().lost, n_lost);
}

fn is_the_first(snapshot: &Snapshot) -> bool {
    is_passing(snapshot, FIRST_WEIGHT)
}

fn is_the_second(snapshot: &Snapshot) -> bool {
    is_passing(snapshot, SECOND_WEIGHT)
}

fn is_passing(snapshot: &Snapshot, weight: u32) -> bool {
    matches!(snapshot.instances(), [it] if it.weight() == weight && it.status() == InstanceStatus::Passing)
}

const FIRST_WEIGHT: u32 = 10;
const SECOND_WEIGHT: u32 = 90;
