use std::{net::SocketAddr, time::Duration};

use tokio::time::{sleep, timeout};
use tower_sd_core::{
    FollowConfig, Follower, Instancer, LossGuard, LossPolicy, RegistryConfig, Snapshot,
    Subscription,
};
use tower_sd_dns::{Dns, DnsConfig, Query, Transport};

use crate::support::{NameServer, Reply, a, srv};

pub(crate) const SERVICE: &str = "_web._tcp.lab.test.";

/// An instancer of [`SERVICE`] in a hurry, and its settings.
pub(crate) struct Settings {
    pub(crate) dns: DnsConfig,
    pub(crate) query: Query,
    pub(crate) loss: LossPolicy,
    pub(crate) follow: FollowConfig,
}

pub(crate) struct Following {
    pub(crate) instancer: Follower,
    pub(crate) subscription: Subscription,
}

impl Settings {
    pub(crate) fn of(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut follow = FollowConfig::default();
        follow.min_refresh = Duration::from_millis(50);
        follow.max_backoff = Duration::from_millis(100);
        follow.denied_interval = Duration::from_millis(50);
        Self {
            dns: DnsConfig::new(servers).timeout(Duration::from_millis(300)),
            query: Query::srv(SERVICE).expect("a name"),
            loss: LossPolicy::Accept,
            follow,
        }
    }

    pub(crate) fn over_tcp(mut self) -> Self {
        self.dns = self.dns.transport(Transport::TcpFirst);
        self
    }

    pub(crate) fn query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    pub(crate) fn start(self) -> Following {
        let registry = RegistryConfig::default().loss(self.loss).follow(self.follow);
        let instancer = Dns::new(self.dns.registry(registry)).instancer(self.query);
        let subscription = instancer.subscribe();
        Following { instancer, subscription }
    }
}

impl Following {
    /// Waits until the addresses of the instances are exactly these.
    pub(crate) async fn sees(&mut self, addresses: &[&str]) -> Snapshot {
        self.sees_that(&format!("{addresses:?}"), |snapshot| shown(snapshot) == addresses).await
    }

    pub(crate) async fn sees_that(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
    ) -> Snapshot {
        let subscription = &mut self.subscription;
        let wait = async {
            let mut snapshot = subscription.snapshot();
            while !(snapshot.freshness().is_synced() && wanted(&snapshot)) {
                snapshot = subscription.changed().await.expect("the loop lives");
            }
            snapshot
        };
        let seen = timeout(BOUND, wait).await;
        seen.unwrap_or_else(|_| panic!("not seen: {what}; but {:#?}", self.subscription.snapshot()))
    }

    /// Waits until a read has failed, and returns why.
    pub(crate) async fn fails(&mut self) -> String {
        let subscription = &mut self.subscription;
        let wait = async {
            loop {
                if let Some(error) = subscription.snapshot().freshness().error() {
                    return error.to_string();
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(BOUND, wait).await.expect("it fails")
    }
}

/// The addresses, in order.
pub(crate) fn shown(snapshot: &Snapshot) -> Vec<String> {
    let mut shown: Vec<_> = snapshot.instances().iter().map(ToString::to_string).collect();
    shown.sort();
    shown
}

/// One record with its address: what most tests start from.
pub(crate) fn one() -> Reply {
    Reply::records([srv(SERVICE, 0, (0, 0, 80, "a.lab.test."))]).additional(a(
        "a.lab.test.",
        0,
        [10, 0, 0, 1],
    ))
}

/// A server that answers with [`one`], and a subscriber that has seen it.
pub(crate) async fn one_is_seen() -> (NameServer, Following) {
    let server = NameServer::start(|_| one()).await;
    let mut following = Settings::of([server.address]).start();
    following.sees(&["10.0.0.1:80"]).await;
    (server, following)
}

/// The default guard, in a hurry.
pub(crate) fn short_guard() -> LossPolicy {
    let mut guard = LossGuard::default();
    (guard.hold, guard.hold_empty) = (Duration::from_millis(200), Duration::from_millis(400));
    LossPolicy::Guard(guard)
}

const BOUND: Duration = Duration::from_secs(10);
