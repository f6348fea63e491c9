//! The server's own check decides whether it is offered.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use tower_sd_core::{
    CheckResult, InstanceStatus, Registrar, Registration, RegistrationState, Snapshot,
};

use crate::{
    Fixture,
    scene::{Scene, instance},
};

/// Gone, or shown as critical, as the registry has it; and back when the check passes again.
pub(super) fn critical_instance_is_not_offered_until_it_passes(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let health = watch::Sender::new(CheckResult::Passing);
        let registration = scene.registration(instance("a", 8001));
        let registered = scene.registrar.register(checked(registration, &health));
        let mut a = registered.await.expect("a well registry accepts a registration");
        scene.sees_that("a, passing", is_offered).await;
        health.send_replace(CheckResult::Critical("no database".into()));
        scene.sees_that("a not offered", |seen| !is_offered(seen)).await;
        let state = a.changed().await;
        let RegistrationState::Critical { reason } = &state else { panic!("{state:?}") };
        assert_eq!(reason, "no database");
        health.send_replace(CheckResult::Passing);
        scene.sees_that("a, passing again", is_offered).await;
        a.registered(fixture.visible_bound()).await.expect("not critical any more");
    }
    .boxed()
}

/// The instance is not visible before the first result of its health check.
pub(super) fn instance_that_starts_critical_is_not_offered(
    fixture: &dyn Fixture,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let health = watch::Sender::new(CheckResult::Critical("warming up".into()));
        let registration = scene.registration(instance("a", 8001));
        let registered = scene.registrar.register(checked(registration, &health));
        let _a = registered.await.expect("a well registry accepts a registration");
        let watched = tokio::time::timeout(fixture.ttl(), async {
            loop {
                let snapshot = scene.subscription.changed().await.expect("the loop lives");
                assert!(!is_offered(&snapshot), "{snapshot:#?}");
            }
        });
        watched.await.expect_err("it watches to the end");
        assert!(!is_offered(&scene.look().await));
        health.send_replace(CheckResult::Passing);
        scene.sees_that("a, passing", is_offered).await;
    }
    .boxed()
}

fn checked(registration: Registration, health: &watch::Sender<CheckResult>) -> Registration {
    let health = Arc::new(health.subscribe());
    let check = move || {
        let health = Arc::clone(&health);
        async move { health.borrow().clone() }
    };
    registration.health(check).health_interval(CHECK_EVERY)
}

fn is_offered(snapshot: &Snapshot) -> bool {
    let mut instances = snapshot.instances().iter();
    instances.any(|instance| {
        matches!(instance.status(), InstanceStatus::Passing | InstanceStatus::Warning)
    })
}

const CHECK_EVERY: Duration = Duration::from_millis(100);
