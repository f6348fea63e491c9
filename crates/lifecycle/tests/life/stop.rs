use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::BoxError;
use tower_sd_lifecycle::{Outcome, Step};

use crate::scene::{Scene, hook, never, outcome};

#[tokio::test(start_paused = true)]
async fn it_serves_for_a_second_after_it_has_deregistered() {
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
async fn who_has_not_registered_waits_only_when_told_to() {
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
async fn drain_ends_at_its_deadline() {
    let scene = Scene::default();
    let running = scene.start_with(scene.unregistered(), never).await;
    scene.stop.cancel();
    let (report, took) = running.end_within(Duration::from_secs(21)).await;
    let report = report.expect("a deadline is no failure");
    assert_eq!(outcome(&report, Step::Drain), "timed out");
    assert!(!report.is_clean());
    assert!(took >= Duration::from_secs(20), "{took:?}");
}

/// It is tried for 5 s, and everything else is done all the same.
#[tokio::test(start_paused = true)]
async fn registry_that_is_gone_does_not_keep_the_server_from_stopping() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle()).await;
    scene.registry.interrupt();
    scene.stop.cancel();
    let (report, took) = running.end_within(Duration::from_secs(8)).await;
    let report = report.expect("not the server's failure");
    assert!(took >= Duration::from_secs(5), "{took:?}");
    let deregister = report.outcome(Step::Deregister);
    assert!(matches!(deregister, Some(Outcome::Failed(_))), "{report}");
    assert_eq!(outcome(&report, Step::Propagate), "done");
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert_eq!(scene.entries().len(), 1, "its TTL ends it");
}

#[tokio::test(start_paused = true)]
async fn registry_that_hangs_does_not_keep_the_server_from_stopping() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle().deregister_timeout(Duration::from_secs(2))).await;
    scene.registry.delay(Duration::from_secs(3600));
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_secs(5)).await;
    let report = report.expect("not the server's failure");
    assert_eq!(outcome(&report, Step::Unready), "timed out");
    assert!(!matches!(report.outcome(Step::Deregister), Some(Outcome::Done)), "{report}");
    assert_eq!(scene.seen(), ["serves", "drains"]);
}

#[tokio::test(start_paused = true)]
async fn maintenance_can_be_left_out() {
    let scene = Scene::default();
    let watcher = scene.clone();
    let look = move || async move {
        watcher.saw(format!("{:?}", watcher.entries()[0].status()));
        Ok::<_, BoxError>(())
    };
    let lifecycle = scene.lifecycle().skip_maintenance().before(Step::Deregister, look);
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    running.end().await.expect("a good life");
    assert!(scene.seen().contains(&"Passing".to_owned()), "{:?}", scene.seen());
}

#[tokio::test(start_paused = true)]
async fn hooks_of_the_stop_that_fail_hang_or_panic_do_not_keep_it_from_stopping() {
    let scene = Scene::default();
    let lifecycle = scene
        .lifecycle()
        .before(Step::Unready, || async { Err::<(), _>("no") })
        .before(Step::Deregister, pending::<Result<(), BoxError>>)
        .before(Step::Drain, || async { panic!("a hook's own bug") as Result<(), BoxError> })
        .before(Step::Stop, || async { Err::<(), _>("never flushed") });
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    let (report, _) = running.end_within(Duration::from_secs(7)).await;
    let report = report.expect("hooks are no part of the server");
    let said = |step| hook(&report, step).map(ToString::to_string);
    assert_eq!(said(Step::Unready).as_deref(), Some("failed (no)"));
    assert_eq!(said(Step::Deregister).as_deref(), Some("timed out"));
    assert_eq!(said(Step::Propagate), None);
    assert_eq!(said(Step::Drain).as_deref(), Some("failed (the hook panicked)"));
    assert_eq!(said(Step::Stop).as_deref(), Some("failed (never flushed)"));
    assert_eq!(scene.entries().len(), 0);
    assert_eq!(scene.seen(), ["serves", "drains"]);
    assert!(!report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn several_hooks_of_a_step_run_in_order_and_one_that_fails_skips_none() {
    let scene = Scene::default();
    let mut lifecycle = scene.unregistered();
    for name in ["one", "two", "three"] {
        let scene = scene.clone();
        lifecycle = lifecycle.before(Step::Stop, move || async move {
            scene.saw(name);
            if name == "two" { Err("two") } else { Ok(()) }
        });
    }
    let running = scene.start(lifecycle).await;
    scene.stop.cancel();
    running.end().await.expect("a good life");
    assert_eq!(scene.seen(), ["serves", "drains", "one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn life_that_is_dropped_withdraws_and_ends_the_server() {
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
