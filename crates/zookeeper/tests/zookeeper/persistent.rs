//! Why watches of ours are one-shot.

use crate::support::{
    ZooKeeperFixture, binaries,
    operator::{CreateMode::Persistent, Operator},
};

/// ZOOKEEPER-4698. A one-shot watch that is set again reports them: see
/// `changes_while_disconnected_are_seen_by_the_same_session`.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn persistent_watch_loses_changes_while_disconnected() {
    // Persistent ones came with 3.6.
    for binary in binaries().into_iter().filter(|binary| !binary.version.starts_with("3.4")) {
        let fixture = ZooKeeperFixture::start(binary).await.expect("it starts");
        let mut operator = fixture.operator().await;
        for path in ["/p/changes", "/p/leaves"] {
            operator.create(path, b"1", Persistent).await;
        }
        let address = fixture.server.address();
        let mut watcher = Operator::connect(address).await;
        watcher.watch_below("/p").await;
        operator.set("/p/changes", b"2").await;
        assert_eq!(watcher.reported().await, ["/p/changes"]);
        watcher.disconnect().await;
        operator.set("/p/changes", b"3").await;
        operator.delete("/p/leaves").await;
        operator.create("/p/comes", b"1", Persistent).await;
        watcher.resume(address, "/p").await;
        let reported = watcher.reported().await;
        assert!(reported.is_empty(), "nothing is lost any more: {reported:?}");
        operator.set("/p/changes", b"4").await;
        assert_eq!(watcher.reported().await, ["/p/changes"], "it is set");
    }
}
