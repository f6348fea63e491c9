use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tower_sd_testkit::{
    real,
    servers::{ServerBinary, configured},
    wire::request,
};

use super::*;
use crate::{EtcdConfig, client::EtcdClient, key::service_range};

struct Scene {
    server: real::Etcd,
    client: EtcdClient,
    operator: etcd_client::Client,
}

impl Scene {
    async fn new(binary: ServerBinary) -> Self {
        let server = real::Etcd::start(real::EtcdConfig::new(binary)).await.expect("etcd starts");
        let client = EtcdClient::new(EtcdConfig::new([server.url()])).expect("good settings");
        let operator = etcd_client::Client::connect([server.url()], None).await.expect("connects");
        Self { server, client, operator }
    }

    async fn put(&mut self) -> Position {
        let put = self.operator.put("tower-sd/s/a", "value", None).await;
        Position::of(put.expect("the server answers").header())
    }

    async fn watch(&self, position: Position) -> Watch {
        let range = service_range("tower-sd", "s").expect("good names");
        self.client.watch(range, position).await
    }

    /// Watchers that the server has.
    async fn n_watchers(&self) -> String {
        let answer = request(self.server.address(), "GET", "/metrics", "").await;
        let body = answer.expect("the server answers").body;
        let line =
            body.lines().find_map(|it| it.strip_prefix("etcd_debugging_mvcc_watcher_total "));
        line.expect("a metric of etcd").to_owned()
    }
}

/// Why a watch is over; skips the events before.
async fn reason(mut watch: Watch) -> &'static str {
    let end = async {
        loop {
            match watch.next().await {
                Ok(_) => {}
                Err(Ended::Resync(reason)) => return reason,
                Err(Ended::Failed(error)) => panic!("{error:?}"),
            }
        }
    };
    timeout(Duration::from_secs(10), end).await.expect("it ends")
}

fn binaries() -> Vec<ServerBinary> {
    configured("etcd").unwrap_or_else(|missing| panic!("{missing}"))
}

/// The list and the watch have a compaction between them.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn watch_from_a_compacted_revision_is_over_and_others_go_on() {
    for binary in binaries() {
        let mut scene = Scene::new(binary).await;
        let early = scene.put().await;
        scene.put().await;
        let late = scene.put().await;
        let mut other = scene.watch(late).await;
        other.next().await.expect("what happened at its revision");
        scene.operator.compact(late.revision, None).await.expect("compacts");
        assert_eq!(reason(scene.watch(early).await).await, "compacted");
        scene.put().await;
        other.next().await.expect("it goes on");
    }
}

/// The server accepts a future revision silently, and would be silent until it is reached.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn watch_from_a_future_revision_or_another_cluster_is_over() {
    for binary in binaries() {
        let mut scene = Scene::new(binary).await;
        let now = scene.put().await;
        let future = Position { revision: now.revision + 1000, ..now };
        assert_eq!(reason(scene.watch(future).await).await, "the revision went back");
        let elsewhere = Position { cluster: now.cluster + 1, ..now };
        assert_eq!(reason(scene.watch(elsewhere).await).await, "another cluster");
        let before = Position { term: now.term + 1, ..now };
        assert_eq!(reason(scene.watch(before).await).await, "the store was restored");
    }
}

/// In go-kit watches go on after they were stopped.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn dropped_watches_are_ended_at_the_server() {
    for binary in binaries() {
        let mut scene = Scene::new(binary).await;
        let now = scene.put().await;
        let mut watches = join_all((0..20).map(|_| scene.watch(now))).await;
        for watch in &mut watches {
            watch.next().await.expect("what happened at its revision");
        }
        assert_eq!(scene.n_watchers().await, "20");
        for n_left in ["5", "0"] {
            watches.truncate(n_left.parse().expect("a number"));
            for _ in 0..100 {
                if scene.n_watchers().await == n_left {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(scene.n_watchers().await, n_left);
        }
    }
}

/// A watch that catches up receives more than the library reads by default, and no transaction in
/// parts.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn ten_megabytes_to_catch_up_with_split_no_transaction() {
    for binary in binaries() {
        let mut scene = Scene::new(binary).await;
        let start = scene.put().await;
        for _ in 0..10 {
            let value = vec![b'x'; N_BYTES];
            let put = |n| TxnOp::put(format!("tower-sd/s/{n}"), value.clone(), None);
            let txn = Txn::new().and_then((0..N_PUTS).map(put).collect::<Vec<_>>());
            scene.operator.txn(txn).await.expect("the server answers");
        }
        let mut watch = scene.watch(start).await;
        let (mut n_told, mut largest) = (0, 0);
        while n_told < 1 + 10 * N_PUTS {
            let update = timeout(Duration::from_secs(10), watch.next()).await;
            let Update::Changes(changes) = update.expect("goes on").expect("is no error") else {
                continue;
            };
            for revision in changes.iter().map(|it| it.mod_revision) {
                let n_together = changes.iter().filter(|it| it.mod_revision == revision).count();
                let n_wanted = if revision == start.revision { 1 } else { N_PUTS };
                assert_eq!(n_together, n_wanted, "a transaction in parts");
            }
            n_told += changes.len();
            largest = largest.max(changes.len() * N_BYTES);
        }
        assert!(largest > 4 << 20, "{largest} bytes would have been read anyway");
    }
}

/// A transaction may have 1.5 MiB.
const N_BYTES: usize = 10_000;
const N_PUTS: usize = 100;

/// A reader that is busy for long lists again, which costs less than a queue without end.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn watch_whose_reader_falls_behind_is_over() {
    for binary in binaries() {
        let mut scene = Scene::new(binary).await;
        let now = scene.put().await;
        let mut watch = scene.watch(now).await;
        // From here on every put comes in its own message; before, many came in one.
        watch.next().await.expect("what happened at its revision");
        for _ in 0..QUEUE + 300 {
            scene.put().await;
        }
        assert_eq!(reason(watch).await, "fell behind");
    }
}

mod slow {
    use super::*;

    /// What a watch has to catch up with is more than is read in one message: the list that follows
    /// comes in pages.
    #[tokio::test]
    #[ignore = "slow: writes 70 MB"]
    async fn seventy_megabytes_to_catch_up_with_are_listed_instead() {
        for binary in binaries() {
            let mut scene = Scene::new(binary).await;
            let start = scene.put().await;
            for n in 0..70 {
                let (key, value) = (format!("tower-sd/s/{n}"), vec![b'x'; 1_000_000]);
                scene.operator.put(key, value, None).await.expect("the server answers");
            }
            assert_eq!(reason(scene.watch(start).await).await, "too much to catch up with");
        }
    }
}
