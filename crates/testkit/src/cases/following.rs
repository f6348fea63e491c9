//! What a subscriber sees.

use std::{collections::VecDeque, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::time::sleep;
use tower_sd_core::{
    Freshness, Instance, InstanceStatus, Instancer, Registrar, Registration, Snapshot,
};

use crate::{
    Fixture,
    scene::{Scene, instance, unique},
    wait::{ids_of, shows, shows_that},
};

/// Unknown before the registry has answered, then empty.
pub(super) fn subscriber_has_a_snapshot_immediately(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let instancer = fixture.client().instancer(&unique("empty"));
        let mut subscription = instancer.subscribe();
        let snapshot = subscription.snapshot();
        assert_eq!(snapshot.revision(), 0, "nothing has been read: {snapshot:?}");
        assert!(!matches!(snapshot.freshness(), Freshness::Stale { .. }));
        let ready = subscription.ready(fixture.visible_bound()).await;
        let snapshot = ready.expect("a well registry answers");
        assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
        assert!(snapshot.instances().is_empty(), "{snapshot:?}");
    }
    .boxed()
}

pub(super) fn late_subscriber_has_the_set_immediately(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
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
        let elsewhere = fixture.client().instancer(&scene.service);
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

/// A change that a slow reader missed is never lost to it.
pub(super) fn subscriber_that_never_reads_blocks_no_other(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut slow = scene.instancer.subscribe();
        let ids: Vec<String> = (10..20).map(|n| format!("i{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut handles = Vec::new();
        for (id, port) in ids.iter().zip(8001..) {
            handles.push(scene.register(instance(id, port)).await);
            // Longer than the loop's rate limit: each of them is a snapshot.
            sleep(Duration::from_millis(120)).await;
        }
        scene.sees(&ids).await;
        let latest = slow.changed().await.expect("the loop lives");
        assert_eq!(ids_of(&latest), ids, "its first read is the latest state");
    }
    .boxed()
}

pub(super) fn subscription_outlives_its_instancer(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let scene = Scene::new(fixture).await;
        let Scene { service, registrar, instancer, mut subscription, .. } = scene;
        drop(instancer);
        let registration = Registration::new(service, instance("a", 8001));
        let registered = registrar.register(registration).await;
        let _a = registered.expect("a well registry accepts a registration");
        shows(&mut subscription, &["a"], fixture.visible_bound()).await;
    }
    .boxed()
}

/// One of them is kept, the same for all subscribers, and the other takes its place.
pub(super) fn one_of_two_with_the_same_address_is_seen(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut handles = vec![
            scene.register(instance("a", 8001)).await,
            scene.register(instance("b", 8001)).await,
        ];
        let seen = scene.sees_that("one of the two", |snapshot| snapshot.instances().len() == 1);
        let kept = seen.await.instances()[0].id().clone();
        let look = scene.look().await;
        assert_eq!(ids_of(&look), [kept.as_str()], "for all subscribers");
        let place = handles.iter().position(|handle| *handle.id() == kept);
        let first = handles.remove(place.expect("one of the two"));
        first.deregister().await.expect("a well registry deregisters");
        let other = handles[0].id().to_string();
        scene.sees(&[&other]).await;
    }
    .boxed()
}

/// A process that was draining when it was killed leaves its entry until the TTL ends; its
/// successor has another id.
pub(super) fn remains_that_drain_hide_no_live_instance(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _remains =
            scene.register(instance("a", 8001).with_status(InstanceStatus::Draining)).await;
        let _live = scene.register(instance("b", 8001)).await;
        scene.sees(&["b"]).await;
        assert_eq!(ids_of(&scene.look().await), ["b"], "for every subscriber");
    }
    .boxed()
}

/// Whatever keeps the registry from answering, no subscriber takes an old set for a current one.
pub(super) fn hung_registry_is_stale_within_its_bound(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        let seen = scene.sees(&["a"]).await;
        let read_at = seen.as_of().expect("a set was read");
        fixture.freeze().await;
        let stale = |snapshot: &Snapshot| !snapshot.freshness().is_fresh();
        let bound = fixture.silence_bound();
        let last = shows_that(&mut scene.subscription, "stale", bound, stale).await;
        assert_eq!(ids_of(&last), ["a"]);
        assert!(last.as_of() >= Some(read_at), "{last:?}");
    }
    .boxed()
}

/// Endpoints that fail request a look at the registry: no error, no resync, and the watch goes on.
pub(super) fn nudges_of_a_dead_instance_break_no_watch(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let before = scene.subscription.stats();
        for _ in 0..40 {
            scene.subscription.refresh();
            sleep(Duration::from_millis(100)).await;
        }
        let after = scene.subscription.stats();
        assert_eq!((after.errors, after.resyncs), (before.errors, before.resyncs));
        assert!(scene.subscription.snapshot().freshness().is_fresh());
        let _b = scene.register(instance("b", 8002)).await;
        scene.sees(&["a", "b"]).await;
    }
    .boxed()
}

/// With jitter, and rarer the longer they go on.
pub(super) fn nudges_of_a_dead_instance_cost_one_read_a_second(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let Some(start) = fixture.n_reads().await else {
            return;
        };
        sleep(Duration::from_secs(SECONDS)).await;
        // Blocking queries and renewals, which go on beside the nudges.
        let n_reads = async || fixture.n_reads().await.expect("counted as before");
        let n_idle = n_reads().await - start;
        for _ in 0..SECONDS * 20 {
            scene.subscription.refresh();
            sleep(Duration::from_millis(50)).await;
        }
        let n_nudged = n_reads().await - start - n_idle;
        assert!(
            (n_idle.max(1)..=n_idle + SECONDS).contains(&n_nudged),
            "{n_nudged} reads beside {n_idle}"
        );
    }
    .boxed()
}

/// The whole set, however large; and each as it was sent.
pub(super) fn thousand_instances_are_seen(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let registrar = fixture.client_of_many().registrar();
        let register = |n: u16| {
            let host = format!("10.0.{}.{}", n / 200, n % 200 + 1);
            let instance = Instance::new(host, 8001).with_id(format!("i{n:04}"));
            registrar.register(scene.registration(instance).fail_fast(MANY_BOUND))
        };
        let handles = stream::iter((0..THOUSAND).map(register)).buffer_unordered(AT_ONCE);
        let handles: Vec<_> = handles.try_collect().await.expect("a well registry accepts them");
        let all = |snapshot: &Snapshot| snapshot.instances().len() == handles.len();
        let snapshot = shows_that(&mut scene.subscription, "all", MANY_BOUND, all).await;
        assert_eq!(snapshot.instances()[999].to_string(), "10.0.4.200:8001");
        let again = scene.look_within(MANY_BOUND).await.0;
        assert_eq!(again.instances(), snapshot.instances());
        // So that the next case finds the registry idle.
        registrar.close().await;
    }
    .boxed()
}

/// As in a deployment: never fewer than before, and no instance held at its end.
pub(super) fn rolling_replacement_loses_no_instance(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut handles = VecDeque::new();
        for port in 8001..=8004 {
            handles.push_back(scene.register(instance(&format!("i{port}"), port)).await);
        }
        scene.sees(&["i8001", "i8002", "i8003", "i8004"]).await;
        for port in 8005..=8008 {
            let id = format!("i{port}");
            handles.push_back(scene.register(instance(&id, port)).await);
            let old = handles.pop_front().expect("four of them");
            old.deregister().await.expect("a well registry deregisters");
            let replaced = |snapshot: &Snapshot| {
                assert!(snapshot.known().count() >= 4, "{snapshot:#?}");
                ids_of(snapshot).contains(&id.as_str()) && snapshot.instances().len() == 4
            };
            scene.sees_that(&id, replaced).await;
        }
        let snapshot = scene.sees(&["i8005", "i8006", "i8007", "i8008"]).await;
        assert!(snapshot.held().is_empty(), "{snapshot:#?}");
    }
    .boxed()
}

/// For which instances request reads.
const SECONDS: u64 = 6;
const THOUSAND: u16 = 1000;
/// For a registry on a busy machine.
const MANY_BOUND: Duration = Duration::from_secs(60);
/// Registrations that are under way together: few enough for the slowest registry to answer each.
const AT_ONCE: usize = 8;
