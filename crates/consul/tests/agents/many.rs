//! More services than connections.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{InstanceStatus, Instancer, Snapshot, Subscription};
use tower_sd_testkit::{real, usage::connections_to};

use crate::{
    support::{client, is_stale, on_every_agent, on_every_version, put, sees, sees_within},
    tls::{Files, start, trusted},
};

async fn register(agent: &real::Consul, n: usize, port: usize) {
    let (host, name) = (format!("10.0.{}.{}", n / 200, n % 200 + 1), format!("s{n:04}"));
    let check = json!({"CheckID": format!("c{n:04}"), "TTL": "10m", "Status": "passing"});
    let body = json!({"Name": name, "Address": host, "Port": port, "Check": check});
    put(agent.address(), "/v1/agent/service/register", body).await;
}

fn at_port(port: u16) -> impl Fn(&Snapshot) -> bool + Send + Sync {
    move |snapshot| snapshot.instances().iter().any(|instance| instance.port() == port)
}

/// Follows `n` services of one client at `address`, waits until all are known, changes
/// some, and returns how long that took to be seen, and over how many connections.
async fn follow(
    agent: &real::Consul,
    client: &Consul,
    address: SocketAddr,
    n: usize,
) -> (Vec<Duration>, usize) {
    stream::iter(0..n).for_each_concurrent(16, |n| register(agent, n, 80)).await;
    let instancers: Vec<_> =
        (0..n).map(|n| client.instancer(Query::new(format!("s{n:04}")))).collect();
    let mut followed: Vec<Subscription> = instancers.iter().map(Instancer::subscribe).collect();
    for subscription in &mut followed {
        sees_within(Duration::from_secs(60), subscription, "all", at_port(80)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let (mut delays, mut sockets) = (Vec::new(), 0);
    for k in 0..n / 20 {
        let changed = k * 997 % n;
        let started = Instant::now();
        match k % 2 {
            // Only in the catalogue's services.
            0 => register(agent, changed, 81).await,
            // Only in the checks.
            _ => {
                put(agent.address(), &format!("/v1/agent/check/fail/c{changed:04}"), json!(null))
                    .await;
            }
        }
        let seen = |snapshot: &Snapshot| match k % 2 {
            0 => at_port(81)(snapshot),
            _ => snapshot.instances().is_empty(),
        };
        sees(&mut followed[changed], "the change", seen).await;
        delays.push(started.elapsed());
        sockets = sockets.max(connections_to(address).expect("Linux"));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(sockets <= 64, "{sockets} connections");
    // The agent goes away: all of them know.
    agent.suspend().expect("it runs");
    agent.resume().expect("it runs");
    agent.kill();
    for subscription in &mut followed {
        sees(subscription, "stale", is_stale).await;
    }
    delays.sort();
    (delays, sockets)
}

/// Three hundred checks that fail, of services that are not followed.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn followers_that_share_see_changes_beside_a_large_datacentre() {
    on_every_agent(async |agent| {
        let output = "x".repeat(300);
        let failing = |n: usize| {
            let output = &output;
            async move {
                let check = json!({"CheckID": format!("f{n}"), "TTL": "10m", "Notes": output});
                let body = json!({"Name": format!("other{n}"), "Port": 80, "Check": check});
                put(agent.address(), "/v1/agent/service/register", body).await;
            }
        };
        stream::iter(0..300).for_each_concurrent(8, failing).await;
        let config = ConsulConfig::new(agent.url()).max_blocking_queries(1).max_body(60_000);
        let client = Consul::new(config).expect("an address");
        let follow = |name: &str| client.instancer(Query::new(name).any_health()).subscribe();
        let mut followed = [follow("s0000"), follow("S0001")];
        for (n, subscription) in followed.iter_mut().enumerate() {
            sees(subscription, "none", |it| it.freshness().is_fresh()).await;
            register(agent, n, 80).await;
            sees(subscription, "it", at_port(80)).await;
            let started = Instant::now();
            let target = format!("/v1/agent/check/fail/c000{n}");
            put(agent.address(), &target, json!(null)).await;
            sees(subscription, "it critical", |it| {
                it.instances().iter().all(|it| it.status() == InstanceStatus::Critical)
            })
            .await;
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
            assert!(subscription.snapshot().freshness().is_fresh());
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn two_hundred_services_share_three_queries() {
    on_every_agent(async |agent| {
        follow(agent, &client(agent.address()), agent.address(), 200).await;
    })
    .await;
}

/// Over TLS agents use HTTP/2: each service has a query of its own, none a connection.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn over_tls_two_hundred_services_are_streams() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (agent, address) = start(binary, &files).await;
        let (_, connections) = follow(&agent, &trusted(address, &files), address, 200).await;
        // One for short calls, two for a hundred queries each, and some that came too late to be
        // needed.
        assert!(connections <= 8, "{connections}");
    })
    .await;
}

pub(crate) mod slow {
    use super::*;
    use crate::support::say;

    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn thousand_services_are_followed_within_64_connections() {
        on_every_agent(async |agent| {
            report(follow(agent, &client(agent.address()), agent.address(), 1000).await);
        })
        .await;
    }

    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn thousand_services_over_tls_need_64_connections_at_most() {
        on_every_version(async |binary| {
            let files = Files::new();
            let (agent, address) = start(binary, &files).await;
            report(follow(&agent, &trusted(address, &files), address, 1000).await);
        })
        .await;
    }

    fn report((delays, connections): (Vec<Duration>, usize)) {
        let (median, slowest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        say(&format!(
            "change to snapshot: median {median:?}, slowest {slowest:?}; {connections} connections"
        ));
        // Five times the bar, for a debug build on a busy machine; `cargo xtask bench consul` holds
        // it.
        assert!(slowest <= Duration::from_secs(5), "{delays:?}");
    }
}
