//! The API server goes away, and comes back.
//!
//! It has the same data, older data or no history.

use std::time::Duration;

use tokio::time::sleep;
use tower_sd_testkit::proxy::Fault;

use crate::{
    scene::{Scene, is_stale, shows_fresh, shows_now},
    support::NAMESPACE,
};

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn server_that_is_killed_costs_no_instance() {
    let scene = Scene::new().await;
    scene.lists("orders", &["a", "b"]).await;
    let mut orders = scene.follow("orders");
    shows_now(&mut orders, &["a", "b"]).await;
    scene.server.kill();
    let stale = is_stale(&mut orders).await;
    assert_eq!(stale.instances().len(), 2, "{stale:#?}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(orders.snapshot().known().count(), 2, "{orders:#?}");
    scene.server.restart().await.expect("it starts again");
    scene.lists("orders", &["a", "b", "c"]).await;
    shows_fresh(&mut orders, &["a", "b", "c"]).await;
    scene.lists("orders", &["b", "c", "d"]).await;
    shows_now(&mut orders, &["b", "c", "d"]).await;
}

/// A watch from a version of the future is silent until the numbers have caught up.
#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn server_restored_with_older_data_is_followed() {
    let scene = Scene::new().await;
    scene.lists("orders", &["a", "b", "c"]).await;
    let mut orders = scene.follow("orders");
    shows_now(&mut orders, &["a", "b", "c"]).await;
    scene.server.etcd().save().await.expect("it stops and starts");
    for _ in 0..20 {
        for pods in [["a", "b", "d"], ["a", "b", "f"]] {
            scene.lists("orders", &pods).await;
        }
    }
    scene.lists("orders", &["a", "b", "e"]).await;
    shows_fresh(&mut orders, &["a", "b", "e"]).await;
    // The connection breaks when a new one can be made already.
    scene.server.proxy().set(Fault::BlackHole).await;
    scene.server.kill();
    scene.server.etcd().restart_saved().await.expect("it starts again");
    scene.server.restart().await.expect("it starts again");
    scene.server.proxy().set(Fault::None).await;
    shows_fresh(&mut orders, &["a", "b", "c"]).await;
    scene.lists("orders", &["a", "b", "f"]).await;
    shows_now(&mut orders, &["a", "b", "f"]).await;
}

/// The server answers 410: neither its cache nor etcd has the versions that the watch missed.
#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn history_compacted_during_an_outage_is_read_anew() {
    let scene = Scene::new().await;
    scene.lists("orders", &["a", "b"]).await;
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    let listed = scene.api.get(&slices).await.expect("a list");
    let version = listed["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut orders = scene.follow("orders");
    shows_now(&mut orders, &["a", "b"]).await;
    scene.server.proxy().set(Fault::Refuse).await;
    is_stale(&mut orders).await;
    for _ in 0..20 {
        for pods in [["b", "c"], ["b", "d"]] {
            scene.lists("orders", &pods).await;
        }
    }
    scene.server.etcd().compact().await.expect("it compacts");
    scene.server.restart().await.expect("it starts again");
    // Ours broke off, and is followed by a list. One that ended orderly goes on with this answer.
    let watch = format!("{slices}?watch=true&timeoutSeconds=5&resourceVersion={version}");
    let gone = scene.api.get(&watch).await.map_or_else(|it| it.to_string(), |it| it.to_string());
    assert!(gone.contains("410") && gone.contains("Expired"), "{gone}");
    scene.lists("orders", &["b", "e"]).await;
    scene.server.proxy().set(Fault::None).await;
    shows_fresh(&mut orders, &["b", "e"]).await;
    scene.lists("orders", &["b", "f"]).await;
    shows_now(&mut orders, &["b", "f"]).await;
}
