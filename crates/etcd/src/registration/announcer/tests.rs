use std::time::Duration;

use tokio::time::sleep;
use tower_sd_core::Instance;
use tower_sd_testkit::{
    real,
    servers::{ServerBinary, configured},
};

use super::*;
use crate::EtcdConfig;

fn binaries() -> Vec<ServerBinary> {
    configured("etcd").unwrap_or_else(|missing| panic!("{missing}"))
}

/// The lease dies between two puts, and between the grant and the put as far as the server can see;
/// of the first announcement and of later ones, which are transactions.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn put_under_a_lease_that_has_died_is_made_under_a_new_one() {
    for (binary, takes_over) in
        binaries().into_iter().flat_map(|it| [(it.clone(), true), (it, false)])
    {
        let server = real::Etcd::start(real::EtcdConfig::new(binary)).await;
        let server = server.expect("etcd starts");
        let client = EtcdClient::new(EtcdConfig::new([server.url()])).expect("good settings");
        let first = Announcement::new("s", Instance::new("127.0.0.1", 80));
        let registration = Registration::new("s", first.instance.clone().with_id("a"));
        let mut later = first.clone();
        later.takes_over = takes_over;
        let mut announcer = EtcdAnnouncer::new(&client, &registration).expect("good names");
        announcer.announce(&first).await.expect("announces");
        let lease = announcer.lease.expect("has one").id;
        let operator = etcd_client::Client::connect([server.url()], None).await;
        let mut operator = operator.expect("connects");
        operator.lease_revoke(lease).await.expect("revoked");
        announcer.announce(&later).await.expect("announces again");
        assert_ne!(announcer.lease.expect("has one").id, lease);

        let granted = announcer.entry.grant().await.expect("granted");
        announcer.lease = Some(granted);
        operator.lease_revoke(granted.id).await.expect("revoked");
        operator.delete("tower-sd/s/a", None).await.expect("the server answers");
        announcer.announce(&later).await.expect("announces again");
        let entry = operator.get("tower-sd/s/a", None).await.expect("the server answers");
        assert_eq!(entry.kvs()[0].lease(), announcer.lease.expect("has one").id);
        announcer.withdraw().await.expect("withdraws");
        announcer.withdraw().await.expect("is idempotent");
    }
}

/// While it stands by nothing renews its lease, and a put does not prolong it.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn entry_that_is_put_again_after_a_takeover_has_a_whole_ttl() {
    for binary in binaries() {
        let server = real::Etcd::start(real::EtcdConfig::new(binary)).await;
        let server = server.expect("etcd starts");
        let client = EtcdClient::new(EtcdConfig::new([server.url()])).expect("good settings");
        let mut announcement = Announcement::new("s", Instance::new("127.0.0.1", 80));
        let registration = Registration::new("s", announcement.instance.clone().with_id("a"));
        let registration = registration.ttl(Duration::from_secs(10));
        let new = || EtcdAnnouncer::new(&client, &registration).expect("good names");
        let (mut old, mut successor) = (new(), new());
        for announcer in [&mut old, &mut successor] {
            announcer.announce(&announcement).await.expect("announces");
        }
        announcement.takes_over = false;
        let lost = old.announce(&announcement).await.expect("etcd answers");
        assert!(matches!(lost, Renewal::Lost(LossReason::TakenOver { .. })), "{lost:?}");
        sleep(Duration::from_secs(3)).await;
        successor.withdraw().await.expect("withdraws");
        let operator = etcd_client::Client::connect([server.url()], None).await;
        let mut operator = operator.expect("connects");
        let lease = old.lease.expect("has one").id;
        let mut left =
            async || operator.lease_time_to_live(lease, None).await.expect("it lives").ttl();
        let before = left().await;
        let renewed = old.announce(&announcement).await.expect("the key is free");
        assert!(matches!(renewed, Renewal::Renewed(_)), "{renewed:?}");
        let after = left().await;
        assert!(after > before, "{after} s, and {before} s before it was put");
    }
}
