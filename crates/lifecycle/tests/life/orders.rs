use std::time::Duration;

use tokio::time::sleep;
use tower_sd_core::BoxError;

use crate::scene::{Scene, never, outcome};

const NOW: &str = "skipped (second order to stop)";

/// Clients must not be sent to it any longer, and no request is left to drain.
#[tokio::test(start_paused = true)]
async fn server_that_panics_is_deregistered_immediately() {
    let scene = Scene::default();
    let running = scene
        .start_with(scene.lifecycle(), |_listener, _drain| async {
            sleep(Duration::from_secs(60)).await;
            panic!("the server's own bug")
        })
        .await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(scene.entries().len(), 1);
    let (failed, _) = running.end_within(Duration::from_secs(1)).await;
    let failed = failed.expect_err("it panicked");
    assert_eq!(failed.to_string(), "the server failed in step serve");
    let cause = std::error::Error::source(&failed).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("the server's own bug"), "{cause}");
    assert_eq!(scene.entries().len(), 0);
    let report = failed.report();
    assert!(report.to_string().starts_with("stopped by the end of a server: "), "{report}");
    assert_eq!(outcome(report, "deregister"), "done");
    for step in ["unready", "propagate", "drain"] {
        assert_eq!(outcome(report, step), "skipped (not needed)");
    }
}

/// Also before its first `async`.
#[tokio::test(start_paused = true)]
async fn server_that_panics_before_it_begins_has_failed() {
    let scene = Scene::default();
    let running = scene
        .start_with(scene.lifecycle(), |_listener, _drain| {
            assert!(!std::hint::black_box(true), "its own bug");
            std::future::ready(Ok(()))
        })
        .await;
    let failed = running.end().await.expect_err("it panicked");
    assert_eq!(failed.to_string(), "the server failed in step serve");
    assert_eq!(scene.entries().len(), 0);
}

/// It is no task that could be aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_blocks_its_thread_does_not_keep_the_life() {
    let scene = Scene::default();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let lifecycle = scene.unregistered().drain_timeout(Duration::ZERO);
    let running = scene
        .start_with(lifecycle, |_listener, drain| async move {
            drain.await;
            tokio::task::block_in_place(|| ended.recv_timeout(Duration::from_secs(20)))?;
            Ok(())
        })
        .await;
    scene.stop.cancel();
    running.end_within(Duration::from_secs(10)).await.0.expect("no failure");
    drop(end);
}

#[tokio::test(start_paused = true)]
async fn server_that_fails_immediately_does_not_register() {
    let scene = Scene::default();
    let warm = || async {
        sleep(Duration::from_secs(1)).await;
        Ok::<_, BoxError>(())
    };
    let running = scene
        .start_with(scene.lifecycle().before_ready(warm), |_listener, _drain| async {
            Err("no certificate".into())
        })
        .await;
    let (failed, _) = running.end_within(Duration::ZERO).await;
    let failed = failed.expect_err("it failed");
    let cause = std::error::Error::source(&failed).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("no certificate"));
    assert_eq!(outcome(failed.report(), "register"), "absent");
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_by_itself_is_deregistered_and_no_failure() {
    let scene = Scene::default();
    let running = scene
        .start_with(scene.lifecycle(), |_listener, _drain| async {
            sleep(Duration::from_secs(5)).await;
            Ok(())
        })
        .await;
    let (report, _) = running.end_within(Duration::from_secs(5)).await;
    let report = report.expect("it ended well");
    assert!(report.to_string().starts_with("stopped by the end of a server: "), "{report}");
    assert_eq!(scene.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn second_order_ends_the_wait_for_clients() {
    let scene = Scene::default();
    let mut running = scene.start(scene.lifecycle().propagation(Duration::from_secs(60))).await;
    scene.stop.cancel();
    sleep(Duration::from_secs(10)).await;
    assert!(!running.has_ended());
    scene.stop_now.cancel();
    let (report, _) = running.end_within(Duration::ZERO).await;
    let report = report.expect("a good life");
    assert_eq!(outcome(&report, "deregister"), "done");
    for step in ["propagate", "drain", "stop"] {
        assert_eq!(outcome(&report, step), NOW, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn second_order_ends_the_drain() {
    let scene = Scene::default();
    let running = scene.start_with(scene.lifecycle(), never).await;
    scene.stop.cancel();
    sleep(Duration::from_secs(3)).await;
    scene.stop_now.cancel();
    let (report, _) = running.end_within(Duration::from_secs(1)).await;
    let report = report.expect("no failure");
    assert_eq!(outcome(&report, "propagate"), "done");
    assert_eq!(outcome(&report, "drain"), NOW);
    assert!(!report.is_clean());
}

/// It has a second more; a third order ends that too.
#[tokio::test(start_paused = true)]
async fn second_order_ends_a_deregistration_that_hangs() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle().deregister_timeout(Duration::from_secs(60))).await;
    scene.registry.delay(Duration::from_secs(3600));
    scene.stop.cancel();
    sleep(Duration::from_secs(10)).await;
    scene.stop_now.cancel();
    let (report, _) = running.end_within(Duration::from_secs(1)).await;
    let report = report.expect("no failure");
    assert_eq!(outcome(&report, "deregister"), "timed out");
    assert_eq!(scene.seen(), ["serves", "drains"]);
}

#[tokio::test(start_paused = true)]
async fn order_to_abort_skips_everything_but_deregistering() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle()).await;
    scene.stop_now.cancel();
    let (report, _) = running.end_within(Duration::ZERO).await;
    let report = report.expect("no failure");
    for step in ["unready", "propagate", "drain", "stop"] {
        assert_eq!(outcome(&report, step), NOW, "{step}");
    }
    assert_eq!(outcome(&report, "deregister"), "done");
    assert_eq!(scene.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn report_is_one_line_for_a_log() {
    let scene = Scene::default();
    let running = scene.start(scene.lifecycle()).await;
    scene.stop.cancel();
    let report = running.end().await.expect("a good life");
    assert_eq!(
        report.to_string(),
        "stopped by the program: serve done, ready done, register done, live done after 1ms, \
         unready done, deregister done, propagate done in 1s, drain done, stop done"
    );
}
