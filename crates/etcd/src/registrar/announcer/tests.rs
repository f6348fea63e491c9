use tower_sd_core::Instance;
use tower_sd_testkit::{real, servers::required};

use super::*;
use crate::EtcdConfig;

/// The lease dies between two puts, and between the grant and the put as far as the server can see.
#[tokio::test]
#[ignore = "needs a real etcd"]
async fn put_under_a_lease_that_has_died_is_made_under_a_new_one() {
    let server = real::Etcd::start(real::EtcdConfig::new(required("etcd"))).await;
    let server = server.expect("etcd starts");
    let client = EtcdClient::new(EtcdConfig::new([server.url()])).expect("good settings");
    let desired = Announcement::new("s", Instance::new("127.0.0.1", 80));
    let mut announcer = EtcdAnnouncer::new(&client, "s", "a").expect("good names");
    announcer.announce(&desired).await.expect("announces");
    let first = announcer.lease.expect("has one").id;
    let mut operator = etcd_client::Client::connect([server.url()], None).await.expect("connects");
    operator.lease_revoke(first).await.expect("revoked");
    announcer.announce(&desired).await.expect("announces again");
    assert_ne!(announcer.lease.expect("has one").id, first);

    let granted = announcer.entry.grant().await.expect("granted");
    announcer.lease = Some(granted);
    operator.lease_revoke(granted.id).await.expect("revoked");
    announcer.announce(&desired).await.expect("announces again");
    let entry = operator.get("tower-sd/s/a", None).await.expect("the server answers");
    assert_eq!(entry.kvs()[0].lease(), announcer.lease.expect("has one").id);
    announcer.withdraw().await.expect("withdraws");
    announcer.withdraw().await.expect("is idempotent");
}
