//! The parts of an instance that reach the other side.
//!
//! One field a case, so that an exception names exactly what is missing.

use futures_util::{FutureExt, future::BoxFuture};
use tower_sd_core::Instance;

use crate::{
    Fixture,
    scene::{Scene, instance},
};

pub(super) fn host_name_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let host = Instance::new("node-1.example.com", 8001).with_id("a");
    survives(fixture, host, |i| i.host().to_owned())
}

/// IPv6 addresses arrive as they were registered.
pub(super) fn ipv6_address_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let ipv6 = Instance::new("fd00::1", 8001).with_id("a");
    survives(fixture, ipv6, |i| (i.host().to_owned(), i.to_string()))
}

pub(super) fn highest_port_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    survives(fixture, instance("a", 65_535), Instance::port)
}

pub(super) fn scheme_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let secure = instance("a", 8001).with_scheme("https");
    survives(fixture, secure, |i| i.scheme().map(str::to_owned))
}

pub(super) fn weight_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let light = instance("a", 8001).with_weight(7);
    survives(fixture, light, Instance::weight)
}

pub(super) fn weight_of_zero_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let idle = instance("a", 8001).with_weight(0);
    survives(fixture, idle, Instance::weight)
}

pub(super) fn priority_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let second = instance("a", 8001).with_priority(20);
    survives(fixture, second, Instance::priority)
}

pub(super) fn zone_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let zoned = instance("a", 8001).with_zone("eu-central-1b");
    survives(fixture, zoned, |i| i.zone().map(str::to_owned))
}

pub(super) fn tags_survive(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let tagged = instance("a", 8001).with_tags(["v2", "blau", "mit Leerzeichen", "grün,rot"]);
    survives(fixture, tagged, |i| i.tags().to_vec())
}

pub(super) fn metadata_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let annotated = instance("a", 8001)
        .with_metadata("shard", "3")
        .with_metadata("leer", "")
        .with_metadata("notice", "ein \"Wert\" = ü; \\ {}");
    survives(fixture, annotated, |i| i.metadata().clone())
}

pub(super) fn start_time_survives(fixture: &dyn Fixture) -> BoxFuture<'_, ()> {
    let started = instance("a", 8001).with_started_at_ms(1_700_000_000_123);
    survives(fixture, started, Instance::started_at_ms)
}

fn survives<T: PartialEq + std::fmt::Debug + Send + 'static>(
    fixture: &dyn Fixture,
    sent: Instance,
    part: impl Fn(&Instance) -> T + Send + 'static,
) -> BoxFuture<'_, ()> {
    async move {
        let mut scene = Scene::new(fixture).await;
        let _handle = scene.register(sent.clone()).await;
        let snapshot = scene.sees(&["a"]).await;
        assert_eq!(part(&snapshot.instances()[0]), part(&sent));
    }
    .boxed()
}
