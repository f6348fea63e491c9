use std::time::Duration;

use tonic::Code;
use tower_sd_core::{Instance, Registration, RegistrationHandle};
use tower_sd_etcd::{Etcd, EtcdConfig};

use super::{Count, Fake, Lease, PutRequest, Reply, TxnRequest, header, say, well};
use crate::support::holds;

/// The granted time to live is 1 s: a renewal takes place within a third of that, a look at the key
/// within all of it.
const SOON: Duration = Duration::from_secs(3);

async fn register(fake: &Fake) -> RegistrationHandle {
    let client = Etcd::new(EtcdConfig::new([fake.endpoint()])).expect("good settings");
    let instance = Instance::new("127.0.0.1", 80).with_id("a");
    let registered = client.clone().register(Registration::new("s", instance)).await;
    registered.expect("registers")
}

fn granted(id: i64) -> Vec<Reply> {
    vec![say(&Lease { header: header(), id, ttl: 1 })]
}

/// The leases of the puts so far: the first of a registration is a put, the later ones are
/// transactions.
fn puts(fake: &Fake) -> Vec<i64> {
    let first = fake.calls("Put").into_iter().map(|call| call.decode::<PutRequest>());
    let later = fake.calls("Txn").into_iter().flat_map(|call| {
        let txn: TxnRequest = call.decode();
        txn.success.into_iter().filter_map(|operation| operation.put)
    });
    first.chain(later).map(|put| put.lease).collect()
}

/// The lease has expired between the grant and the put.
#[tokio::test]
async fn lease_that_dies_before_the_put_is_replaced() {
    let grants = Count::default();
    let fake = Fake::start(move |call| match &*call.method {
        "LeaseGrant" => granted(if grants.next() == 0 { 1 } else { 2 }),
        "Put" if call.decode::<PutRequest>().lease == 1 => {
            vec![Reply::End(Code::NotFound, "etcdserver: requested lease not found")]
        }
        _ => well(call),
    })
    .await;
    let _handle = register(&fake).await;
    assert_eq!(puts(&fake).last(), Some(&2), "{:?}", puts(&fake));
}

/// When no lease lives long enough, that is no reason to stop trying, and none to try without
/// pause.
#[tokio::test]
async fn leases_that_all_die_are_not_requested_without_pause() {
    let fake = Fake::start(|call| match &*call.method {
        "Put" => vec![Reply::End(Code::NotFound, "etcdserver: requested lease not found")],
        _ => well(call),
    })
    .await;
    let client = Etcd::new(EtcdConfig::new([fake.endpoint()])).expect("good settings");
    let one = Registration::new("s", Instance::new("127.0.0.1", 80));
    let one = one.fail_fast(Duration::from_secs(1));
    client.clone().register(one).await.expect_err("no lease lives");
    let n_grants = fake.calls("LeaseGrant").len();
    // Three of them immediately, again after at most 250 ms, and then less and less often.
    assert!((6..=60).contains(&n_grants), "{n_grants} grants in a second");
}

/// The answer to a renewal has no time to live, which is how etcd reports a dead lease.
#[tokio::test]
async fn renewal_without_a_time_to_live_is_a_dead_lease() {
    let grants = Count::default();
    let fake = Fake::start(move |call| match &*call.method {
        "LeaseGrant" => granted(if grants.next() == 0 { 1 } else { 2 }),
        "LeaseKeepAlive" if call.decode::<KeepAlive>().id == 1 => {
            vec![say(&Lease { header: header(), id: 1, ttl: 0 })]
        }
        "LeaseKeepAlive" => granted(2),
        _ => well(call),
    })
    .await;
    let _handle = register(&fake).await;
    assert_eq!(puts(&fake), [1]);
    holds("put under another lease", SOON, async || puts(&fake).last() == Some(&2)).await;
}

/// Old servers report that a lease lives that was revoked, and the watch of the own key has missed
/// the deletion. A read of the key shows it.
#[tokio::test]
async fn key_that_is_gone_although_its_lease_is_renewed_is_put_again() {
    let fake = Fake::start(well).await;
    let _handle = register(&fake).await;
    assert_eq!(puts(&fake), [7]);
    holds("put again", SOON, async || puts(&fake).len() > 1).await;
    let n_renewed = fake.calls("LeaseKeepAlive").len();
    assert!(n_renewed >= 3, "{n_renewed} renewals, each of which was answered");
}

/// In go-kit no call has a bound, so that a silent server holds a registration, and its end,
/// indefinitely.
#[tokio::test]
async fn registration_at_a_server_that_answers_nothing_fails() {
    let fake = Fake::start(|_| Vec::new()).await;
    let bound = Duration::from_millis(200);
    let config = EtcdConfig::new([fake.endpoint()]).request_timeout(bound);
    let registrar = Etcd::new(config).expect("good settings");
    let one = Registration::new("s", Instance::new("127.0.0.1", 80)).fail_fast(2 * bound);
    let registered = tokio::time::timeout(SOON, registrar.register(one)).await;
    registered.expect("it is bounded").expect_err("no answer");
    tokio::time::timeout(SOON, registrar.close()).await.expect("so is its end");
}

#[derive(Clone, prost::Message)]
struct KeepAlive {
    #[prost(int64, tag = "1")]
    id: i64,
}
