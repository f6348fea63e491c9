//! The instance cache and the endpointer.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;
use tower_sd_balance::{FixedInstancer, NoInstances, NoInstancesReason, RegistryConfig};

use crate::support::{
    Mode, Registry, World, answers, balance, call, endpointer, instances, report, settle, start,
};

/// `TestEndpointCache`.
#[tokio::test(start_paused = true)]
async fn cache_keeps_who_stays_and_closes_who_leaves() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let live = || (world.n_live("a"), world.n_live("b"));
    assert_eq!(live(), (1, 1));
    registry.set(&["b", "a"]).await;
    assert_eq!(live(), (1, 1));
    registry.fail("error").await;
    assert_eq!(live(), (1, 1));
    registry.set(&["a"]).await;
    assert_eq!(live(), (1, 0));
    registry.set(&[]).await;
    assert_eq!(live(), (0, 0));
    assert!(endpointer.report().endpoints.is_empty());
    assert_eq!((world.n_made("a"), world.n_made("b")), (1, 1));
}

/// `TestEndpointCacheErrorAndTimeout`, and a bug of go-kit: it invalidates only on access.
#[tokio::test(start_paused = true)]
async fn lasting_error_invalidates_the_set_by_a_timer() {
    let timeout = Duration::from_secs(5);
    let config = RegistryConfig::default();
    let mut registry = Registry::with_config(config.invalidate_after(timeout));
    registry.set(&["a"]).await;
    let world = World::default();
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    registry.fail("first").await;
    tokio::time::advance(timeout / 2).await;
    registry.tick().await;
    assert_eq!(world.n_live("a"), 1);
    registry.fail("second").await;
    tokio::time::advance(timeout).await;
    registry.tick().await;
    assert_eq!(world.n_live("a"), 0, "it is closed without an access");
    let error = call(&balance).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("first"), "{error:?}");
    registry.set(&["a"]).await;
    assert_eq!(answers(&balance, 1).await, ["a"]);
}

/// `TestBadFactory`, and a bug of go-kit: a factory that fails once is not called again.
#[tokio::test(start_paused = true)]
async fn factory_that_fails_is_called_again_for_the_same_set() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.make("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    assert_eq!(world.n_live("a"), 0);
    let error = report(&endpointer, "a").unwrap().error.unwrap();
    assert_eq!(error, "a cannot be made");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let n_made = world.n_made("a");
    assert!((8..60).contains(&n_made), "with growing pauses: {n_made}");
    world.make("a", Mode::Works);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(answers(&balance(&endpointer), 1).await, ["a"]);
}

/// `TestDefaultEndpointer`, with what its TODO lists as missing, and two bugs: `Close` leaks every
/// endpoint, and a second `Close` panics.
#[tokio::test(start_paused = true)]
async fn close_drops_services_and_subscription_and_may_be_repeated() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    assert_eq!(world.n_live_in_all(), 2);
    endpointer.close().await;
    assert_eq!(world.n_live_in_all(), 0);
    endpointer.close().await;
    registry.set(&["a", "b", "c"]).await;
    assert_eq!((world.n_live_in_all(), world.n_made("c")), (0, 0));
    let error = call(&balance).await.unwrap_err();
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Closed);
}

/// A bug of go-kit: a factory that dials slowly freezes every request.
#[tokio::test(start_paused = true)]
async fn hanging_factory_delays_no_requests_and_no_other_factories() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    world.make("b", Mode::Hangs);
    registry.set(&["a", "b", "c"]).await;
    let started = Instant::now();
    let answers: HashSet<_> = answers(&balance, 10).await.into_iter().collect();
    assert_eq!(answers, HashSet::from(["a".to_owned(), "c".to_owned()]));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// A bug of go-kit: the second of two equal instances leaks, with every update again.
#[tokio::test(start_paused = true)]
async fn duplicates_make_one_endpoint() {
    let (mut registry, world) = (Registry::new(&["a", "a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    for _ in 0..5 {
        registry.set(&["a", "a", "b"]).await;
        registry.set(&["a", "a"]).await;
    }
    assert_eq!((world.n_made("a"), world.n_live("a"), world.n_live("b")), (1, 1, 0));
    assert_eq!(endpointer.report().endpoints.len(), 1);
}

/// A bug of go-kit: an instance that is removed is closed with requests in flight.
#[tokio::test(start_paused = true)]
async fn request_in_flight_finishes_after_its_instance_was_removed() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    world.answer("a", Mode::Hangs);
    let in_flight = start(async move { call(&balance).await });
    settle().await;
    registry.set(&[]).await;
    assert_eq!(world.n_live("a"), 1);
    world.answer("a", Mode::Works);
    assert_eq!(in_flight.await.unwrap().unwrap(), "a");
    settle().await;
    assert_eq!(world.n_live("a"), 0);
}

/// A bug of go-kit: an outage at the start is reported as an empty set, without the registry's
/// error.
#[tokio::test(start_paused = true)]
async fn outage_at_the_start_is_no_empty_set() {
    let mut registry = Registry::with_config(RegistryConfig::default());
    let world = World::default();
    let endpointer = endpointer(&registry, &world).await;
    registry.fail("connection refused by the registry").await;
    let started = Instant::now();
    let error = call(&balance(&endpointer)).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 1, "it may come yet");
    assert_eq!(
        error.downcast_ref::<NoInstances>().unwrap().reason(),
        NoInstancesReason::NeverSynced
    );
    assert!(error.source().unwrap().to_string().contains("connection refused by the registry"));
    assert!(endpointer.ready(Duration::from_millis(10)).await.is_err());
    assert!(endpointer.report().trouble.unwrap().contains("connection refused by the registry"));
}

/// A bug of go-kit: the caller's own list is sorted in place.
#[test]
fn fixed_instancer_leaves_the_callers_list_alone() {
    let list = instances(&["b", "a"]);
    let _instancer = FixedInstancer::new(list.clone());
    assert_eq!(list[0].host(), "b");
}
