use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::{
    Instance, Instancer, PublisherStats, Registrar, Registration, RegistrationHandle, Snapshot,
    Subscription,
};

use crate::{
    Fixture, TestInstancer,
    stall::within,
    wait::{ids_of, shows, shows_that},
};

/// What most cases start from: a service of their own, a registrar, an instancer and a subscription
/// that is synced.
pub(crate) struct Scene<'a> {
    pub(crate) fixture: &'a dyn Fixture,
    pub(crate) service: String,
    pub(crate) registrar: Arc<dyn Registrar>,
    pub(crate) instancer: TestInstancer,
    pub(crate) subscription: Subscription,
}

impl<'a> Scene<'a> {
    pub(crate) async fn new(fixture: &'a dyn Fixture) -> Self {
        Self::of(fixture, unique("service")).await
    }

    /// Of a service with this name.
    pub(crate) async fn of(fixture: &'a dyn Fixture, service: String) -> Self {
        let registrar = fixture.client().registrar();
        let instancer = fixture.client().instancer(&service);
        let mut subscription = instancer.subscribe();
        let ready = subscription.ready(fixture.visible_bound()).await;
        ready.expect("a well registry answers");
        Self { fixture, service, registrar, instancer, subscription }
    }

    pub(crate) async fn register(&self, instance: Instance) -> RegistrationHandle {
        let registered = self.registrar.register(self.registration(instance)).await;
        registered.expect("a well registry accepts a registration")
    }

    pub(crate) fn registration(&self, instance: Instance) -> Registration {
        Registration::new(&self.service, instance)
    }

    /// Waits until the scene's subscription shows exactly these ids.
    pub(crate) async fn sees(&mut self, ids: &[&str]) -> Snapshot {
        let bound = self.fixture.visible_bound();
        shows(&mut self.subscription, ids, bound).await
    }

    /// Waits until the scene's subscription shows a snapshot that is `wanted`.
    pub(crate) async fn sees_that(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
    ) -> Snapshot {
        let bound = self.fixture.visible_bound();
        shows_that(&mut self.subscription, what, bound, wanted).await
    }

    /// What the registry returns now to a new client.
    pub(crate) async fn look(&self) -> Snapshot {
        self.look_closely().await.0
    }

    /// With what had to be left out of it.
    pub(crate) async fn look_closely(&self) -> (Snapshot, PublisherStats) {
        self.look_within(self.fixture.visible_bound()).await
    }

    /// As [`look_closely`](Self::look_closely), within a bound for many instances.
    pub(crate) async fn look_within(&self, bound: Duration) -> (Snapshot, PublisherStats) {
        let instancer = self.fixture.client().instancer(&self.service);
        let mut subscription = instancer.subscribe();
        let ready = subscription.ready(bound).await;
        let snapshot = ready.expect("a well registry answers");
        instancer.close().await;
        (snapshot, subscription.stats())
    }

    /// Waits until the scene's subscription is empty: sooner than a TTL could be the reason.
    pub(crate) async fn sees_nobody(&mut self) {
        let bound = gone_bound(self.fixture);
        shows(&mut self.subscription, &[], bound).await;
    }

    /// The registry is empty, sooner than a TTL could be the reason, and stays so for a TTL.
    pub(crate) async fn is_deserted(&self) {
        self.finds(&[], gone_bound(self.fixture)).await;
        let deadline = Instant::now() + self.fixture.ttl();
        while Instant::now() < deadline {
            let snapshot = self.look().await;
            assert!(snapshot.instances().is_empty(), "back again: {snapshot:#?}");
            sleep(LOOK_AGAIN * 5).await;
        }
    }

    /// Reads until the registry itself has exactly these ids, at most for `bound`.
    pub(crate) async fn finds(&self, ids: &[&str], bound: Duration) -> Snapshot {
        let mut last = None;
        let found = within(bound, async {
            loop {
                let snapshot = self.look().await;
                if ids_of(&snapshot) == ids {
                    return snapshot;
                }
                last = Some(snapshot);
                sleep(LOOK_AGAIN).await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|| {
            panic!("the registry does not have {ids:?} within {bound:?}: {last:#?}")
        })
    }
}

/// What is deregistered has to be gone before its TTL would have removed it.
pub(crate) fn gone_bound(fixture: &dyn Fixture) -> Duration {
    fixture.visible_bound().min(fixture.ttl() / 2)
}

/// An instance with this id, of a private network: Kubernetes refuses addresses of loopback.
pub(crate) fn instance(id: &str, port: u16) -> Instance {
    Instance::new("10.0.0.1", port).with_id(id)
}

/// A name that no other case, and no earlier run on the same server, has used.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}

/// Long enough to leave the registry some air, short beside the bounds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
