//! Registrations over time: updates and losses.

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    join, select,
    time::{sleep, timeout},
};
use tower_sd_core::RegistrationState;

use crate::{
    Fixture,
    scene::{Scene, instance},
};

pub(super) fn update_is_seen_without_a_gap(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001).with_weight(10)).await;
        scene.sees(&["a"]).await;
        let updated = handle.update(|instance| instance.with_weight(90));
        let seen = scene.sees_that("a with weight 90", |snapshot| {
            let instances = snapshot.instances();
            assert_eq!(instances.len(), 1, "a gap: {snapshot:?}");
            instances[0].weight() == 90
        });
        let (updated, _seen) = join!(updated, seen);
        updated.expect("a well registry takes an update");
    }
    .boxed()
}

/// A lease that was lost is granted anew.
pub(super) fn expired_entry_comes_back(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.expire(&scene.service, handle.id()).await;
        // A new follower can only see an entry that was announced after the expiry.
        scene.finds(&["a"], fixture.reannounce_bound()).await;
        scene.sees(&["a"]).await;
    }
    .boxed()
}

pub(super) fn update_survives_the_loss_of_the_entry(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001).with_weight(10)).await;
        scene.sees(&["a"]).await;
        let updated = handle.update(|instance| instance.with_weight(90));
        updated.await.expect("a well registry takes an update");
        fixture.expire(&scene.service, handle.id()).await;
        let snapshot = scene.finds(&["a"], fixture.reannounce_bound()).await;
        assert_eq!(snapshot.instances()[0].weight(), 90, "{snapshot:?}");
    }
    .boxed()
}

/// The registry keeps the entry as it accepted it last, and the registration goes on.
pub(super) fn refused_update_keeps_the_registration(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001).with_weight(10)).await;
        scene.sees(&["a"]).await;
        handle.update(|it| it.with_weight(90)).await.expect("a well registry takes an update");
        scene
            .sees_that("a with weight 90", |it| {
                it.instances().first().is_some_and(|a| a.weight() == 90)
            })
            .await;
        let large = "x".repeat(fixture.refused_metadata());
        let large = handle.update(|it| it.with_weight(20).with_metadata("large", large));
        let error = large.await.expect_err("no registry takes as much");
        assert!(!error.is_transient(), "{error:?}");
        let watched = timeout(fixture.ttl() * 3, async {
            loop {
                let snapshot = scene.subscription.changed().await.expect("the loop lives");
                let [a] = snapshot.instances() else { panic!("a gap: {snapshot:#?}") };
                assert_eq!(a.weight(), 90, "{snapshot:#?}");
            }
        });
        watched.await.expect_err("it watches to the end");
        assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
        assert_eq!(handle.stats().lost, 0);
        let snapshot = scene.finds(&["a"], fixture.visible_bound()).await;
        assert_eq!(snapshot.instances()[0].weight(), 90, "{snapshot:?}");
        handle.update(|it| it.with_weight(30)).await.expect("a well registry takes an update");
        scene
            .sees_that("a with weight 30", |it| {
                it.instances().first().is_some_and(|a| a.weight() == 30)
            })
            .await;
    }
    .boxed()
}

/// An update need not renew the lease, and postpones no renewal.
pub(super) fn updates_every_tenth_of_the_ttl_are_without_a_gap(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let updates = async {
            for weight in 1..=40 {
                sleep(fixture.ttl() / 10).await;
                let updated = handle.update(move |it| it.with_weight(weight));
                updated.await.expect("a well registry takes an update");
            }
        };
        let watched = async {
            loop {
                let snapshot = scene.subscription.changed().await.expect("the loop lives");
                assert_eq!(snapshot.instances().len(), 1, "a gap: {snapshot:#?}");
            }
        };
        select! {
            () = updates => {}
            () = watched => {}
        }
        scene
            .sees_that("a with the last weight", |it| {
                it.instances().first().is_some_and(|a| a.weight() == 40)
            })
            .await;
        let stats = handle.stats();
        assert_eq!((stats.announced, stats.lost), (41, 0), "{stats:?}");
        assert!(stats.renewed >= 8, "four times the TTL: {stats:?}");
    }
    .boxed()
}
