//! The example's registrations come back, and its bad entries are skipped.

use std::{fs, path::Path, time::Duration};

use tokio::time::sleep;
use tower_sd_core::{Instance, Instancer, Registration, Registry};

use self::minimal_backend::Folder;

#[expect(dead_code, reason = "the example's main is run by the test of that name")]
#[path = "../examples/minimal_backend.rs"]
mod minimal_backend;

fn folder(root: &Path) -> Registry {
    Registry::new(Folder(root.to_owned()))
}

fn registration(port: u16) -> Registration {
    Registration::new("s", Instance::new("127.0.0.1", port).with_id(format!("s-{port}")))
}

#[tokio::test(start_paused = true)]
async fn entry_is_seen_comes_back_when_deleted_and_is_deregistered() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = folder(root.path());
    let handle = folder.register(registration(1)).await.expect("registered");
    let file = root.path().join("s/s-1.json");
    let mut subscription = folder.instancer("s").expect("any name").subscribe();
    let snapshot = subscription.ready(Duration::from_secs(1)).await.expect("read");
    assert_eq!(snapshot.instances().len(), 1);
    fs::remove_file(&file).expect("deleted by an operator");
    sleep(Duration::from_secs(6)).await;
    assert!(file.exists(), "announced again within one renewal");
    handle.deregister().await.expect("withdrawn");
    assert!(!file.exists());
}

#[tokio::test(start_paused = true)]
async fn bad_file_is_skipped_and_counted() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = folder(root.path());
    let _handle = folder.register(registration(1)).await.expect("registered");
    fs::write(root.path().join("s/bad.json"), "{").expect("written");
    let mut subscription = folder.instancer("s").expect("any name").subscribe();
    let snapshot = subscription.ready(Duration::from_secs(1)).await.expect("read");
    assert_eq!(snapshot.instances().len(), 1);
    assert_eq!(subscription.stats().malformed, 1);
}

#[tokio::test(start_paused = true)]
async fn missing_registrations_are_an_empty_set_and_no_error() {
    let root = tempfile::tempdir().expect("a folder");
    let mut subscription = folder(root.path()).instancer("never").expect("any name").subscribe();
    let snapshot = subscription.ready(Duration::from_secs(1)).await.expect("read");
    assert!(snapshot.instances().is_empty() && snapshot.freshness().is_fresh());
}
