use std::{future::pending, time::Duration};

use tokio::time::sleep;
use tower_sd_core::{AdvertiseAddress, BoxError, CheckResult, Registration};
use tower_sd_lifecycle::Listener;

use crate::scene::{Scene, never, outcome};

#[tokio::test(start_paused = true)]
async fn hooks_run_at_their_points_of_a_life() {
    let scene = Scene::default();
    let note = |point: &'static str| {
        let scene = scene.clone();
        move || async move {
            scene.saw(format!("{point}: {}, {}", scene.readiness, scene.entries().len()));
            Ok::<_, BoxError>(())
        }
    };
    let lifecycle = scene
        .lifecycle()
        .before_ready(note("first before ready"))
        .before_ready(note("second before ready"))
        .after_start(note("after start"))
        .before_exit(note("before exit"));
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    let report = running.end().await.expect("a good life");
    let mut seen = scene.seen();
    // The server's task begins when the steps wait.
    seen.retain(|line| line != "serves");
    let expected = [
        "first before ready: starting, 0",
        "second before ready: starting, 0",
        "after start: ready, 1",
        "drains",
        "before exit: closing, 0",
    ];
    assert_eq!(seen, expected);
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn server_is_not_registered_before_the_end_of_its_warm_up() {
    let scene = Scene::default();
    let warm = || async {
        sleep(Duration::from_secs(30)).await;
        Ok::<_, BoxError>(())
    };
    let running = scene.start(scene.lifecycle().before_ready(warm)).await;
    sleep(Duration::from_secs(29)).await;
    assert_eq!((scene.readiness.to_string().as_str(), scene.entries().len()), ("starting", 0));
    assert_eq!(scene.seen(), ["serves"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((scene.readiness.to_string().as_str(), scene.entries().len()), ("ready", 1));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn registry_that_comes_back_within_the_bound_is_enough() {
    for _ in 0..20 {
        let scene = Scene::default();
        scene.registry.interrupt();
        let running = scene.start(scene.lifecycle()).await;
        sleep(Duration::from_secs(3)).await;
        scene.registry.resume();
        sleep(Duration::from_millis(1_900)).await;
        assert_eq!(scene.entries().len(), 1);
        scene.stop.cancel();
        running.end().await.expect("a good life");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_warm_up_ends_the_start() {
    let scene = Scene::default();
    let cold = || async { Err::<(), _>("no cache") };
    let running = scene.start(scene.lifecycle().before_ready(cold)).await;
    let failed = running.end().await.expect_err("it failed");
    assert_eq!(failed.to_string(), "the server failed in step ready");
    let cause = std::error::Error::source(&failed).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("no cache"));
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(outcome(failed.report(), "register"), "absent");
    assert!(
        failed.report().to_string().starts_with("stopped by a failure: "),
        "{}",
        failed.report()
    );
}

#[tokio::test(start_paused = true)]
async fn failed_hook_after_the_start_ends_the_life_in_order() {
    let scene = Scene::default();
    let hook = || async { Err::<(), _>("no log") };
    let running = scene.start(scene.lifecycle().after_start(hook)).await;
    let failed = running.end().await.expect_err("it failed");
    assert_eq!(failed.to_string(), "the server failed in step live");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.entries().len(), 0);
}

/// Fails fast after 5 s, and stops: there is nothing to withdraw or to take notice of.
#[tokio::test(start_paused = true)]
async fn failed_registration_ends_the_start() {
    let scene = Scene::default();
    scene.registry.interrupt();
    let running = scene.start(scene.lifecycle()).await;
    let (failed, took) = running.end_within(Duration::from_millis(5_500)).await;
    let failed = failed.expect_err("it failed");
    let (outcome, report) = (|step| outcome(failed.report(), step), failed.report());
    assert_eq!(
        (outcome("deregister").as_str(), outcome("propagate").as_str()),
        ("done", "skipped (not needed)"),
        "{report}"
    );
    let printed = format!("{failed:?}");
    let expected = "the server failed in step register: memory register: registry unavailable";
    assert!(printed.starts_with(expected), "{printed}");
    assert_eq!(failed.to_string(), "the server failed in step register");
    assert!(took >= Duration::from_secs(4), "{took:?}");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.readiness.to_string(), "closing");
}

#[tokio::test(start_paused = true)]
async fn registration_in_the_background_starts_without_its_registry() {
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
async fn unreachable_address_is_refused_before_the_start() {
    let scene = Scene::default();
    let listener = Listener::bind("0.0.0.0:0").await.expect("a free port");
    let failed = scene.lifecycle().run(listener, never).await.expect_err("a wildcard");
    assert_eq!(failed.to_string(), "the server failed in step register");
    assert_eq!(outcome(failed.report(), "serve"), "absent");
}

#[tokio::test(start_paused = true)]
async fn explicit_address_is_registered() {
    let scene = Scene::default();
    let advertise = AdvertiseAddress::Explicit { host: "a.example".into(), port: Some(80) };
    let running = scene.start(scene.lifecycle().advertise(advertise)).await;
    assert_eq!(scene.entries()[0].to_string(), "a.example:80");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn order_to_stop_before_readiness_registers_nothing() {
    let scene = Scene::default();
    let warm = || pending::<Result<(), BoxError>>();
    let running = scene.start(scene.lifecycle().before_ready(warm)).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_millis(1)).await;
    let report = report.expect("no failure");
    assert_eq!(outcome(&report, "ready"), "skipped (order to stop)");
    assert_eq!(scene.entries().len(), 0);
    assert_eq!(scene.seen(), ["serves", "drains"]);
}

/// No client was sent to it: in a crash loop, each start would cost the wait.
#[tokio::test(start_paused = true)]
async fn start_that_failed_waits_for_no_client() {
    let wait = Duration::from_secs(15);
    let scene = Scene::default();
    let warm = || async {
        sleep(Duration::from_millis(10)).await;
        Err::<(), _>("no database")
    };
    let lifecycle = scene.lifecycle().propagation(wait).before_ready(warm);
    let (failed, _) = scene.start(lifecycle).await.end_within(Duration::from_millis(11)).await;
    let failed = failed.expect_err("it failed");
    assert_eq!(outcome(failed.report(), "propagate"), "skipped (not needed)");

    let scene = Scene::default();
    let lifecycle = scene.lifecycle().propagation(wait);
    let running = scene.start(lifecycle.before_ready(pending::<Result<(), BoxError>>)).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_millis(1)).await;
    assert_eq!(outcome(&report.expect("no failure"), "propagate"), "skipped (not needed)");
}

/// Critical from its start: no registry has ever had it.
#[tokio::test(start_paused = true)]
async fn server_that_was_never_announced_waits_for_no_client() {
    let scene = Scene::default();
    let registration = |it| {
        Registration::new("a", it).health(|| async { CheckResult::Critical("no database".into()) })
    };
    let lifecycle = scene.unregistered().register_with(scene.registry.clone(), registration);
    let running = scene.start(lifecycle).await;
    assert_eq!(scene.entries().len(), 0);
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_millis(1)).await;
    assert_eq!(outcome(&report.expect("no failure"), "propagate"), "skipped (not needed)");
}
