//! Two registrations of one id: a predecessor and its successor.

use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse};
use tokio::time::{sleep, timeout};
use tower_sd_core::{InstanceStatus, Registration, RegistrationHandle, RegistrationState};
use tower_sd_testkit::log::Log;

use crate::support::{EtcdFixture, TTL, holds, instance, on_every_etcd};

const SOON: Duration = Duration::from_secs(10);

async fn register(etcd: &EtcdFixture, service: &str) -> RegistrationHandle {
    let registrar = etcd.client();
    let one = Registration::new(service, instance("same", 8080));
    registrar.register(one).await.expect("registers")
}

fn is_taken_over(handle: &RegistrationHandle) -> bool {
    matches!(handle.state(), RegistrationState::TakenOver { .. })
}

/// As a lifecycle does at SIGTERM: maintenance, then deregistration, with updates in between.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn predecessor_takes_nothing_from_its_successor() {
    on_every_etcd(async |etcd| {
        let old = register(etcd, "same").await;
        let _new = register(etcd, "same").await;
        let entry = etcd.entry("same").await.expect("is there");
        let options = WatchOptions::new().with_start_revision(entry.mod_revision() + 1);
        let mut operator = etcd.operator().await;
        let mut events = operator.watch(entry.key(), Some(options)).await.expect("watches");
        let created = events.message().await.expect("the server answers");
        assert!(created.is_some_and(|it| it.created()));

        for weight in 2..5 {
            let change =
                old.update(move |it| it.with_status(InstanceStatus::Draining).with_weight(weight));
            // Whether it is an error that the entry is another's is the core's affair.
            drop(timeout(SOON, change).await.expect("it is answered"));
        }
        holds("the predecessor reports it", SOON, async || is_taken_over(&old)).await;
        sleep(TTL).await;
        old.deregister().await.expect("deregisters");
        sleep(TTL).await;

        let seen = timeout(Duration::from_millis(200), events.message()).await;
        let seen = seen.ok().and_then(|it| it.expect("the server answers"));
        let n_events = seen.as_ref().map_or(0, |it: &WatchResponse| it.events().len());
        assert_eq!(n_events, 0, "the successor's key was touched: {seen:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn taken_over_registration_reports_the_new_address_and_lease() {
    let (log, _guard) = Log::capture();
    on_every_etcd(async |etcd| {
        let old = register(etcd, "by").await;
        let before = etcd.entry("by").await.expect("is there").lease();
        let new = register(etcd, "by").await;
        let lease = etcd.entry("by").await.expect("is there").lease();
        holds("the predecessor reports it", SOON, async || is_taken_over(&old)).await;
        let RegistrationState::TakenOver { by } = old.state() else {
            panic!("{:?}", old.state());
        };
        assert!(by.contains("127.0.0.1:8080") && by.contains(&format!("{lease:x}")), "{by}");
        new.deregister().await.expect("deregisters");
        holds("the predecessor is back", SOON, async || {
            matches!(old.state(), RegistrationState::Registered)
        })
        .await;
        assert_ne!(etcd.entry("by").await.expect("is back").lease(), lease);
        // The other side, which may be on another host; of this etcd alone.
        let mut took_over = log.found("WARN", "took over another registration's entry");
        let from = format!("127.0.0.1:8080, lease {before:x}");
        took_over.retain(|warning| warning["from"] == from);
        assert_eq!(took_over.len(), 1, "{took_over:?}");
        assert_eq!(took_over[0]["key"], "tower-sd/by/same");
    })
    .await;
}

/// A successor that was suspended for longer than its TTL finds another registration in its place.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn registration_without_a_lease_takes_nothing_from_a_successor() {
    on_every_etcd(async |etcd| {
        let old = register(etcd, "late").await;
        let lease = etcd.entry("late").await.expect("is there").lease();
        let new = register(etcd, "late").await;
        let entry = etcd.entry("late").await.expect("is there");
        etcd.operator().await.lease_revoke(lease).await.expect("it lives");
        sleep(2 * TTL).await;
        let later = etcd.entry("late").await.expect("is there");
        assert_eq!(later.mod_revision(), entry.mod_revision());
        assert!(is_taken_over(&old), "{:?}", old.state());
        new.deregister().await.expect("deregisters");
    })
    .await;
}
