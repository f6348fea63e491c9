//! Watches that outlive their streams, and lost positions.
//!
//! Positions are lost while a stream lives on.

use std::time::Duration;

use tokio::{runtime::Runtime, time::sleep};
use tonic::Code;
use tower_sd_core::{Instancer, Registration};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::wait::shows;

use super::{
    Count, Fake, Header, REVISION, Replies, Reply, WatchResponse, created, event, listed, say,
    wanted, well,
};
use crate::support::{holds, instance};

const SOON: Duration = Duration::from_secs(10);

fn client(fake: &Fake) -> Etcd {
    Etcd::new(EtcdConfig::new([fake.endpoint()])).expect("good settings")
}

/// A stream may end for no reason at all.
#[tokio::test]
async fn watch_whose_stream_ends_goes_on_without_another_list() {
    let watches = Count::default();
    let fake = Fake::start(move |call| match &*call.method {
        "Range" => listed(&["a"]),
        "Watch" => match wanted(call) {
            Some(create) => {
                let (id, revision, ends) = match watches.next() {
                    0 => ("b", REVISION + 1, true),
                    _ => ("c", REVISION + 2, false),
                };
                let event = event(create.watch_id, id, revision);
                let header = Some(Header { cluster_id: 1, revision });
                let created = WatchResponse { header, ..created(create.watch_id) };
                let mut replies = vec![say(&created), say(&event)];
                if ends {
                    replies.push(Reply::End(Code::Ok, ""));
                }
                replies
            }
            None => well(call),
        },
        _ => well(call),
    })
    .await;
    let instancer = client(&fake).instancer("s");
    let mut subscription = instancer.subscribe();
    shows(&mut subscription, &["a", "b", "c"], SOON).await;
    assert_eq!(fake.calls("Range").len(), 1);
    let positions: Vec<_> = fake.calls("Watch").iter().filter_map(wanted).collect();
    let positions: Vec<_> = positions.iter().map(|it| it.start_revision).collect();
    assert_eq!(positions[..2], [REVISION, REVISION + 1]);
    let stats = subscription.stats();
    assert_eq!((stats.errors, stats.resyncs), (0, 0), "{stats:?}");
}

fn progress(cluster_id: u64, revision: i64) -> Reply {
    let header = Some(Header { cluster_id, revision });
    say(&WatchResponse { header, watch_id: -1, ..WatchResponse::default() })
}

/// A server whose first list is followed by these messages on its stream, and whose later ones show
/// `b`.
async fn after_created(messages: fn(i64) -> Replies) -> Fake {
    let (lists, watches) = (Count::default(), Count::default());
    Fake::start(move |call| match &*call.method {
        "Range" if lists.next() == 0 => listed(&["a"]),
        "Range" => listed(&["b"]),
        "Watch" => match wanted(call) {
            Some(create) if watches.next() == 0 => {
                let mut replies = vec![say(&created(create.watch_id))];
                replies.extend(messages(create.watch_id));
                replies
            }
            _ => well(call),
        },
        _ => well(call),
    })
    .await
}

/// A store that was restored from a backup behind a proxy which keeps its streams.
#[tokio::test]
async fn revision_that_goes_back_on_a_living_stream_is_read_anew() {
    let fake = after_created(|_| vec![progress(1, REVISION + 50), progress(1, REVISION)]).await;
    let instancer = client(&fake).instancer("s");
    shows(&mut instancer.subscribe(), &["b"], SOON).await;
}

#[tokio::test]
async fn event_of_another_cluster_is_not_applied_and_all_is_read_anew() {
    let fake = after_created(|id| {
        let mut foreign = event(id, "foreign", REVISION + 1);
        foreign.header = Some(Header { cluster_id: 2, revision: REVISION + 1 });
        vec![say(&foreign)]
    })
    .await;
    let instancer = client(&fake).instancer("s");
    let mut subscription = instancer.subscribe();
    let known = subscription.ready(SOON).await.expect("the server answers");
    assert!(known.instances().iter().all(|it| it.id().as_str() != "foreign"));
    shows(&mut subscription, &["b"], SOON).await;
}

/// A static client in several tests, or in worker threads with a runtime each.
#[test]
fn client_outlives_the_runtime_of_its_first_use() {
    let servers = Runtime::new().expect("a runtime");
    let fake = servers.block_on(Fake::start(|call| match &*call.method {
        "Range" => listed(&["a"]),
        _ => well(call),
    }));
    let client = client(&fake);
    for _ in 0..2 {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let registrar = client.clone();
            let one = Registration::new("r", instance("a", 1));
            let _handle = registrar.register(one).await.expect("registers");
            let n_lists = fake.calls("Range").len();
            let n_watches = fake.calls("Watch").len();
            let instancer = client.instancer("s");
            let mut subscription = instancer.subscribe();
            shows(&mut subscription, &["a"], SOON).await;
            holds("it is watched", SOON, async || fake.calls("Watch").len() > n_watches).await;
            sleep(Duration::from_secs(2)).await;
            // The registration reads its own key, too, after its watch was lost.
            let n_lists = fake.calls("Range").len() - n_lists;
            assert!(n_lists <= 4, "{n_lists} reads in 2 s of silence");
            assert_eq!(subscription.stats().resyncs, 0);
        });
    }
}
