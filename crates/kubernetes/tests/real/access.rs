//! Tokens that end, and permissions that come and go.

use std::{fs, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_core::{ErrorKind, Instance, Instancer, Registration, Snapshot};
use tower_sd_kubernetes::Kubernetes;
use tower_sd_testkit::{
    proxy::Fault,
    real::{self, KubernetesApi},
    wait::shows_that,
};

use crate::{
    scene::{RECOVERED, SOON, Scene, config, shows_fresh, shows_now},
    support::NAMESPACE,
};

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn registry_is_opened_by_its_url() {
    let scene = Scene::new().await;
    scene.lists("orders", &["a"]).await;
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("our folder");
        path.display().to_string()
    };
    let ca = file("ca.crt", scene.server.authority().pem());
    let token = file("token", real::Kubernetes::ADMIN);
    let server = scene.server.url();
    let url = format!("kubernetes://{NAMESPACE}?server={server}&ca-file={ca}&token-file={token}");
    let registry = tower_sd::open(&url).expect("a registry's URL");
    let mut orders = registry.instancer("orders").expect("a name").subscribe();
    shows_now(&mut orders, &["a"]).await;
    let registration = Registration::new("orders", Instance::new("10.0.0.1", 80));
    let error = registry.register(registration).await.expect_err("the platform's affair");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

/// The kubelet replaces the file before the old token ends.
#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn rotated_token_is_read_from_its_file() {
    let scene = Scene::new().await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    let token = async |secret| {
        let token = scene.api.token(NAMESPACE, "reader", secret).await;
        token.expect("a well server makes a token")
    };
    let first = token("first").await;
    fs::write(&file, &first).expect("our folder");
    scene.api.allow(NAMESPACE, "reader").await.expect("a well server takes a role");
    scene.lists("orders", &["a"]).await;
    let client = Kubernetes::new(config(&scene.server).token_file(&file)).expect("good settings");
    let mut orders = client.instancer("orders").subscribe();
    shows_now(&mut orders, &["a"]).await;

    fs::write(&file, token("second").await).expect("our folder");
    scene.api.revoke(NAMESPACE, "first").await.expect("a well server deletes");
    is_refused(&scene, first).await;
    let n_errors = orders.stats().errors;
    // The token of a watch is checked at its start only.
    scene.server.proxy().set(Fault::Cut).await;
    scene.server.proxy().set(Fault::None).await;
    scene.lists("orders", &["a", "b"]).await;
    shows_fresh(&mut orders, &["a", "b"]).await;
    assert!(orders.stats().errors <= n_errors + 1, "{:?}", orders.stats());
}

/// The server caches its verdict on a token for 10 s, and sees a deleted role some time later.
async fn is_refused(scene: &Scene, token: String) {
    let address = scene.server.address();
    let api = KubernetesApi::new(address, scene.server.authority().pem(), token);
    let api = api.expect("the server's own certificate");
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    let start = Instant::now();
    while api.get(&path).await.is_ok() {
        assert!(start.elapsed() < RECOVERED, "it is allowed still");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn missing_permission_is_named_and_keeps_the_set() {
    let scene = Scene::new().await;
    let token = scene.api.token(NAMESPACE, "reader", "first").await.expect("a token");
    scene.lists("orders", &["a", "b"]).await;
    let client =
        Kubernetes::new(config(&scene.server).token(token.clone())).expect("good settings");
    let mut orders = client.instancer("orders").subscribe();
    let denied = |it: &Snapshot| {
        let error = it.freshness().error();
        error.is_some_and(|error| error.kind() == ErrorKind::Denied)
    };
    let refused = shows_that(&mut orders, "denied", SOON, denied).await;
    let text = refused.freshness().error().expect("denied").to_string();
    for part in ["endpointslices", "list", "403"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    scene.api.allow(NAMESPACE, "reader").await.expect("a well server takes a role");
    shows_fresh(&mut orders, &["a", "b"]).await;
    scene.api.forbid(NAMESPACE, "reader").await.expect("a well server deletes a role");
    is_refused(&scene, token).await;
    // The watch that is open goes on until it ends.
    scene.server.proxy().set(Fault::Cut).await;
    scene.server.proxy().set(Fault::None).await;
    let kept = shows_that(&mut orders, "denied again", RECOVERED, denied).await;
    assert_eq!(kept.instances().len(), 2, "{kept:#?}");
    scene.lists("orders", &["a", "b", "c"]).await;
    scene.api.allow(NAMESPACE, "reader").await.expect("a well server takes a role");
    shows_fresh(&mut orders, &["a", "b", "c"]).await;
}
