use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::Code;
use tower_sd_core::{
    Error, ErrorKind, FollowConfig, Follower, Instancer, RegistryConfig, Snapshot, Subscription,
};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::wait::{shows, shows_that};

use super::{
    Count, Fake, REVISION, RangeResponse, Reply, Token, WatchResponse, created, entry, event,
    header, listed, refused, say, wanted, well,
};
use crate::support::{holds, is_stale};

const SOON: Duration = Duration::from_secs(5);

fn follow(config: EtcdConfig) -> (Follower, Subscription) {
    let client = Etcd::new(config).expect("good settings");
    let instancer = client.instancer("s");
    let subscription = instancer.subscribe();
    (instancer, subscription)
}

/// The stream is opened with a token that has just expired.
#[tokio::test]
async fn watch_refused_for_its_token_is_made_again_with_a_new_one() {
    let tokens = Count::default();
    let fake = Fake::start(move |call| match &*call.method {
        "Authenticate" => {
            let token = format!("token-{}", tokens.next());
            vec![say(&Token { header: header(), token })]
        }
        "Range" => listed(&["a"]),
        "Watch" if call.header("token") == Some("token-0") => {
            let code = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
            vec![say(&refused(code))]
        }
        "Watch" => match wanted(call) {
            Some(create) => vec![
                say(&created(create.watch_id)),
                say(&event(create.watch_id, "b", REVISION + 1)),
            ],
            None => well(call),
        },
        _ => well(call),
    })
    .await;
    let (_instancer, mut subscription) =
        follow(EtcdConfig::new([fake.endpoint()]).user("svc", "hunter2"));
    shows(&mut subscription, &["a", "b"], SOON).await;
    assert_eq!(fake.calls("Authenticate").len(), 2, "once for all that need one");
    assert_eq!(fake.calls("Range").len(), 1, "the position was kept");
    let stats = subscription.stats();
    assert_eq!((stats.errors, stats.resyncs), (0, 0), "{stats:?}");
}

/// A denied watch is an error, and the set is kept.
#[tokio::test]
async fn watch_without_permission_is_denied_and_the_set_is_kept() {
    let fake = Fake::start(|call| match &*call.method {
        "Range" => listed(&["a"]),
        "Watch" => vec![say(&refused("etcdserver: permission denied"))],
        _ => well(call),
    })
    .await;
    let (_instancer, mut subscription) = follow(EtcdConfig::new([fake.endpoint()]));
    let stale = shows_that(&mut subscription, "stale", SOON, is_stale).await;
    let error = stale.freshness().error().expect("has a reason");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(stale.instances().len(), 1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.calls("Watch").len(), 1, "only a change by an operator helps");
}

/// The member in use has lost its leader, reports it as it was requested to, and is left for the
/// other.
#[tokio::test]
async fn watch_without_a_leader_goes_on_at_the_next_member() {
    let watches = Arc::new(Count::default());
    let mut members = Vec::new();
    for id in ["a", "b"] {
        let watches = Arc::clone(&watches);
        let member = Fake::start(move |call| match &*call.method {
            "Range" => listed(&[id]),
            // Whichever gets the first request.
            "Watch" if wanted(call).is_some() && watches.next() == 0 => {
                vec![Reply::End(Code::Unavailable, "etcdserver: no leader")]
            }
            _ => well(call),
        });
        members.push(member.await);
    }
    let (_instancer, _subscription) = follow(EtcdConfig::new(members.iter().map(Fake::endpoint)));
    let asked = |member: &Fake| {
        let watches = member.calls("Watch").into_iter();
        watches.filter(|call| wanted(call).is_some()).collect::<Vec<_>>()
    };
    holds("requests at both", SOON, async || members.iter().all(|it| asked(it).len() == 1)).await;
    for call in members.iter().flat_map(asked) {
        assert_eq!(call.header("hasleader"), Some("true"));
    }
}

/// The history is gone, which 3.6 reports in words alone when the revision is below zero.
#[tokio::test]
async fn compacted_watch_is_a_new_list_and_no_error() {
    for (compact_revision, reason) in
        [(REVISION + 1, ""), (0, "etcdserver: mvcc: required revision has been compacted")]
    {
        let lists = Count::default();
        let watches = Count::default();
        let fake = Fake::start(move |call| match &*call.method {
            "Range" if lists.next() == 0 => listed(&["a"]),
            "Range" => listed(&["a", "b"]),
            "Watch" if watches.next() == 0 => {
                let canceled = WatchResponse { compact_revision, ..refused(reason) };
                vec![say(&canceled)]
            }
            _ => well(call),
        })
        .await;
        let (_instancer, mut subscription) = follow(EtcdConfig::new([fake.endpoint()]));
        shows(&mut subscription, &["a", "b"], SOON).await;
        let stats = subscription.stats();
        assert_eq!((stats.resyncs, stats.errors), (1, 0), "{stats:?}");
    }
}

/// Nothing between the list and the watch is missed, and no event has the prefix read again.
#[tokio::test]
async fn watch_begins_where_the_list_ended_and_needs_no_other() {
    let fake = Fake::start(|call| match &*call.method {
        "Range" => listed(&["a"]),
        "Watch" => match wanted(call) {
            Some(create) => vec![
                say(&created(create.watch_id)),
                // Reported again, because it happened at the list's own revision.
                say(&event(create.watch_id, "a", REVISION)),
                say(&event(create.watch_id, "b", REVISION + 1)),
                say(&event(create.watch_id, "c", REVISION + 2)),
            ],
            None => well(call),
        },
        _ => well(call),
    })
    .await;
    let (_instancer, mut subscription) = follow(EtcdConfig::new([fake.endpoint()]));
    shows(&mut subscription, &["a", "b", "c"], SOON).await;
    let watches = fake.calls("Watch");
    let create = wanted(&watches[0]).expect("a watch");
    assert!((REVISION..=REVISION + 1).contains(&create.start_revision), "{create:?}");
    assert_eq!(fake.calls("Range").len(), 1);
}

/// No call is without a bound.
#[tokio::test]
async fn server_that_answers_nothing_is_given_up() {
    let fake = Fake::start(|_| Vec::new()).await;
    let bound = Duration::from_millis(200);
    let config = EtcdConfig::new([fake.endpoint()]).request_timeout(bound);
    let client = Etcd::new(config.clone()).expect("good settings");
    let start = Instant::now();
    let error = client.check().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let (_instancer, mut subscription) = follow(config);
    let failed = |it: &Snapshot| it.freshness().error().is_some();
    let failed = shows_that(&mut subscription, "why it is not ready", SOON, failed).await;
    let kind = failed.freshness().error().map(Error::kind);
    assert_eq!(kind, Some(ErrorKind::Timeout));
}

/// A wrong prefix may have millions of keys: the first page shows how many.
#[tokio::test]
async fn prefix_with_too_many_keys_is_an_error_after_one_page() {
    let fake = Fake::start(|call| match &*call.method {
        "Range" => {
            let kvs = vec![entry("a", REVISION)];
            let page = RangeResponse { header: header(), kvs, more: true, count: 10_000_000 };
            vec![say(&page)]
        }
        _ => well(call),
    })
    .await;
    let mut follow = FollowConfig::default();
    follow.first_max_backoff = Duration::from_secs(60);
    follow.initial_backoff = Duration::from_secs(60);
    let registry = RegistryConfig::default().follow(follow);
    let config = EtcdConfig::new([fake.endpoint()]).registry(registry);
    let instancer = Etcd::new(config).expect("good settings").instancer("s");
    let mut subscription = instancer.subscribe();
    let failed = |it: &Snapshot| it.freshness().error().is_some();
    let failed = shows_that(&mut subscription, "why it is not ready", SOON, failed).await;
    let error = failed.freshness().error().expect("checked above").to_string();
    assert!(error.contains("is the prefix right?"), "{error}");
    assert_eq!(fake.calls("Range").len(), 1);
}

/// A doubt about a watched set is answered by one read, without another list or watch.
#[tokio::test]
async fn nudge_of_a_watched_set_costs_one_read() {
    let fake = Fake::start(|call| match &*call.method {
        "Range" => listed(&["a"]),
        _ => well(call),
    })
    .await;
    let (_instancer, mut subscription) = follow(EtcdConfig::new([fake.endpoint()]));
    shows(&mut subscription, &["a"], SOON).await;
    holds("it is watched", SOON, async || !fake.calls("Watch").is_empty()).await;
    let created = || fake.calls("Watch").iter().filter(|call| wanted(call).is_some()).count();
    assert_eq!((fake.calls("Range").len(), created()), (1, 1));
    subscription.refresh();
    holds("it was verified", SOON, async || fake.calls("Range").len() > 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((fake.calls("Range").len(), created()), (2, 1));
    assert!(subscription.snapshot().freshness().is_fresh());
}
