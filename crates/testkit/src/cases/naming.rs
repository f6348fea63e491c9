//! Names: of services and of instances.

use futures_util::{FutureExt, future::BoxFuture};
use tower_sd_core::{ErrorKind, Instancer, Registrar, Registration, Snapshot};

use crate::{
    Fixture,
    scene::{Scene, gone_bound, instance, unique},
    wait::{shows, shows_that},
};

/// A prefix `svc` that is not bounded shows what belongs to `svc-2`.
pub(super) fn service_does_not_see_one_whose_name_begins_with_its_own(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let name = unique("svc");
        let mut scene = Scene::of(fixture, name.clone()).await;
        let mut others = Vec::new();
        for (n, suffix) in ["-2", "2", "x", ".eu"].into_iter().enumerate() {
            let other = Scene::of(fixture, format!("{name}{suffix}")).await;
            let port = 8100 + u16::try_from(n).expect("few");
            others.push((other.register(instance("other", port)).await, other));
        }
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        scene.finds(&["a"], fixture.visible_bound()).await;
        for (_handle, other) in &mut others {
            other.sees(&["other"]).await;
        }
    }
    .boxed()
}

pub(super) fn service_name_may_be_unicode(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    service_name(fixture, "сервис-服务-ß")
}

pub(super) fn service_name_may_be_of_120_characters(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    const TWENTY: &str = "abcdefghijklmnopqrst";
    async move { service_name(fixture, &TWENTY.repeat(6)).await }.boxed()
}

pub(super) fn service_name_may_have_spaces_and_slashes(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    service_name(fixture, "a b/c?d=e&f#g%41")
}

/// A path of HTTP would lead elsewhere. A registry that cannot hold such a name refuses it.
pub(super) fn service_name_like_a_path_works_or_is_refused(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        for name in ["..", ".", "a/../b", "a/./b", "a//b", "/a", "a/", "%2e%2e", "a%2fb"] {
            let bound = fixture.visible_bound();
            let instancer = fixture.client().instancer(name);
            let mut subscription = instancer.subscribe();
            let answered = |snapshot: &Snapshot| {
                snapshot.freshness().is_synced() || snapshot.freshness().error().is_some()
            };
            let snapshot = shows_that(&mut subscription, "an answer", bound, answered).await;
            let registration = Registration::new(name, instance("a", 8001));
            let registered = fixture.client().registrar().register(registration).await;
            match (snapshot.freshness().error(), registered) {
                (None, Ok(handle)) => {
                    shows(&mut subscription, &["a"], bound).await;
                    handle.deregister().await.expect("a well registry deregisters");
                    shows(&mut subscription, &[], gone_bound(fixture)).await;
                }
                (Some(error), Err(refused)) => {
                    assert_eq!(error.kind(), ErrorKind::Config, "{name:?}: {error:?}");
                    assert_eq!(refused.kind(), ErrorKind::Config, "{name:?}: {refused:?}");
                }
                differ => panic!("followed and registered in different ways: {name:?}: {differ:?}"),
            }
            instancer.close().await;
        }
    }
    .boxed()
}

pub(super) fn instance_id_may_be_unicode(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    instance_id(fixture, "экземпляр-实例-ß")
}

pub(super) fn instance_id_may_be_of_120_characters(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    const TWENTY: &str = "abcdefghijklmnopqrst";
    async move { instance_id(fixture, &TWENTY.repeat(6)).await }.boxed()
}

pub(super) fn instance_id_may_have_spaces_and_slashes(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    instance_id(fixture, "a b/c?d=e&f#g%41")
}

fn service_name<'a>(fixture: &'a dyn Fixture, name: &'a str) -> BoxFuture<'a, ()> {
    async move {
        let mut scene = Scene::of(fixture, unique(name)).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        handle.deregister().await.expect("a well registry deregisters");
        scene.finds(&[], gone_bound(fixture)).await;
    }
    .boxed()
}

/// Seen, kept up for longer than the TTL, and gone: whatever takes the id apart would fail at one
/// of them.
fn instance_id<'a>(fixture: &'a dyn Fixture, id: &'a str) -> BoxFuture<'a, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance(id, 8001)).await;
        scene.sees(&[id]).await;
        tokio::time::sleep(fixture.ttl() * 3 / 2).await;
        scene.finds(&[id], fixture.visible_bound()).await;
        handle.deregister().await.expect("a well registry deregisters");
        scene.finds(&[], gone_bound(fixture)).await;
    }
    .boxed()
}
