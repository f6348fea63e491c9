//! What happens to lists and watches on a real server.

use std::time::Duration;

use etcd_client::{PutOptions, Txn, TxnOp};
use tokio::time::sleep;
use tower_sd_core::{Follower, Freshness, Instancer, Registration, Subscription};
use tower_sd_etcd::{Etcd, RawAddress};
use tower_sd_testkit::proxy::{Fault, Proxy};
use tower_sd_testkit::wait::{fresh_with, shows, shows_that};

use crate::support::{EtcdFixture, TTL, instance, is_stale, on_every_etcd};

const SOON: Duration = Duration::from_secs(5);

/// A client whose bytes go through a proxy.
async fn behind_a_proxy(etcd: &EtcdFixture) -> (Proxy, Etcd) {
    let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
    let mut config = etcd.config();
    config.endpoints = vec![proxy.address().to_string()];
    (proxy, Etcd::new(config).expect("good settings"))
}

async fn put(etcd: &EtcdFixture, service: &str, id: &str, port: u16) -> i64 {
    let value = format!(r#"{{"Addr":"127.0.0.1:{port}"}}"#);
    put_value(etcd, service, id, &value).await
}

async fn put_value(etcd: &EtcdFixture, service: &str, id: &str, value: &str) -> i64 {
    let key = format!("tower-sd/{service}/{id}");
    let put = etcd.operator().await.put(key, value, None).await;
    put.expect("the server answers").header().expect("has a header").revision()
}

async fn ready(client: &Etcd, service: &str) -> (Follower, Subscription) {
    let instancer = client.instancer(service);
    let mut subscription = instancer.subscribe();
    subscription.ready(SOON).await.expect("the server answers");
    (instancer, subscription)
}

/// In go-kit a compaction is the end of a watch.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn compaction_while_cut_off_is_answered_by_a_new_list() {
    on_every_etcd(async |etcd| {
        let (proxy, client) = behind_a_proxy(etcd).await;
        put(etcd, "compacted", "a", 1).await;
        put(etcd, "compacted", "b", 2).await;
        let (_instancer, mut subscription) = ready(&client, "compacted").await;
        proxy.set(Fault::Cut).await;
        put(etcd, "compacted", "c", 3).await;
        let gone = etcd.operator().await.delete("tower-sd/compacted/a", None).await;
        gone.expect("the server answers");
        let last = put(etcd, "compacted", "d", 4).await;
        etcd.operator().await.compact(last, None).await.expect("compacts");
        proxy.set(Fault::None).await;
        shows(&mut subscription, &["b", "c", "d"], SOON).await;
        put(etcd, "compacted", "e", 5).await;
        shows(&mut subscription, &["b", "c", "d", "e"], SOON).await;
    })
    .await;
}

/// The answer to a request for progress is enough, on every version.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn idle_watch_is_left_alone() {
    on_every_etcd(async |etcd| {
        let client = etcd.client();
        let (_never, idle) = ready(&client, "nothing").await;
        put(etcd, "something", "a", 1).await;
        let (_once, quiet) = ready(&client, "something").await;
        sleep(Duration::from_secs(8)).await;
        for subscription in [idle, quiet] {
            let stats = subscription.stats();
            assert_eq!((stats.resyncs, stats.errors), (0, 0), "{stats:?}");
            assert!(matches!(subscription.snapshot().freshness(), Freshness::Fresh));
        }
    })
    .await;
}

/// A server that answers nothing does not leave a watch hanging.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn suspended_server_is_noticed_and_found_again() {
    on_every_etcd(async |etcd| {
        let (_instancer, mut subscription) = ready(&etcd.client(), "suspended").await;
        // What is seen now is seen by the watch, so that it is the watch that is left hanging.
        put(etcd, "suspended", "before", 2).await;
        shows(&mut subscription, &["before"], SOON).await;
        etcd.server.suspend().expect("it runs");
        shows_that(&mut subscription, "stale", Duration::from_secs(12), is_stale).await;
        etcd.server.resume().expect("it runs");
        put(etcd, "suspended", "a", 1).await;
        shows(&mut subscription, &["a", "before"], SOON).await;
    })
    .await;
}

/// Conformance has the names; this has the keys of a foreign producer.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn prefix_does_not_leak_and_malformed_values_cost_one_entry() {
    on_every_etcd(async |etcd| {
        put(etcd, "foo", "a", 1).await;
        put(etcd, "foobar", "b", 2).await;
        put_value(etcd, "foo", "broken", "{").await;
        let (_instancer, mut subscription) = ready(&etcd.client(), "foo").await;
        shows(&mut subscription, &["a"], SOON).await;
        assert_eq!(subscription.stats().malformed, 1);
        put(etcd, "foobar", "c", 3).await;
        put(etcd, "foo", "d/with/slashes", 4).await;
        shows(&mut subscription, &["a", "d/with/slashes"], SOON).await;
    })
    .await;
}

/// A go-kit server, seen by a client that reads both formats.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn values_of_go_kit_are_read_beside_ours() {
    on_every_etcd(async |etcd| {
        let config = etcd.config().fallback_codec(RawAddress::default());
        let client = Etcd::new(config).expect("good settings");
        put_value(etcd, "mixed", "go", "http://1.2.3.4:8080").await;
        let registrar = client.clone();
        let ours = Registration::new("mixed", instance("rust", 1).with_zone("a"));
        let _handle = registrar.register(ours).await.expect("registers");
        let (_instancer, mut subscription) = ready(&client, "mixed").await;
        let snapshot = shows(&mut subscription, &["go", "rust"], SOON).await;
        assert_eq!(snapshot.instances()[0].scheme(), Some("http"));
        assert_eq!(snapshot.instances()[1].zone(), Some("a"));
    })
    .await;
}

/// Pages of a thousand at one revision.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn ten_thousand_keys_are_listed_in_pages() {
    on_every_etcd(async |etcd| {
        let mut operator = etcd.operator().await;
        for batch in 0..100 {
            let put = |n: u16| {
                let n = batch * 100 + n;
                let value = format!(r#"{{"Addr":"10.{}.{}.1:80"}}"#, n / 250, n % 250);
                TxnOp::put(format!("tower-sd/many/{n:05}"), value, None)
            };
            let txn = Txn::new().and_then((0..100).map(put).collect::<Vec<_>>());
            operator.txn(txn).await.expect("the server answers");
        }
        let (_instancer, subscription) = ready(&etcd.client(), "many").await;
        let snapshot = subscription.snapshot();
        assert_eq!(snapshot.instances().len(), 10_000);
        assert_eq!(snapshot.instances()[9_999].host(), "10.39.249.1");
    })
    .await;
}

/// Ten megabytes wait behind a connection that stands still for a moment.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn large_values_are_seen_after_a_stall() {
    on_every_etcd(async |etcd| {
        let (proxy, client) = behind_a_proxy(etcd).await;
        let (_instancer, mut subscription) = ready(&client, "large").await;
        proxy.set(Fault::BlackHole).await;
        let filler = "x".repeat(500_000);
        for n in 0..20 {
            let addr = format!(r#"{{"Addr":"10.0.0.{}:80","Metadata":{{"x":"{filler}"}}}}"#, n + 1);
            put_value(etcd, "large", &format!("{n:02}"), &addr).await;
        }
        proxy.set(Fault::None).await;
        let all = |snapshot: &tower_sd_core::Snapshot| snapshot.instances().len() == 20;
        shows_that(&mut subscription, "all", Duration::from_secs(10), all).await;
        assert_eq!(subscription.stats().malformed, 0);
    })
    .await;
}

/// The same flags make the same cluster and member id, so the falling revision is the only sign.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn wiped_server_is_filled_again_and_no_instance_is_lost() {
    on_every_etcd(async |etcd| {
        for n in 0..50 {
            put(etcd, "noise", "n", n + 1).await;
        }
        let client = etcd.client();
        let registrar = client.clone();
        let mut handles = Vec::new();
        for n in 0..5 {
            let one = Registration::new("wiped", instance(&format!("{n}"), 8080 + n));
            handles.push(registrar.register(one).await.expect("registers"));
        }
        let (_instancer, mut subscription) = ready(&client, "wiped").await;
        shows_that(&mut subscription, "five", SOON, fresh_with(5)).await;
        etcd.server.restart_empty().await.expect("it starts again");
        let back = shows_that(&mut subscription, "all back", SOON, |it| {
            let n_known = it.instances().len() + it.held().len();
            assert_eq!(n_known, 5, "no instance is lost meanwhile");
            matches!(it.freshness(), Freshness::Fresh) && it.held().is_empty()
        });
        back.await;
        crate::support::holds("all keys are there", SOON, async || {
            etcd.keys("wiped").await.len() == 5
        })
        .await;
        // The watch is on the new store: its revisions are far below the old ones.
        put(etcd, "wiped", "new", 9).await;
        shows_that(&mut subscription, "six", SOON, fresh_with(6)).await;
    })
    .await;
}

/// etcd-io/etcd#16028: the same cluster, and a revision that has caught up when the client is back.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn backup_that_has_caught_up_is_read_anew() {
    on_every_etcd(async |etcd| {
        let (proxy, client) = behind_a_proxy(etcd).await;
        put(etcd, "restored", "a", 1).await;
        etcd.server.save().await.expect("is copied");
        // Each start is an election.
        for _ in 0..2 {
            etcd.server.restart().await.expect("it starts again");
        }
        put(etcd, "restored", "b", 2).await;
        let (_instancer, mut subscription) = ready(&client, "restored").await;
        shows(&mut subscription, &["a", "b"], SOON).await;
        proxy.set(Fault::Cut).await;
        etcd.server.restart_saved().await.expect("it starts again");
        for (id, port) in [("c", 3), ("d", 4), ("e", 5)] {
            put(etcd, "restored", id, port).await;
        }
        proxy.set(Fault::None).await;
        shows(&mut subscription, &["a", "c", "d", "e"], SOON).await;
    })
    .await;
}

/// Keys of one lease go in one revision; the guard holds them.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn mass_loss_by_one_lease_is_held() {
    on_every_etcd(async |etcd| {
        let mut operator = etcd.operator().await;
        let lease = operator.lease_grant(60, None).await.expect("granted").id();
        for n in 0..6 {
            let value = format!(r#"{{"Addr":"10.0.0.{}:80"}}"#, n + 1);
            let options = PutOptions::new().with_lease(lease);
            let key = format!("tower-sd/mass/{n}");
            operator.put(key, value, Some(options)).await.expect("the server answers");
        }
        put(etcd, "mass", "survivor", 80).await;
        let (_instancer, mut subscription) = ready(&etcd.client(), "mass").await;
        operator.lease_revoke(lease).await.expect("revoked");
        let held = shows_that(&mut subscription, "six held", TTL, |it| it.held().len() == 6).await;
        assert_eq!(held.instances().len(), 1);
    })
    .await;
}

mod slow {
    use super::*;

    /// A page of a thousand would be more than is read in one message.
    #[tokio::test]
    #[ignore = "slow: writes 100 MB"]
    async fn hundred_megabytes_are_listed_in_smaller_pages() {
        on_every_etcd(async |etcd| {
            let filler = "x".repeat(1_000_000);
            for n in 0..100 {
                let value =
                    format!(r#"{{"Addr":"10.0.0.{}:80","Metadata":{{"x":"{filler}"}}}}"#, n + 1);
                put_value(etcd, "huge", &format!("{n:03}"), &value).await;
            }
            let instancer = etcd.client().instancer("huge");
            let mut subscription = instancer.subscribe();
            subscription.ready(6 * SOON).await.expect("the server answers");
            assert_eq!(subscription.snapshot().instances().len(), 100);
        })
        .await;
    }
}
