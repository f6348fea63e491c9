//! What happens to leases and keys on a real server.

use std::time::Duration;

use etcd_client::PutOptions;
use tokio::time::{Instant, sleep};
use tower_sd_core::{Instancer, Registration, Snapshot};
use tower_sd_etcd::Etcd;
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    wait::{shows, shows_that},
};

use crate::support::{TTL, holds, instance, on_every_etcd, on_every_etcd_with};

const BACK: Duration = Duration::from_secs(2);

fn registration(service: &str) -> Registration {
    Registration::new(service, instance("a", 8080))
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn granted_time_to_live_counts_even_if_longer() {
    let slow = ["--heartbeat-interval", "100", "--election-timeout", "1000"];
    on_every_etcd_with(&slow, async |etcd| {
        let config = etcd.config().ttl(Duration::from_secs(1));
        let registrar = Etcd::new(config).expect("good settings");
        let _handle = registrar.register(registration("ttl")).await.expect("registers");
        let lease = etcd.entry("ttl").await.expect("is there").lease();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(etcd.entry("ttl").await.expect("is renewed").lease(), lease);
        let left = etcd.operator().await.lease_time_to_live(lease, None).await;
        let left = left.expect("the server answers");
        assert_eq!(left.granted_ttl(), 2);
        assert!(left.ttl() >= 1, "renewed a third of the way: {left:?}");
    })
    .await;
}

/// In go-kit it is not.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn revoked_lease_is_replaced() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        let _handle = registrar.register(registration("revoked")).await.expect("registers");
        let lease = etcd.entry("revoked").await.expect("is there").lease();
        let revoked = etcd.operator().await.lease_revoke(lease).await;
        revoked.expect("it lived");
        holds("back under another lease", BACK, async || {
            let entry = etcd.entry("revoked").await;
            entry.is_some_and(|entry| entry.lease() != lease && entry.lease() != 0)
        })
        .await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn deleted_key_is_put_again_under_the_lease_that_lives() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        let _handle = registrar.register(registration("deleted")).await.expect("registers");
        let before = etcd.entry("deleted").await.expect("is there");
        let deleted = etcd.operator().await.delete(before.key(), None).await;
        assert_eq!(deleted.expect("the server answers").deleted(), 1);
        holds("back", BACK, async || etcd.entry("deleted").await.is_some()).await;
        let after = etcd.entry("deleted").await.expect("is back");
        assert_eq!((after.lease(), after.value()), (before.lease(), before.value()));
    })
    .await;
}

/// A put without a lease makes the key permanent.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn key_that_an_operator_put_without_a_lease_is_put_again() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        let _handle = registrar.register(registration("by-hand")).await.expect("registers");
        let before = etcd.entry("by-hand").await.expect("is there");
        let put = etcd.operator().await.put(before.key(), "by hand", None).await;
        put.expect("the server answers");
        holds("ours again", BACK, async || {
            let entry = etcd.entry("by-hand").await.expect("is there");
            (entry.lease(), entry.value()) == (before.lease(), before.value())
        })
        .await;
    })
    .await;
}

/// A restarted process has put the same key before its predecessor withdraws it.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn predecessor_neither_fights_its_successor_nor_takes_it_away() {
    on_every_etcd(async |etcd| {
        let old = etcd.client();
        let new = etcd.client();
        let old = old.register(registration("same")).await.expect("registers");
        let new = new.register(registration("same")).await.expect("registers");
        let entry = etcd.entry("same").await.expect("is there");
        sleep(TTL).await;
        let later = etcd.entry("same").await.expect("is there");
        assert_eq!(later.mod_revision(), entry.mod_revision(), "a registration fights");
        old.deregister().await.expect("deregisters");
        let left = etcd.entry("same").await.expect("the successor's is there");
        assert_eq!(left.mod_revision(), entry.mod_revision());
        new.deregister().await.expect("deregisters");
        assert!(etcd.entry("same").await.is_none());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn registration_is_back_when_its_successor_has_gone() {
    on_every_etcd(async |etcd| {
        let first = etcd.client();
        let second = etcd.client();
        let _first = first.register(registration("two")).await.expect("registers");
        let second = second.register(registration("two")).await.expect("registers");
        let lease = etcd.entry("two").await.expect("is there").lease();
        second.deregister().await.expect("deregisters");
        holds("the first is back", 5 * BACK, async || {
            etcd.entry("two").await.is_some_and(|entry| entry.lease() != lease)
        })
        .await;
    })
    .await;
}

/// In go-kit the lease lives on.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn deregistering_leaves_neither_key_nor_lease() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        let handle = registrar.register(registration("gone")).await.expect("registers");
        handle.deregister().await.expect("deregisters");
        assert!(etcd.entry("gone").await.is_none());
        let leases = etcd.operator().await.leases().await.expect("the server answers");
        assert!(leases.leases().is_empty(), "{leases:?}");
    })
    .await;
}

/// In go-kit one client has one lease and one watch, and a second registration ends the first and
/// whatever is followed.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn registering_twice_and_deregistering_never_blocks() {
    on_every_etcd(async |etcd| {
        let client = etcd.client();
        let instancer = client.instancer("twice");
        let mut subscription = instancer.subscribe();
        let registrar = client.clone();
        let one = registrar.register(registration("twice")).await.expect("registers");
        let other = Registration::new("twice", instance("b", 8081));
        let two = registrar.register(other).await.expect("registers");
        let again = registrar.register(registration("twice")).await.expect("registers");
        let leases = etcd.operator().await.leases().await.expect("the server answers");
        assert_eq!(leases.leases().len(), 3, "one lease for each");
        shows(&mut subscription, &["a", "b"], BACK).await;
        for handle in [again, one, two] {
            let start = Instant::now();
            handle.deregister().await.expect("deregisters");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
        assert!(etcd.keys("twice").await.is_empty());
        let late = Registration::new("twice", instance("c", 8082));
        let _late = registrar.register(late).await.expect("registers");
        let has_it = |it: &Snapshot| it.instances().iter().any(|one| one.id().as_str() == "c");
        shows_that(&mut subscription, "c, on the watch that goes on", BACK, has_it).await;
        let stats = subscription.stats();
        assert_eq!((stats.resyncs, stats.errors), (0, 0), "{stats:?}");
    })
    .await;
}

/// The proxy counts the attempts.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn outage_of_three_ttls_is_survived_at_a_bounded_rate() {
    on_every_etcd(async |etcd| {
        let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
        let mut config = etcd.config();
        config.endpoints = vec![proxy.address().to_string()];
        let client = Etcd::new(config).expect("good settings");
        let registrar = client.clone();
        let handle = registrar.register(registration("away")).await.expect("registers");
        proxy.set(Fault::Cut).await;
        let before = proxy.n_accepted();
        sleep(3 * TTL).await;
        let attempts = proxy.n_accepted() - before;
        assert!(etcd.entry("away").await.is_none(), "the lease has expired");
        // Registration, watch and reads of the own key have a growing pause each.
        assert!((4..=60).contains(&attempts), "{attempts} attempts in {:?}", 3 * TTL);
        proxy.set(Fault::None).await;
        holds("back", BACK, async || etcd.entry("away").await.is_some()).await;
        handle.deregister().await.expect("deregisters");
    })
    .await;
}

/// A connection that swallows everything is given up, although no side resets it.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn black_hole_is_noticed_and_left() {
    on_every_etcd(async |etcd| {
        let proxy = Proxy::start(etcd.server.address()).await.expect("a proxy");
        let mut config = etcd.config();
        config.endpoints = vec![proxy.address().to_string()];
        let client = Etcd::new(config).expect("good settings");
        let registrar = client.clone();
        let handle = registrar.register(registration("hole")).await.expect("registers");
        proxy.set(Fault::BlackHole).await;
        sleep(2 * TTL).await;
        proxy.set(Fault::None).await;
        holds("back", BACK, async || etcd.entry("hole").await.is_some()).await;
        handle.deregister().await.expect("deregisters");
        assert!(etcd.entry("hole").await.is_none());
    })
    .await;
}

/// The watch may miss a change; a read of the key shows it.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn put_of_the_same_value_under_a_living_lease_is_left_alone() {
    on_every_etcd(async |etcd| {
        let registrar = etcd.client();
        let _handle = registrar.register(registration("other")).await.expect("registers");
        let entry = etcd.entry("other").await.expect("is there");
        let mut operator = etcd.operator().await;
        let lease = operator.lease_grant(60, None).await.expect("granted").id();
        let options = PutOptions::new().with_lease(lease);
        let put = operator.put(entry.key(), entry.value(), Some(options)).await;
        put.expect("the server answers");
        sleep(2 * TTL).await;
        assert_eq!(etcd.entry("other").await.expect("is there").lease(), lease);
        operator.lease_revoke(lease).await.expect("revoked");
        holds("ours again", 5 * BACK, async || {
            etcd.entry("other").await.is_some_and(|it| it.lease() != lease)
        })
        .await;
    })
    .await;
}
