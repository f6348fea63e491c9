use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::{BoxError, Instance, InstanceStatus};

use crate::scene::{Scene, never, outcome};

#[tokio::test(start_paused = true)]
async fn server_runs_for_a_second_after_deregistering() {
    let scene = Scene::default();
    let begun = Instant::now();
    let watcher = scene.clone();
    let running = scene
        .start_with(scene.lifecycle(), move |_listener, drain| async move {
            drain.await;
            watcher.saw(format!("{:?}", begun.elapsed()));
            Ok(())
        })
        .await;
    scene.stop.cancel();
    let (report, took) = running.end_within(Duration::from_millis(1_001)).await;
    assert!(report.expect("a good life").is_clean());
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!(scene.seen(), ["1.001s"]);
}

#[tokio::test(start_paused = true)]
async fn server_without_registration_waits_on_demand_only() {
    let scene = Scene::default();
    let running = scene.start(scene.unregistered()).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::ZERO).await;
    assert!(report.expect("a good life").is_clean());

    let scene = Scene::default();
    let waits = scene.unregistered().propagation(Duration::from_secs(7));
    let running = scene.start(waits).await;
    scene.stop.cancel();
    let (_report, took) = running.end_within(Duration::from_secs(7)).await;
    assert_eq!(took, Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn drain_ends_at_its_timeout() {
    let scene = Scene::default();
    let running = scene.start_with(scene.unregistered(), never).await;
    scene.stop.cancel();
    let (report, took) = running.end_within(Duration::from_secs(21)).await;
    let report = report.expect("a deadline is no failure");
    assert_eq!(outcome(&report, "drain"), "timed out");
    assert!(!report.is_clean());
    assert!(took >= Duration::from_secs(20), "{took:?}");
}

/// Deregistering is tried for 5 s, and every other step is done all the same.
#[tokio::test(start_paused = true)]
async fn registry_that_is_gone_does_not_prevent_the_stop() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle()).await;
    scene.registry.interrupt();
    scene.stop.cancel();
    let (report, took) = running.end_within(Duration::from_secs(8)).await;
    let report = report.expect("not the server's failure");
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert!(outcome(&report, "deregister").starts_with("failed ("), "{report}");
    assert_eq!(outcome(&report, "propagate"), "done");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.entries().len(), 1, "its TTL ends it");
}

#[tokio::test(start_paused = true)]
async fn registry_that_hangs_does_not_prevent_the_stop() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle().deregister_timeout(Duration::from_secs(2))).await;
    scene.registry.delay(Duration::from_secs(3600));
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_secs(5)).await;
    let report = report.expect("not the server's failure");
    assert_eq!(outcome(&report, "unready"), "timed out");
    assert_ne!(outcome(&report, "deregister"), "done", "{report}");
    assert_eq!(scene.seen(), ["serves", "drains"]);
}

#[tokio::test(start_paused = true)]
async fn draining_status_is_shown_unless_it_is_skipped() {
    for skips in [false, true] {
        let scene = Scene::default();
        let lifecycle =
            if skips { scene.lifecycle().skip_maintenance() } else { scene.lifecycle() };
        let running = scene.start(lifecycle).await;
        scene.registry.delay(Duration::from_millis(100));
        scene.stop.cancel();
        sleep(Duration::from_millis(150)).await;
        let status = scene.entries().first().map(Instance::status);
        let expected = if skips { None } else { Some(InstanceStatus::Draining) };
        assert_eq!(status, expected, "skips: {skips}");
        running.end().await.expect("a good life");
    }
}

#[tokio::test(start_paused = true)]
async fn hook_that_fails_hangs_or_panics_delays_no_exit() {
    let scene = Scene::default();
    let (one, last) = (scene.clone(), scene.clone());
    let lifecycle = scene
        .lifecycle()
        .before_exit(move || async move {
            one.saw("one");
            Err::<(), _>("never flushed")
        })
        .before_exit(pending::<Result<(), BoxError>>)
        .before_exit(|| async { panic!("a hook's own bug") as Result<(), BoxError> })
        .before_exit(move || async move {
            last.saw("last");
            Ok::<_, BoxError>(())
        });
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_secs(7)).await;
    let report = report.expect("hooks are no part of the server");
    assert_eq!(outcome(&report, "stop"), "failed (never flushed)");
    assert_eq!(scene.entries().len(), 0);
    assert_eq!(scene.seen(), ["serves", "drains", "one", "last"]);
    assert!(!report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn dropped_life_deregisters_and_ends_the_server() {
    struct Dropped(Scene);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.saw("gone");
        }
    }
    let scene = Scene::default();
    let dropped = Dropped(scene.clone());
    let running = scene
        .start_with(scene.lifecycle(), move |_listener, _drain| async move {
            let _dropped = dropped;
            pending().await
        })
        .await;
    assert_eq!(scene.entries().len(), 1);
    drop(running);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(scene.entries().len(), 0);
    assert_eq!(scene.seen(), ["gone"]);
}
