//! What happens to a registration over time: updates, losses, health.

use futures_util::{FutureExt, future::BoxFuture};
use tokio::join;

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

/// anchors.md §2.4 no. 3: a lease that was lost is granted anew.
pub(super) fn expired_entry_comes_back(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.expire(&scene.service, handle.id()).await;
        // Whoever has never asked before can only see what was announced after the expiry.
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
