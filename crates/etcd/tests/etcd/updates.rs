//! Registrations that are updated all the time, as with a weight of measured load.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tower_sd_core::{ErrorKind, Registration};
use tower_sd_etcd::KratosJson;

use crate::support::{EtcdFixture, TTL, instance, note, on_every_etcd};

/// A put does not prolong a lease: renewals must go on, however often the entry changes.
async fn is_never_absent(etcd: &EtcdFixture, every: Duration, for_time: Duration) {
    let registrar = etcd.client();
    let one = Registration::new("busy", instance("a", 8080));
    let handle = registrar.register(one).await.expect("registers");
    let entry = etcd.entry("busy").await.expect("is there");
    let options = WatchOptions::new().with_start_revision(entry.mod_revision());
    let mut operator = etcd.operator().await;
    let mut events = operator.watch(entry.key(), Some(options)).await.expect("watches");
    let deadline = Instant::now() + for_time;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n_updates = 0_u32;
    while Instant::now() < deadline {
        ticks.tick().await;
        n_updates += 1;
        let weight = 1 + n_updates % 100;
        handle.update(move |it| it.with_weight(weight)).await.expect("accepted");
    }
    let (mut n_puts, mut n_deleted) = (0, 0);
    while let Ok(Ok(Some(message))) = timeout(Duration::from_secs(1), events.message()).await {
        for event in message.events() {
            match event.event_type() {
                EventType::Put => n_puts += 1,
                EventType::Delete => n_deleted += 1,
            }
        }
    }
    note(&format!("{n_updates} updates, {n_puts} puts, {n_deleted} deletions in {for_time:?}"));
    assert_eq!(n_deleted, 0);
    assert!(n_puts >= n_updates);
    let lease = etcd.entry("busy").await.expect("is there").lease();
    assert_eq!(lease, entry.lease(), "one lease for all the time");
    handle.deregister().await.expect("deregisters");
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn updates_at_a_tenth_of_the_ttl_leave_no_gap() {
    on_every_etcd(async |etcd| is_never_absent(etcd, TTL / 10, 4 * TTL).await).await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn value_above_the_limit_is_refused_and_the_old_one_stays() {
    on_every_etcd(async |etcd| {
        // A third of the time to live is the bound of a put, and these are large.
        let ttl = Duration::from_secs(6);
        let registrar = tower_sd_etcd::Etcd::new(etcd.config().ttl(ttl)).expect("good settings");
        let one = Registration::new("large", instance("a", 8080));
        let handle = registrar.register(one).await.expect("registers");
        let before = etcd.entry("large").await.expect("is there");
        // Above etcd's own limit, and above that of its gRPC server.
        for n_bytes in [1_600_000, 3_000_000] {
            let value = "x".repeat(n_bytes);
            let updated = handle.update(move |it| it.with_metadata("large", value)).await;
            let error = updated.expect_err("is too large");
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false));
            assert!(error.to_string().contains("--max-request-bytes"), "{error}");
        }
        tokio::time::sleep(ttl + Duration::from_secs(1)).await;
        let after = etcd.entry("large").await.expect("is there");
        assert_eq!((after.value(), after.lease()), (before.value(), before.lease()));
        handle.update(|it| it.with_weight(7)).await.expect("accepted");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn codec_that_only_reads_is_a_refusal_with_its_name() {
    on_every_etcd(async |etcd| {
        let config = etcd.config().codec(KratosJson::new("http"));
        let client = tower_sd_etcd::Etcd::new(config).expect("good settings");
        let one = Registration::new("kratos", instance("a", 8080));
        let registered = client.clone().register(one).await;
        let error = registered.expect_err("cannot be written");
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false));
        assert!(error.to_string().contains("KratosJson"), "{error}");
    })
    .await;
}

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "slow: ten minutes"]
    async fn updates_every_100_ms_for_ten_minutes_leave_no_gap() {
        on_every_etcd(async |etcd| {
            is_never_absent(etcd, Duration::from_millis(100), Duration::from_secs(600)).await;
        })
        .await;
    }
}
