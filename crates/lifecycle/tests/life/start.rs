use std::{future::pending, time::Duration};

use tokio::time::sleep;
use tower_sd_core::{AdvertiseAddress, BoxError, Instance, Registration};
use tower_sd_lifecycle::{Listener, ReadinessState, Reason, Step, register_when_ready};

use crate::scene::{STEPS, Scene, never, outcome};

/// Before each step a hook looks at what a client could see.
#[tokio::test(start_paused = true)]
async fn every_step_comes_in_its_turn() {
    let scene = Scene::default();
    let mut lifecycle = scene.lifecycle();
    for step in STEPS {
        let scene = scene.clone();
        lifecycle = lifecycle.before(step, move || async move {
            let entries = scene.entries();
            let status = entries.first().map(|instance| format!("{:?}", instance.status()));
            let registered = status.unwrap_or_else(|| "absent".into());
            scene.saw(format!("{step}: {}, {registered}", scene.readiness.phase().as_str()));
            Ok::<_, BoxError>(())
        });
    }
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    let report = running.end().await.expect("a good life");
    let expected = [
        "serve: starting, absent",
        "serves",
        "ready: starting, absent",
        "register: ready, absent",
        "live: ready, Passing",
        "unready: draining, Passing",
        "deregister: draining, Draining",
        "propagate: draining, absent",
        "drain: closing, absent",
        "drains",
        "stop: closing, absent",
    ];
    // The server's task runs when the steps wait.
    let (mut seen, mut expected) = (scene.seen(), expected.map(str::to_owned).to_vec());
    for list in [&mut seen, &mut expected] {
        list.retain(|line| line != "serves");
    }
    assert_eq!(seen, expected);
    let steps: Vec<_> = report.steps.iter().map(|report| report.step).collect();
    assert_eq!(steps, STEPS);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.reason, Reason::Token);
}

#[tokio::test(start_paused = true)]
async fn start_is_not_registered_before_its_warming_up_is_done() {
    let scene = Scene::default();
    let warm = || async {
        sleep(Duration::from_secs(30)).await;
        Ok::<_, BoxError>(())
    };
    let running = scene.start(scene.lifecycle().before(Step::Ready, warm)).await;
    sleep(Duration::from_secs(29)).await;
    assert_eq!((scene.readiness.phase(), scene.entries().len()), (ReadinessState::Starting, 0));
    assert_eq!(scene.seen(), ["serves"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((scene.readiness.phase(), scene.entries().len()), (ReadinessState::Ready, 1));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn hook_that_fails_on_the_way_up_ends_the_start() {
    let scene = Scene::default();
    let cold = || async { Err::<(), _>("no cache") };
    let running = scene.start(scene.lifecycle().before(Step::Ready, cold)).await;
    let failed = running.end().await.expect_err("it failed");
    assert_eq!(failed.step(), Step::Ready);
    assert_eq!(failed.to_string(), "the server failed in step ready");
    let cause = std::error::Error::source(&failed).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("no cache"));
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(failed.report().reason, Reason::Failed);
    assert!(failed.report().outcome(Step::Register).is_none());
}

/// Fails fast after 5 s, withdraws for 5 s, and stops the server; no client has to take notice.
#[tokio::test(start_paused = true)]
async fn registration_that_fails_ends_the_start() {
    let scene = Scene::default();
    scene.registry.interrupt();
    let running = scene.start(scene.lifecycle()).await;
    let (failed, took) = running.end_within(Duration::from_secs(11)).await;
    let failed = failed.expect_err("it failed");
    assert_eq!(failed.step(), Step::Register);
    assert!(took >= Duration::from_secs(4), "{took:?}");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.readiness.phase(), ReadinessState::Closing);
}

#[tokio::test(start_paused = true)]
async fn registration_in_the_background_starts_whatever_the_registry_does() {
    let scene = Scene::default();
    scene.registry.interrupt();
    let registration = |instance| Registration::new("a", instance).retry_in_background();
    let lifecycle = scene.unregistered().register_with(scene.registry.clone(), registration);
    let running = scene.start(lifecycle).await;
    sleep(Duration::from_secs(60)).await;
    scene.registry.resume();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.entries().len(), 1);
    scene.stop.cancel();
    running.end().await.expect("a good life");
    assert_eq!(scene.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_reach_is_refused_before_anything_begins() {
    let scene = Scene::default();
    let listener = Listener::bind("0.0.0.0:0").await.expect("a free port");
    let failed = scene.lifecycle().run(listener, never).await.expect_err("a wildcard");
    assert_eq!(failed.step(), Step::Register);
    assert!(failed.report().steps.is_empty());
}

#[tokio::test(start_paused = true)]
async fn advertised_address_is_what_is_registered() {
    let scene = Scene::default();
    let advertise = AdvertiseAddress::Explicit { host: "a.example".into(), port: Some(80) };
    let running = scene.start(scene.lifecycle().advertise(advertise)).await;
    assert_eq!(scene.entries()[0].to_string(), "a.example:80");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn start_that_is_told_to_stop_registers_nothing() {
    let scene = Scene::default();
    let warm = || pending::<Result<(), BoxError>>();
    let running = scene.start(scene.lifecycle().before(Step::Ready, warm)).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_millis(1)).await;
    let report = report.expect("no failure");
    assert_eq!(outcome(&report, Step::Ready), "skipped (told to stop)");
    assert_eq!(scene.entries().len(), 0);
    assert_eq!(scene.seen(), ["serves", "drains"]);
}

#[tokio::test(start_paused = true)]
async fn registering_waits_for_readiness_by_itself_too() {
    let scene = Scene::default();
    let registration = || Registration::new("a", Instance::new("127.0.0.1", 80));
    let bound = Duration::from_secs(60);
    let early = register_when_ready(&scene.readiness, &scene.registry, registration());
    tokio::time::timeout(bound, early).await.expect_err("it is not ready");
    scene.readiness.advance(ReadinessState::Ready);
    let handle = register_when_ready(&scene.readiness, &scene.registry, registration()).await;
    let handle = handle.expect("registers").expect("is ready");
    assert_eq!(scene.entries().len(), 1);
    handle.deregister().await.expect("leaves");
    scene.readiness.advance(ReadinessState::Draining);
    let late = register_when_ready(&scene.readiness, &scene.registry, registration()).await;
    assert!(late.expect("no error").is_none());
}
