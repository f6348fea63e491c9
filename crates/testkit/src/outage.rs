//! The outage axis: what holds while the registry is away, and when it is back.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep};
use tower_sd_core::{Freshness, Instancer, Registrar, Registration, RegistrationState, Snapshot};

use crate::{
    Clock, Fixture,
    scene::{Scene, instance, unique},
    wait::{ids_of, shows_that},
};

/// An outage changes the freshness, and nothing else.
pub(crate) fn outage_keeps_the_set_and_marks_it_stale(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let (scene, _handles) = interrupted_pair(fixture, &[]).await;
        let snapshot = scene.subscription.snapshot();
        assert_eq!(ids_of(&snapshot), ["a", "b"]);
        let Freshness::Stale { since, error } = snapshot.freshness() else {
            panic!("not stale: {snapshot:#?}");
        };
        assert!(since.elapsed() < fixture.visible_bound() * 2);
        assert!(error.is_transient(), "{error:?}");
    }
    .boxed()
}

/// A subscription that begins during an outage has the last set, which is stale.
pub(crate) fn subscriber_during_an_outage_has_the_last_set(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let (scene, _handles) = interrupted_pair(fixture, &[]).await;
        let snapshot = scene.instancer.subscribe().snapshot();
        assert_eq!(ids_of(&snapshot), ["a", "b"]);
        assert!(matches!(snapshot.freshness(), Freshness::Stale { .. }), "{snapshot:#?}");
    }
    .boxed()
}

/// No instance is lost: a registry that comes back empty is filled before the loss is accepted.
pub(crate) fn recovery_is_fresh_and_complete(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let (mut scene, _handles) = interrupted_pair(fixture, &[]).await;
        fixture.resume().await;
        let recovered = |snapshot: &Snapshot| {
            assert_eq!(snapshot.known().count(), 2, "{snapshot:#?}");
            snapshot.freshness().is_fresh() && snapshot.instances().len() == 2
        };
        let subscription = &mut scene.subscription;
        shows_that(subscription, "fresh", RECOVERY_BOUND, recovered).await;
        // A removal would take effect by now.
        sleep(Duration::from_secs(1)).await;
        let snapshot = shows_that(subscription, "fresh", RECOVERY_BOUND, recovered).await;
        assert_eq!(ids_of(&snapshot), ["a", "b"]);
    }
    .boxed()
}

/// The first set after an outage may lack what is about to be announced again: nothing of it is
/// given up unconfirmed, and all of it that a later read confirms.
pub(crate) fn instance_that_the_recovery_lacks_is_kept(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let (mut scene, mut handles) = interrupted_pair(fixture, &["c"]).await;
        // It cannot be known whether it reaches the registry; the entry ends either way.
        let _unknown = handles.pop().expect("c").deregister().await;
        fixture.expire(&scene.service, &"c".into()).await;
        fixture.resume().await;
        let fresh = |snapshot: &Snapshot| {
            assert_eq!(snapshot.known().count(), 3, "{snapshot:#?}");
            snapshot.freshness().is_fresh()
        };
        shows_that(&mut scene.subscription, "fresh", RECOVERY_BOUND, fresh).await;
        // A removal would take effect by now.
        sleep(SHORT).await;
        let snapshot = scene.subscription.snapshot();
        assert_eq!(snapshot.known().count(), 3, "{snapshot:#?}");
        let released = |snapshot: &Snapshot| snapshot.known().count() == 2;
        shows_that(&mut scene.subscription, "c is released", RELEASE_BOUND, released).await;
    }
    .boxed()
}

/// The watch is made again, and the changes that it missed are read.
pub(crate) fn changes_after_an_outage_are_seen(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let (mut scene, handles) = interrupted_pair(fixture, &[]).await;
        fixture.resume().await;
        let newcomer = fixture.client().registrar();
        let registration = scene.registration(instance("c", 8003)).fail_fast(RECOVERY_BOUND);
        let _c = newcomer.register(registration).await.expect("the registry is back");
        let all = |snapshot: &Snapshot| ids_of(snapshot) == ["a", "b", "c"];
        shows_that(&mut scene.subscription, "a, b and c", RECOVERY_BOUND, all).await;
        drop(handles);
        let left = |snapshot: &Snapshot| ids_of(snapshot) == ["c"];
        shows_that(&mut scene.subscription, "c alone", RECOVERY_BOUND, left).await;
    }
    .boxed()
}

/// A removal during an outage.
pub(crate) fn instance_that_left_during_the_outage_is_gone_after_it(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        let leaving = scene.registration(instance("b", 8002)).deregister_timeout(SHORT);
        let b = scene.registrar.register(leaving).await;
        let b = b.expect("a well registry accepts a registration");
        scene.sees(&["a", "b"]).await;
        fixture.interrupt().await;
        is_stale(&mut scene, fixture).await;
        // It may or may not reach the registry; its TTL does.
        let _unknown = b.deregister().await;
        fixture.resume().await;
        let bound = RECOVERY_BOUND + fixture.ttl() * 2;
        let left =
            |snapshot: &Snapshot| ids_of(snapshot) == ["a"] && snapshot.freshness().is_fresh();
        shows_that(&mut scene.subscription, "a alone", bound, left).await;
    }
    .boxed()
}

/// Giving up after some attempts is the most-reported bug of the field.
pub(crate) fn registration_is_back_after_an_outage_of_three_ttls(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.interrupt().await;
        sleep(fixture.ttl() * 3).await;
        assert!(matches!(handle.state(), RegistrationState::Lost { .. }), "{handle:?}");
        fixture.resume().await;
        scene.finds(&["a"], back_bound(fixture)).await;
        handle.registered(back_bound(fixture)).await.expect("registered");
        let fresh =
            |snapshot: &Snapshot| ids_of(snapshot) == ["a"] && snapshot.freshness().is_fresh();
        shows_that(&mut scene.subscription, "a, fresh", RECOVERY_BOUND, fresh).await;
        let stats = scene.subscription.stats();
        assert_eq!(stats.duplicates, 0, "registered twice: {stats:?}");
    }
    .boxed()
}

/// A registration that reconnects when it has to stop does not register any more.
pub(crate) fn deregistering_during_a_reconnect_leaves_nothing(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.interrupt().await;
        sleep(fixture.ttl() * 3 / 2).await;
        assert!(matches!(handle.state(), RegistrationState::Lost { .. }), "{handle:?}");
        let (deregistered, ()) = tokio::join!(handle.deregister(), fixture.resume());
        scene.is_deserted().await;
        deregistered.expect("the registry came back in time");
    }
    .boxed()
}

/// Ready means that there is an answer.
pub(crate) fn instancer_is_ready_when_the_registry_that_was_down_is_up(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        fixture.interrupt().await;
        let instancer = fixture.client().instancer(&unique("service"));
        let mut subscription = instancer.subscribe();
        let error = subscription.ready(SHORT * 4).await;
        let error = error.expect_err("the registry is down");
        assert_eq!(error.kind(), tower_sd_core::ErrorKind::Timeout, "{error:?}");
        let failed = |snapshot: &Snapshot| match snapshot.freshness() {
            Freshness::NeverSynced { error } => error.is_some(),
            _ => panic!("no answer yet: {snapshot:#?}"),
        };
        let bound = fixture.visible_bound();
        shows_that(&mut subscription, "why it is not ready", bound, failed).await;
        fixture.resume().await;
        let snapshot = subscription.ready(RECOVERY_BOUND).await;
        assert!(snapshot.expect("it is back").freshness().is_fresh());
    }
    .boxed()
}

pub(crate) fn first_registration_fails_fast_when_the_registry_is_down(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let scene = Scene::new(fixture).await;
        fixture.interrupt().await;
        let start = Instant::now();
        let registration = scene.registration(instance("a", 8001)).deregister_timeout(SHORT);
        let registered = scene.registrar.register(registration.fail_fast(SHORT)).await;
        let error = registered.expect_err("the registry is down");
        assert!(!error.is_transient(), "another caller would try again: {error:?}");
        assert!(start.elapsed() < SHORT + SHUTDOWN_BOUND, "{:?}", start.elapsed());
        // It has really given up.
        sleep(SHORT * 2).await;
        fixture.resume().await;
        scene.is_deserted().await;
    }
    .boxed()
}

pub(crate) fn first_registration_in_the_background_succeeds_when_the_registry_is_up(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let scene = Scene::new(fixture).await;
        fixture.interrupt().await;
        let start = Instant::now();
        let registration = scene.registration(instance("a", 8001)).retry_in_background();
        let registered = scene.registrar.register(registration).await;
        let mut handle = registered.expect("it does not wait for the registry");
        assert!(start.elapsed() < SHUTDOWN_BOUND, "{:?}", start.elapsed());
        sleep(SHORT * 4).await;
        assert!(matches!(handle.state(), RegistrationState::Registering { .. }), "{handle:?}");
        fixture.resume().await;
        let bound = back_bound(fixture) + FIRST_BACKOFF;
        handle.registered(bound).await.expect("the registry is back");
        scene.finds(&["a"], fixture.visible_bound()).await;
    }
    .boxed()
}

/// A stop must not wait for the pause between two attempts.
pub(crate) fn shutdown_during_an_outage_takes_less_than_a_second(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    shutdown(fixture, Outage::Interrupted)
}

/// The same when the registry is not away but hangs.
pub(crate) fn shutdown_while_the_registry_hangs_takes_less_than_a_second(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    shutdown(fixture, Outage::Frozen)
}

/// A watch must not hang because the server did.
pub(crate) fn changes_after_the_registry_hung_are_seen(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.freeze().await;
        sleep(fixture.ttl()).await;
        fixture.resume().await;
        let registration = scene.registration(instance("b", 8002)).fail_fast(RECOVERY_BOUND);
        let registered = scene.registrar.register(registration).await;
        let _b = registered.expect("the registry is back");
        let both = |snapshot: &Snapshot| ids_of(snapshot) == ["a", "b"];
        shows_that(&mut scene.subscription, "a and b", RECOVERY_BOUND, both).await;
    }
    .boxed()
}

pub(crate) fn registration_is_back_after_the_registry_hung_for_longer_than_the_ttl(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let mut handle = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        fixture.freeze().await;
        sleep(fixture.ttl() * 3 / 2).await;
        fixture.resume().await;
        scene.finds(&["a"], back_bound(fixture)).await;
        handle.registered(back_bound(fixture)).await.expect("registered");
        // And it is kept up again.
        sleep(fixture.ttl() * 3 / 2).await;
        scene.finds(&["a"], fixture.visible_bound()).await;
    }
    .boxed()
}

/// After a gap longer than the TTL the registration is verified immediately, not at the next
/// renewal.
pub(crate) fn process_suspended_for_longer_than_the_ttl_is_back_within_a_second(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _a = scene.register(instance("a", 8001)).await;
        scene.sees(&["a"]).await;
        let (gap, start) = (fixture.ttl() * 3 / 2, Instant::now());
        match fixture.clock() {
            Clock::Paused => tokio::time::advance(gap).await,
            Clock::Real => suspend_this_runtime(gap),
        }
        assert!(start.elapsed() >= gap);
        scene.finds(&["a"], Duration::from_secs(1)).await;
    }
    .boxed()
}

enum Outage {
    Interrupted,
    Frozen,
}

fn shutdown(fixture: &dyn Fixture, outage: Outage) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let register = async |id, port| {
            let registration = Registration::new(&scene.service, instance(id, port));
            let registration = registration.deregister_timeout(SHORT);
            let registered = scene.registrar.register(registration).await;
            registered.expect("a well registry accepts a registration")
        };
        let (a, _b) = (register("a", 8001).await, register("b", 8002).await);
        match outage {
            Outage::Interrupted => {
                fixture.interrupt().await;
                is_stale(&mut scene, fixture).await;
            }
            Outage::Frozen => fixture.freeze().await,
        }
        // Into the pause between two attempts.
        sleep(SHORT).await;
        let Scene { instancer, registrar, .. } = scene;
        let start = Instant::now();
        // It cannot know.
        let _unknown = a.deregister().await;
        assert!(start.elapsed() < SHUTDOWN_BOUND, "handle: {:?}", start.elapsed());
        let start = Instant::now();
        registrar.close().await;
        assert!(start.elapsed() < SHUTDOWN_BOUND, "registrar: {:?}", start.elapsed());
        let start = Instant::now();
        instancer.close().await;
        assert!(start.elapsed() < SHUTDOWN_BOUND, "instancer: {:?}", start.elapsed());
    }
    .boxed()
}

/// `a` and `b`, seen, then interrupted and noticed; with others, which are renewed three times as
/// rarely.
async fn interrupted_pair<'a>(
    fixture: &'a dyn Fixture,
    others: &[&str],
) -> (Scene<'a>, Vec<tower_sd_core::RegistrationHandle>) {
    let mut scene = Scene::new(fixture).await;
    let mut handles =
        vec![scene.register(instance("a", 8001)).await, scene.register(instance("b", 8002)).await];
    for (id, port) in others.iter().zip(8003..) {
        let registration = scene.registration(instance(id, port)).ttl(fixture.ttl() * 3);
        let registration = registration.deregister_timeout(SHORT);
        let registered = scene.registrar.register(registration).await;
        handles.push(registered.expect("a well registry accepts a registration"));
    }
    scene.sees(&[&["a", "b"], others].concat()).await;
    fixture.interrupt().await;
    is_stale(&mut scene, fixture).await;
    (scene, handles)
}

async fn is_stale(scene: &mut Scene<'_>, fixture: &dyn Fixture) {
    let stale = |snapshot: &Snapshot| matches!(snapshot.freshness(), Freshness::Stale { .. });
    let bound = fixture.visible_bound();
    shows_that(&mut scene.subscription, "stale", bound, stale).await;
}

/// The announcing loop tries once in a renewal interval, which is a third of the TTL and at least a
/// second.
fn back_bound(fixture: &dyn Fixture) -> Duration {
    (fixture.ttl() / 3).max(Duration::from_secs(1)) + fixture.visible_bound()
}

/// A case's runtime has one thread, which is this one: all its timers and connections stop, as
/// those of a process that got a STOP, and find that the time has passed.
#[expect(clippy::disallowed_methods, reason = "blocking the runtime is the point")]
fn suspend_this_runtime(gap: Duration) {
    std::thread::sleep(gap);
}

/// The cap of the announcing loop's pauses before its first success.
const FIRST_BACKOFF: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_millis(500);
const SHUTDOWN_BOUND: Duration = Duration::from_secs(1);
/// The hold of what the first set after an outage lacks, 10 s, and the read that confirms it.
const RELEASE_BOUND: Duration = Duration::from_secs(30);
/// The cap of the following loop's backoff, and some.
const RECOVERY_BOUND: Duration = Duration::from_secs(70);
