//! The order of a stop, by the way of the traffic: the table of the crate's README.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::scene::Scene;

/// The milliseconds from the order to stop until each observation; `None` without a registration.
#[derive(Debug, PartialEq)]
struct Times {
    is_unready: u64,
    is_deregistered: Option<u64>,
    /// No connection is accepted any more.
    drains: u64,
}

async fn times(is_registered: bool, propagation: Option<u64>) -> Times {
    let scene = Scene::default();
    let lifecycle = if is_registered { scene.lifecycle() } else { scene.unregistered() };
    let lifecycle = match propagation {
        Some(ms) => lifecycle.propagation(Duration::from_millis(ms)),
        None => lifecycle,
    };
    let (drained, drains) = tokio::sync::oneshot::channel();
    let running = scene
        .start_with(lifecycle, |_listener, drain| async {
            drain.await;
            let _observed = drained.send(Instant::now());
            Ok(())
        })
        .await;
    assert!(scene.readiness.is_ready());
    assert_eq!(scene.entries().len(), usize::from(is_registered));
    let ordered = Instant::now();
    let since = |at: Instant| u64::try_from((at - ordered).as_millis()).expect("short");
    scene.stop.cancel();
    let unready = async {
        while scene.readiness.is_ready() {
            sleep(Duration::from_millis(1)).await;
        }
        since(Instant::now())
    };
    let deregistered = async {
        while !scene.entries().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        is_registered.then(|| since(Instant::now()))
    };
    let (is_unready, is_deregistered, drains) = tokio::join!(unready, deregistered, drains);
    running.end().await.expect("a good life");
    Times { is_unready, is_deregistered, drains: since(drains.expect("it drains")) }
}

#[tokio::test(start_paused = true)]
async fn order_of_a_stop_follows_the_way_of_the_traffic() {
    // Registered or not, the setting of the propagation, and the milliseconds until the drain.
    let rows = [
        ("a registry", true, None, 1_000),
        ("a registry and a load balancer", true, Some(15_000), 15_000),
        ("a load balancer without propagation", false, None, 0),
        ("a load balancer", false, Some(15_000), 15_000),
        ("Kubernetes with preStop", false, None, 0),
        ("Kubernetes without preStop", false, Some(5_000), 5_000),
        ("a registry, and Kubernetes without preStop", true, Some(5_000), 5_000),
    ];
    for (traffic, is_registered, propagation, drains_after) in rows {
        let times = times(is_registered, propagation).await;
        let tolerance = 2;
        assert!(times.is_unready <= tolerance, "{traffic}: {times:?}");
        assert!(times.is_deregistered.is_none_or(|at| at <= tolerance), "{traffic}: {times:?}");
        let drains = drains_after..=drains_after + tolerance;
        assert!(drains.contains(&times.drains), "{traffic}: {times:?}");
    }
}
