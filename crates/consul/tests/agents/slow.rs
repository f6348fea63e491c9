//! What takes more than half a minute.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    join,
    time::{Instant, sleep, timeout},
};
use tower_sd_consul::Query;
use tower_sd_core::Instancer;

use tower_sd_testkit::{
    absence,
    proxy::{Fault, Proxy},
};

use crate::{
    support::{
        client, get, is_stale, listed, on_every_agent, on_every_version, put, registrar, sees,
        sees_within, web,
    },
    tls::{Files, start, trusted},
};

/// An agent that was suspended fires all TTLs together when it wakes up.
///
/// No check passes for some tens of milliseconds.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_of_100_suspended_for_20_s_costs_no_instance() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let registrar = client(address);
        let ttl = Duration::from_secs(10);
        let mut handles = Vec::new();
        for n in 0..100 {
            let registration = web(&format!("i{n:03}"), 1000 + n).ttl(ttl);
            handles.push(registrar.register(registration).await.expect("registered"));
        }
        let instancer = client(address).instancer(Query::new("web").passing());
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "all", listed(100)).await;
        agent.suspend().expect("it runs");
        sleep(Duration::from_secs(20)).await;
        agent.resume().expect("it runs");
        let resumed = Instant::now();
        let ours = async {
            let (mut least, mut short) = (100, resumed);
            while resumed.elapsed() < WATCHED {
                let snapshot = subscription.snapshot();
                least = least.min(snapshot.known().count());
                if !listed(100)(&snapshot) {
                    short = Instant::now();
                }
                let _changed = timeout(TICK, subscription.changed()).await;
            }
            (least, short)
        };
        let the_agents = async {
            let mut short = resumed;
            while resumed.elapsed() < WATCHED {
                let passing = get(address, "/v1/health/service/web?passing").await;
                if passing.as_array().map(Vec::len) != Some(100) {
                    short = Instant::now();
                }
                sleep(TICK).await;
            }
            short
        };
        let ((least, ours), the_agents) = join!(ours, the_agents);
        let later = ours.saturating_duration_since(the_agents);
        println!(
            "at least {least} of 100 were known; all listed {later:?} after the agent had them"
        );
        assert!(the_agents > resumed, "the agent lost no instance");
        assert!(least >= 50, "{least} of 100 were known");
        // An idle machine shows 36 ms in the median, and with the rate limit of our queries at most
        // 123 ms.
        assert!(later < Duration::from_secs(1), "whole {later:?} after the agent");
    })
    .await;
}

/// Where a hundred queries share a connection, none of them can give it up.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn connection_over_tls_that_fell_silent_is_given_up_within_15_s() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (agent, address) = start(binary, &files).await;
        let proxy = Proxy::start(address).await.expect("loopback");
        let body = serde_json::json!({"Name": "web", "Port": 80, "Address": "10.0.0.1"});
        put(agent.address(), "/v1/agent/service/register", body).await;
        let client = trusted(proxy.address(), &files);
        let instancer = client.instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        sleep(Duration::from_secs(1)).await;
        proxy.set(Fault::BlackHole).await;
        sees_within(Duration::from_secs(20), &mut subscription, "stale", is_stale).await;
        proxy.set(Fault::None).await;
        sees_within(Duration::from_secs(20), &mut subscription, "fresh", listed(1)).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn instance_without_heartbeats_leaves_and_is_removed_later() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let instancer = client(address).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        // As a process that died: nothing is withdrawn.
        let body = serde_json::json!({
            "Name": "web", "ID": "web:a", "Port": 80, "Address": "10.0.0.1",
            "Check": {"TTL": "5s", "Status": "passing", "DeregisterCriticalServiceAfter": "60s"},
        });
        put(address, "/v1/agent/service/register", body).await;
        let registered = Instant::now();
        sees(&mut subscription, "it", listed(1)).await;
        let held = |snapshot: &tower_sd_core::Snapshot| snapshot.instances().is_empty();
        sees_within(Duration::from_secs(8), &mut subscription, "it gone", held).await;
        let gone = registered.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&gone), "{gone:?}");
        let removed = async {
            while get(address, "/v1/health/service/web").await != serde_json::json!([]) {
                sleep(Duration::from_millis(500)).await;
            }
        };
        timeout(Duration::from_secs(110), removed).await.expect("Consul removes it");
        let removed = registered.elapsed();
        assert!(
            (Duration::from_secs(64)..Duration::from_secs(100)).contains(&removed),
            "{removed:?}"
        );
    })
    .await;
}

/// The agent is away for three TTLs.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn registration_outlives_an_agent_wiped_after_three_ttls() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let mut handle = registrar(address).register(web("a", 80)).await.expect("registered");
        agent.kill();
        sleep(crate::support::TTL * 3).await;
        agent.restart_empty().await.expect("it starts again");
        handle.registered(Duration::from_secs(5)).await.expect("it is back");
        let found = get(address, "/v1/health/service/web?passing").await;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
        put(address, "/v1/agent/service/deregister/web:a", Value::Null).await;
    })
    .await;
}

/// How long an agent that wakes up is watched, and how often it is read.
const WATCHED: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(10);

#[tokio::test]
#[ignore = "needs a real consul"]
async fn servers_that_start_without_an_agent_are_patient() {
    on_every_agent(async |agent| {
        let connect = |address| registrar(address).into();
        absence::servers_without_a_registry_are_patient(agent.address(), connect).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn proxy_that_cuts_every_50_s_blinds_rarely() {
    on_every_agent(async |agent| {
        let connect = |address| client(address).into();
        absence::cut_connections_blind_rarely(agent.address(), connect).await;
    })
    .await;
}
