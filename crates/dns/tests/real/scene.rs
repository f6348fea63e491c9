use std::time::Duration;

use tokio::time::timeout;
use tower_sd_core::{FollowConfig, Follower, RegistryConfig, Snapshot, Subscription};
use tower_sd_dns::{Dns, DnsConfig, Query};
use tower_sd_testkit::{real::Bind, servers::required};

/// Long enough for everything that should be immediate.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// The shortest time between lookups, where a test does not set another: TTLs of 0 are the rule.
pub(crate) const OFTEN: Duration = Duration::from_millis(100);

pub(crate) async fn named() -> Bind {
    Bind::start(&required("named")).await.expect("named starts")
}

/// In a hurry; the guard is as it is by default.
pub(crate) fn hasty() -> FollowConfig {
    let mut follow = FollowConfig::default();
    (follow.min_refresh, follow.max_refresh) = (OFTEN, Duration::from_secs(60));
    follow
}

pub(crate) fn follow(dns: DnsConfig, query: Query, follow: FollowConfig) -> Follower {
    Dns::new(dns.registry(RegistryConfig::default().follow(follow))).instancer(query)
}

/// [`hasty`], over UDP first.
pub(crate) fn following(bind: &Bind, query: Query) -> Follower {
    follow(DnsConfig::new([bind.address()]), query, hasty())
}

pub(crate) fn services() -> Query {
    Query::srv("_web._tcp.lab.test").expect("a name")
}

pub(crate) async fn update(bind: &Bind, lines: &str) {
    bind.update(lines).await.expect("named takes an update");
}

pub(crate) async fn sees(
    subscription: &mut Subscription,
    bound: Duration,
    wanted: &[&str],
) -> Snapshot {
    sees_that(subscription, bound, |snapshot| {
        let mut shown: Vec<_> = snapshot.instances().iter().map(ToString::to_string).collect();
        shown.sort();
        snapshot.freshness().is_synced() && shown == wanted
    })
    .await
}

pub(crate) async fn sees_that(
    subscription: &mut Subscription,
    bound: Duration,
    wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
) -> Snapshot {
    let wait = async {
        let mut snapshot = subscription.snapshot();
        while !wanted(&snapshot) {
            snapshot = subscription.changed().await.expect("the loop lives");
        }
        snapshot
    };
    let seen = timeout(bound, wait).await;
    seen.unwrap_or_else(|_| panic!("not seen; but {:#?}", subscription.snapshot()))
}
