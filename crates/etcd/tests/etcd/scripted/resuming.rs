//! Watches that outlive their streams, and lost positions.
//!
//! Positions are lost while a stream lives on.

use std::time::Duration;

use tokio::{runtime::Runtime, time::sleep};
use tonic::Code;
use tower_sd_core::{FollowConfig, Instancer, Registration, RegistryConfig};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::wait::shows;

use super::{
    Count, Fake, Header, REVISION, RangeResponse, Replies, Reply, WatchResponse, created, entry,
    event, listed, say, wanted, well,
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

/// A proxy that numbers watches itself, and whose watches are silent about what it reads after the
/// first list. The second watch ends its stream.
async fn silent_proxy() -> Fake {
    let (reads, watches) = (Count::default(), Count::default());
    Fake::start(move |call| match &*call.method {
        "Range" if reads.next() == 0 => listed(&["a"]),
        "Range" => {
            let kvs = vec![entry("a", REVISION), entry("b", REVISION + 1)];
            let header = Some(Header { cluster_id: 1, revision: REVISION + 50 });
            vec![say(&RangeResponse { header, kvs, more: false, count: 2 })]
        }
        "Watch" if watches.next() == 1 => vec![Reply::End(Code::Ok, "")],
        "Watch" => vec![say(&created(77))],
        _ => well(call),
    })
    .await
}

/// etcd-io/etcd#18231: its gRPC proxy goes on reading.
#[tokio::test]
async fn silence_of_a_proxys_watch_is_found_by_its_follower() {
    let fake = silent_proxy().await;
    let mut follow = FollowConfig::default();
    // Longer than the interval at which a stream reports that all is well.
    follow.max_silence = Some(Duration::from_secs(16));
    follow.read_timeout = Duration::from_secs(1);
    let registry = RegistryConfig::default().follow(follow);
    let config = EtcdConfig::new([fake.endpoint()]).registry(registry);
    let instancer = Etcd::new(config).expect("good settings").instancer("s");
    shows(&mut instancer.subscribe(), &["a", "b"], Duration::from_secs(25)).await;
}

#[tokio::test]
async fn reads_beside_a_proxys_watch_do_not_move_its_position() {
    let fake = silent_proxy().await;
    let client = client(&fake);
    let instancer = client.instancer("s");
    shows(&mut instancer.subscribe(), &["a"], SOON).await;
    holds("reads instead of progress", SOON, async || fake.calls("Range").len() > 3).await;
    let _other = client.instancer("t");
    let positions = || {
        let creates = fake.calls("Watch").into_iter().filter_map(|call| wanted(&call));
        let first = creates.filter(|create| create.watch_id == 1);
        first.map(|create| create.start_revision).collect::<Vec<_>>()
    };
    holds("it goes on", SOON, async || positions().len() > 1).await;
    assert_eq!(positions(), [REVISION, REVISION]);
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
