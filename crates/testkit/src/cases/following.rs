//! What a subscriber sees.

use futures_util::{FutureExt, future::BoxFuture};
use tower_sd_core::{Freshness, Instancer};

use crate::{
    Fixture,
    scene::{Scene, ids_of, instance, shows, unique},
};

/// Before the registry has answered, that nothing is known; then, that nobody is there.
pub(super) fn subscriber_has_a_snapshot_at_once(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let instancer = fixture.instancer(&unique("empty")).await;
        let mut subscription = instancer.subscribe();
        let snapshot = subscription.snapshot();
        assert_eq!(
            snapshot.revision(),
            0,
            "nothing has been read: {snapshot:?}"
        );
        assert!(!matches!(snapshot.freshness(), Freshness::Stale { .. }));
        let ready = subscription.ready(fixture.visible_bound()).await;
        let snapshot = ready.expect("a well registry answers");
        assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
        assert!(snapshot.instances().is_empty(), "{snapshot:?}");
    }
    .boxed()
}

pub(super) fn late_subscriber_has_the_set_at_once(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let snapshot = scene.instancer.subscribe().snapshot();
        assert_eq!(ids_of(&snapshot), ["a"]);
        assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    }
    .boxed()
}

pub(super) fn two_subscribers_see_the_same(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut second = scene.instancer.subscribe();
        let elsewhere = fixture.instancer(&scene.service).await;
        let mut third = elsewhere.subscribe();
        let _a = scene.register(instance("a", 8001)).await;
        let b = scene.register(instance("b", 8002)).await;
        let snapshot = scene.sees(&["a", "b"]).await;
        for subscription in [&mut second, &mut third] {
            let seen = shows(subscription, &["a", "b"], fixture.visible_bound()).await;
            assert_eq!(seen.instances(), snapshot.instances());
        }
        b.deregister().await.expect("a well registry deregisters");
        for subscription in [&mut scene.subscription, &mut second, &mut third] {
            shows(subscription, &["a"], fixture.visible_bound()).await;
        }
    }
    .boxed()
}
