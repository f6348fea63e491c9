//! Many Services in one process.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep};
use tower_sd_core::Snapshot;
use tower_sd_testkit::{
    usage::{cpu_ms, resident_kib},
    wait::shows_that,
};

use crate::scene::{RECOVERED, Scene, note, ready, shows_now};

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn thousand_services_share_few_connections() {
    let scene = Scene::new().await;
    let create = |n: u32| {
        let (api, slice) = (scene.api.clone(), ready(&format!("s{n}"), &["a", "b"]));
        async move { api.create(&slice).await }
    };
    let written = stream::iter((0..1000).map(create)).buffer_unordered(32);
    let _written: Vec<_> = written.try_collect().await.expect("a well server takes slices");
    let (before, start) = (resident_kib().expect("Linux"), Instant::now());
    let mut followed: Vec<_> = (0..1000).map(|n| scene.follow(&format!("s{n}"))).collect();
    for subscription in &mut followed {
        let both = |it: &Snapshot| it.instances().len() == 2;
        shows_that(subscription, "both", RECOVERED, both).await;
    }
    let (kib, took) = (resident_kib().expect("Linux").saturating_sub(before), start.elapsed());
    let busy = cpu_ms().expect("Linux");
    sleep(Duration::from_secs(5)).await;
    let (busy, n_open) = (cpu_ms().expect("Linux") - busy, scene.server.proxy().n_open());
    note(&format!(
        "1 000 services after {took:?}: {n_open} connections, {kib} KiB, {busy} ms of CPU in 5 s"
    ));
    assert!(scene.server.proxy().n_accepted() <= 8, "{}", scene.server.proxy().n_accepted());
    assert!(kib < 64 << 10, "{kib} KiB");
    scene.lists("s999", &["a", "b", "c"]).await;
    shows_now(&mut followed[999], &["a", "b", "c"]).await;
}
