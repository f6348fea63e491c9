//! Several registrations and servers in one life, and readiness by health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower_sd_core::{AdvertiseAddress, CheckResult, Registration, RegistrationState};
use tower_sd_lifecycle::Listener;

use crate::scene::{Scene, never, outcome};

#[tokio::test(start_paused = true)]
async fn every_registration_has_a_view_and_ends() {
    let scene = Scene::default();
    let lifecycle = scene.lifecycle().register(scene.registry.clone(), "b");
    let views = lifecycle.registrations();
    assert!(views.list().is_empty(), "the life has not begun");
    let running = scene.start(lifecycle).await;
    assert_eq!((scene.entries().len(), scene.registry.entries("b").len()), (1, 1));
    assert!(views.get("c").is_none());
    let [mut a, b] = ["a", "b"].map(|service| views.get(service).expect("it has begun"));
    assert!(matches!(a.state(), RegistrationState::Registered), "{a:?}");
    assert_eq!(b.stats().announced, 1);
    a.update(|it| it.with_weight(7)).await.expect("the registry accepts it");
    assert_eq!(scene.entries()[0].weight(), 7);
    assert_ne!(scene.registry.entries("b")[0].weight(), 7);

    scene.registry.interrupt();
    a.update(|it| it.with_weight(8)).await.expect_err("there is no registry");
    assert!(a.last_error().is_some(), "{a:?}");
    scene.registry.resume();
    scene.stop.cancel();
    running.end().await.expect("a good life");
    assert_eq!((scene.entries().len(), scene.registry.entries("b").len()), (0, 0));
    while !matches!(a.state(), RegistrationState::Deregistered) {
        a.changed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_server_is_registered_and_drained() {
    let scene = Scene::default();
    let other = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = other.local_addr().expect("bound");
    let watcher = scene.clone();
    let lifecycle = scene
        .lifecycle()
        .serve(other, move |_listener, drain| async move {
            drain.await;
            watcher.saw("the other drains");
            Ok::<_, tower_sd_core::BoxError>(())
        })
        .register_at(address, scene.registry.clone(), |it| Registration::new("b", it));
    let running = scene.start(lifecycle).await;
    assert_eq!(scene.registry.entries("b")[0].port(), address.port());
    assert_ne!(scene.entries()[0].port(), address.port());
    scene.stop.cancel();
    running.end().await.expect("a good life");
    let mut seen = scene.seen();
    seen.sort();
    assert_eq!(seen, ["drains", "serves", "the other drains"]);
    assert_eq!((scene.entries().len(), scene.registry.entries("b").len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn address_without_a_server_is_refused_before_the_start() {
    let scene = Scene::default();
    let elsewhere = "127.0.0.1:9".parse().expect("an address");
    let lifecycle = scene
        .lifecycle()
        .register_at(elsewhere, scene.registry.clone(), |it| Registration::new("b", it));
    let main = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let ended = timeout(Duration::from_secs(60), lifecycle.run(main, never)).await;
    let failed = ended.expect("it does not begin").expect_err("there is no server");
    let cause = std::error::Error::source(&failed).map(ToString::to_string).unwrap_or_default();
    assert_eq!(cause, "no server of this life listens on 127.0.0.1:9");
    assert_eq!(outcome(failed.report(), "serve"), "absent");
}

/// Its host leads to the server at the wildcard.
#[tokio::test(start_paused = true)]
async fn address_of_a_wildcard_listener_is_registered() {
    let scene = Scene::default();
    let other = Listener::bind("0.0.0.0:0").await.expect("a free port");
    let port = other.local_addr().expect("bound").port();
    let lifecycle = scene.lifecycle().serve(other, never).register_at(
        ([127, 0, 0, 1], port).into(),
        scene.registry.clone(),
        |it| Registration::new("b", it),
    );
    let running = scene.start(lifecycle).await;
    assert_eq!(scene.registry.entries("b")[0].to_string(), format!("127.0.0.1:{port}"));
    drop(running);
}

/// The clients of one would call the other.
#[tokio::test(start_paused = true)]
async fn explicit_port_for_two_servers_is_refused_before_the_start() {
    let scene = Scene::default();
    let other = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = other.local_addr().expect("bound");
    let advertise = AdvertiseAddress::Explicit { host: "a.example".into(), port: Some(80) };
    let lifecycle = scene.unregistered().advertise(advertise).serve(other, never);
    let lifecycle = lifecycle.register(scene.registry.clone(), "a").register_at(
        address,
        scene.registry.clone(),
        |it| Registration::new("b", it),
    );
    let main = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let ended = timeout(Duration::from_secs(60), lifecycle.run(main, never)).await;
    let failed = ended.expect("it does not begin").expect_err("one port for both");
    let cause = std::error::Error::source(&failed).map(ToString::to_string).unwrap_or_default();
    assert_eq!(cause, "one port for two servers: 80 is advertised");
    assert_eq!(outcome(failed.report(), "serve"), "absent");
}

/// The others have requests in flight: clients take notice, and they drain.
#[tokio::test(start_paused = true)]
async fn server_that_ends_ends_the_life_and_the_others_drain() {
    let scene = Scene::default();
    let other = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let lifecycle = scene.lifecycle().serve(other, |_listener, _drain| async {
        sleep(Duration::from_secs(5)).await;
        Err::<(), _>("the disk is full")
    });
    let running = scene.start(lifecycle).await;
    let failed = running.end().await.expect_err("it failed");
    assert_eq!(failed.to_string(), "the server failed in step serve");
    assert_eq!(outcome(failed.report(), "propagate"), "done");
    assert_eq!(outcome(failed.report(), "drain"), "done");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_registered_check() {
    let scene = Scene::default();
    let is_well = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&is_well);
    let check = scene.readiness.follow(move || {
        let health = match shared.load(SeqCst) {
            true => CheckResult::Passing,
            false => CheckResult::Critical("no database".into()),
        };
        async { health }
    });
    let registration =
        |it| Registration::new("a", it).health(check).health_interval(Duration::from_millis(100));
    let lifecycle = scene.unregistered().register_with(scene.registry.clone(), registration);
    let views = lifecycle.registrations();
    let running = scene.start_with(lifecycle, never).await;
    assert!(scene.readiness.is_ready());
    is_well.store(false, SeqCst);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(scene.readiness.to_string(), "unhealthy");
    let state = views.get("a").expect("it has begun").state();
    assert!(
        matches!(&state, RegistrationState::Critical { reason } if reason == "no database"),
        "{state:?}"
    );
    is_well.store(true, SeqCst);
    sleep(Duration::from_millis(200)).await;
    assert!(scene.readiness.is_ready());
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_lost_by_a_check_that_hangs_or_panics() {
    for panics in [false, true] {
        let scene = Scene::default();
        let check = scene.readiness.follow(move || async move {
            assert!(!panics, "the check's own bug");
            std::future::pending().await
        });
        let registration = |it| Registration::new("a", it).health(check).retry_in_background();
        let lifecycle = scene.unregistered().register_with(scene.registry.clone(), registration);
        let running = scene.start_with(lifecycle, never).await;
        sleep(Duration::from_secs(10)).await;
        assert!(!scene.readiness.is_ready(), "panics: {panics}");
        drop(running);
    }
}
