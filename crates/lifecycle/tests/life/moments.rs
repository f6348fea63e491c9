//! Orders at each of many moments of a life, with a registry that is slow.

use std::time::Duration;

use tokio::time::sleep;
use tower_sd_core::{BoxError, Registration};
use tower_sd_lifecycle::Lifecycle;

use crate::scene::Scene;

/// A life of two registrations, with some warm-up.
fn lifecycle(scene: &Scene) -> Lifecycle {
    let warm = || async {
        sleep(ms(20)).await;
        Ok::<_, BoxError>(())
    };
    scene
        .lifecycle()
        .register_with(scene.registry.clone(), |it| Registration::new("b", it.with_id("b")))
        .before_ready(warm)
}

/// 3 registries × 50 moments × 5 second orders: no entry at the end, nor from a call in flight
/// later.
#[tokio::test(start_paused = true)]
async fn no_entry_is_left_at_any_moment_of_two_orders() {
    let mut n_registered = 0;
    for delay in [0, 40, 400] {
        for moment in (0..1000).step_by(20) {
            for second in [None, Some(0), Some(10), Some(300), Some(1500)] {
                let scene = Scene::default();
                scene.registry.delay(ms(delay));
                let running = scene.start(lifecycle(&scene)).await;
                sleep(ms(moment)).await;
                n_registered += scene.entries().len();
                scene.stop.cancel();
                let hurry = async {
                    if let Some(second) = second {
                        sleep(ms(second)).await;
                        scene.stop_now.cancel();
                    }
                };
                let (ended, ()) = tokio::join!(running.end(), hurry);
                let report = ended.expect("no failure");
                let case = format!("delay {delay}, order at {moment}, then {second:?}: {report}");
                for at in ["the end", "later"] {
                    let left = [scene.registry.entries("a"), scene.registry.entries("b")];
                    assert_eq!(left, [[], []], "{at}, {case}");
                    sleep(Duration::from_secs(60)).await;
                }
            }
        }
    }
    assert!(n_registered > 200, "{n_registered} lives were registered before their end");
}

/// Its first announcement arrives after the start was given up.
#[tokio::test(start_paused = true)]
async fn no_entry_is_left_by_a_registration_that_failed_too_late() {
    let scene = Scene::default();
    scene.registry.delay(ms(400));
    let registration = |it| Registration::new("a", it).fail_fast(ms(100));
    let lifecycle = scene.unregistered().register_with(scene.registry.clone(), registration);
    let failed = scene.start(lifecycle).await.end().await.expect_err("not registered in time");
    assert_eq!(failed.to_string(), "the server failed in step register");
    for _ in 0..2 {
        assert_eq!(scene.entries().len(), 0, "{}", failed.report());
        sleep(Duration::from_secs(60)).await;
    }
}

/// One of two registrations fails for good; the other is not left.
#[tokio::test(start_paused = true)]
async fn no_entry_is_left_beside_a_registration_that_is_refused() {
    let scene = Scene::default();
    scene.registry.delay(ms(40));
    let refused = |it: tower_sd_core::Instance| Registration::new("", it);
    let lifecycle = scene.lifecycle().register_with(scene.registry.clone(), refused);
    let failed = scene.start(lifecycle).await.end().await.expect_err("a service without a name");
    assert_eq!(failed.to_string(), "the server failed in step register");
    for _ in 0..2 {
        assert_eq!(scene.entries().len(), 0, "{}", failed.report());
        sleep(Duration::from_secs(60)).await;
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
