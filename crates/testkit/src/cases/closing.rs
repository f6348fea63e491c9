//! Ends: immediate, and with nothing left behind.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep};
use tower_sd_core::{Freshness, Instancer, Registrar, Registration, RegistrationState};

use crate::{
    Fixture,
    scene::{Scene, gone_bound, instance, unique},
    stall::within,
    usage::{alive_tasks, tcp_sockets},
    wait::shows,
};

/// go-kit leaks the blocking query until its wait is over.
pub(super) fn closing_an_instancer_takes_less_than_100_ms_and_leaks_nothing(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let before = Usage::now();
        let instancer = fixture.client().instancer(&unique("service"));
        let mut subscription = instancer.subscribe();
        let ready = subscription.ready(fixture.visible_bound()).await;
        ready.expect("a well registry answers");
        sleep(INTO_THE_LONG_WAIT).await;
        let begun = Instant::now();
        let closed = within(CLOSE_BOUND, instancer.close()).await;
        closed.unwrap_or_else(|| panic!("it takes longer than {CLOSE_BOUND:?}"));
        // A thread that it blocks is no stall of the machine.
        assert!(begun.elapsed() < 50 * CLOSE_BOUND, "{:?}", begun.elapsed());
        let snapshot = subscription.snapshot();
        assert!(matches!(snapshot.freshness(), Freshness::Stale { .. }), "{snapshot:?}");
        drop(subscription);
        before.is_restored().await;
    }
    .boxed()
}

/// The loop ends with its last user, without a call of `close`.
pub(super) fn dropping_the_instancer_and_its_subscriptions_leaks_nothing(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let before = Usage::now();
        let instancer = fixture.client().instancer(&unique("service"));
        let mut subscription = instancer.subscribe();
        let ready = subscription.ready(fixture.visible_bound()).await;
        ready.expect("a well registry answers");
        sleep(INTO_THE_LONG_WAIT).await;
        drop((instancer, subscription));
        before.is_restored().await;
    }
    .boxed()
}

pub(super) fn closing_a_registrar_withdraws_and_leaks_nothing(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let before = Usage::now();
        let scene = Scene::new(fixture).await;
        let handle = scene.register(instance("a", 8001)).await;
        scene.finds(&["a"], fixture.visible_bound()).await;
        let Scene { service, registrar, instancer, mut subscription, .. } = scene;
        registrar.close().await;
        assert!(matches!(handle.state(), RegistrationState::Deregistered), "{handle:?}");
        shows(&mut subscription, &[], gone_bound(fixture)).await;
        instancer.close().await;
        drop((registrar, handle, subscription, service));
        before.is_restored().await;
    }
    .boxed()
}

pub(super) fn deregistering_leaks_nothing(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    async move {
        // A renewal at the same time would open a connection more, which a pool keeps.
        let registrar = fixture.client_of_many().registrar();
        let service = unique("service");
        let register = async |id, port| {
            let registration = Registration::new(&service, instance(id, port));
            let registered = registrar.register(registration).await;
            registered.expect("a well registry accepts a registration")
        };
        // The first one may open what all of them share, a watch for example, a moment later.
        let _shared = register("a", 8001).await;
        sleep(INTO_THE_LONG_WAIT).await;
        let before = Usage::now();
        for port in 8002..8006 {
            let handle = register("b", port).await;
            handle.deregister().await.expect("a well registry deregisters");
        }
        before.is_restored().await;
    }
    .boxed()
}

/// Tasks of this case's runtime, and sockets of the process: the runner runs those cases one at a
/// time that have any.
struct Usage {
    tasks: usize,
    sockets: usize,
}

impl Usage {
    fn now() -> Self {
        Self { tasks: alive_tasks(), sockets: sockets() }
    }

    /// Immediately, but for what the other side has to close first.
    async fn is_restored(&self) {
        let restored = within(RESTORED_BOUND, async {
            while alive_tasks() > self.tasks || sockets() > self.sockets {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let restored = restored.await;
        restored.unwrap_or_else(|| {
            panic!(
                "left behind: {} tasks, {} sockets",
                alive_tasks().saturating_sub(self.tasks),
                sockets().saturating_sub(self.sockets)
            )
        });
    }
}

/// None where the system does not count them.
fn sockets() -> usize {
    tcp_sockets().unwrap_or(0)
}

const INTO_THE_LONG_WAIT: Duration = Duration::from_millis(300);
const CLOSE_BOUND: Duration = Duration::from_millis(100);
const RESTORED_BOUND: Duration = Duration::from_secs(1);
