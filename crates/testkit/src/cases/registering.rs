//! What a registration does, and what is left when it ends.

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use tower_sd_core::RegistrationState;

use crate::{
    Fixture,
    scene::{Scene, instance},
    wait::ids_of,
};

pub(super) fn registered_instance_is_seen(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
        let snapshot = scene.sees(&["a"]).await;
        assert_eq!(snapshot.instances()[0].to_string(), "10.0.0.1:8001");
        assert!(snapshot.held().is_empty(), "{snapshot:?}");
    }
    .boxed()
}

pub(super) fn deregistered_instance_is_gone(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        handle.deregister().await.expect("a well registry deregisters");
        scene.sees_nobody().await;
        scene.is_deserted().await;
    }
    .boxed()
}

pub(super) fn dropped_handle_deregisters(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        drop(handle);
        scene.sees_nobody().await;
    }
    .boxed()
}

/// Two services of one process must not take each other's check.
pub(super) fn registrations_of_one_registrar_are_independent(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let a = scene.register(instance("a", 8001)).await;
        let b = scene.register(instance("b", 8002)).await;
        scene.sees(&["a", "b"]).await;
        a.deregister().await.expect("a well registry deregisters");
        // Longer than the TTL: the renewals of `b` have not ended with those of `a`.
        let watched = timeout(fixture.ttl() * 2, async {
            loop {
                let snapshot = scene.subscription.changed().await.expect("the loop lives");
                assert!(ids_of(&snapshot).contains(&"b"), "{snapshot:#?}");
            }
        });
        watched.await.expect_err("it watches to the end");
        assert!(matches!(b.state(), RegistrationState::Registered), "{b:?}");
        scene.finds(&["b"], fixture.visible_bound()).await;
    }
    .boxed()
}

pub(super) fn deregistering_an_entry_that_is_gone_succeeds(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.expire(&scene.service, handle.id()).await;
        handle.deregister().await.expect("nothing left is success");
        scene.finds(&[], fixture.visible_bound()).await;
    }
    .boxed()
}

pub(super) fn id_registered_twice_is_one_entry(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let first = scene.register(instance("a", 8001)).await;
        let second = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let (snapshot, stats) = scene.look_closely().await;
        assert_eq!((ids_of(&snapshot), stats.duplicates), (vec!["a"], 0));
        second.deregister().await.expect("a well registry deregisters");
        first.deregister().await.expect("nothing left is success");
        scene.finds(&[], fixture.visible_bound()).await;
    }
    .boxed()
}
