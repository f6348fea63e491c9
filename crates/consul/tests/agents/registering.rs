//! A registration's form in Consul, and how it comes back.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::{Check, Consul, ConsulConfig, Query, RegistrationOptions};
use tower_sd_core::{
    CheckResult, Instance, InstanceStatus, Instancer, LossPolicy, Registration, RegistrationState,
    RegistryConfig,
};
use tower_sd_testkit::{real, usage::connections_to};

use crate::support::{
    BOUND, TTL, becomes, client, get, listed, n_entries, on_every_agent, on_every_version, put,
    registrar, sees, web,
};

/// What Consul makes of what is sent.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn consul_shows_what_was_registered_over_http_and_dns() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let instance = Instance::new("127.0.0.9", 8081).with_id("a").with_weight(70);
        let instance = instance.with_tags(["v2"]).with_metadata("shard", "3");
        let registration = Registration::new("arithmetic", instance);
        let handle = registrar(address).register(registration).await.expect("registered");
        let client = client(address);
        client.wait_until_visible("arithmetic", handle.id(), BOUND).await.expect("visible");
        let found = get(address, "/v1/health/service/arithmetic?passing").await;
        let service = &found[0]["Service"];
        assert_eq!(service["ID"], "arithmetic:a");
        assert_eq!((&service["Address"], &service["Port"]), (&json!("127.0.0.9"), &json!(8081)));
        assert_eq!(service["Tags"], json!(["v2"]));
        assert_eq!(service["Meta"]["shard"], "3");
        assert_eq!(service["Weights"], json!({"Passing": 70, "Warning": 70}));
        let (weight, port) = srv(agent.dns_address(), "arithmetic.service.consul").await;
        assert_eq!((weight, port), (70, 8081));
        let services = client.services().await.expect("a catalogue");
        assert_eq!(services["arithmetic"], ["v2"]);
        let missing = client.wait_until_visible("other", handle.id(), Duration::from_millis(200));
        assert!(missing.await.is_err());
    })
    .await;
}

/// `CONSUL_HTTP_ADDR=unix:///…`
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_behind_a_unix_socket_is_registered_with_and_followed() {
    on_every_version(async |binary| {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("consul.sock");
        let config = real::ConsulConfig::dev(binary).unix_socket(&socket);
        let agent = real::Consul::start(config).await.expect("the agent starts");
        let config = ConsulConfig::new(format!("unix://{}", socket.display())).ttl(TTL);
        let client = Consul::new(config).expect("an address");
        let _a = client.register(web("a", 80)).await.expect("registered");
        let instancer = client.instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "one", listed(1)).await;
        // Seen by the blocking query.
        let _b = client.register(web("b", 81)).await.expect("registered");
        sees(&mut subscription, "both", listed(2)).await;
        let n = connections_to(agent.address()).expect("Linux");
        assert_eq!(n, 0, "it used TCP");
    })
    .await;
}

/// As go-kit's `TestInstancer`: as tutorials register.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn what_others_registered_by_plain_json_is_found() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let body = json!({"Name": "web", "Port": 8080, "TaggedAddresses": {"wan": {"Address": "198.51.100.7", "Port": 80}}});
        put(address, "/v1/agent/service/register", body).await;
        let found = async |query| {
            let instancer = client(address).instancer(query);
            let mut subscription = instancer.subscribe();
            sees(&mut subscription, "it", listed(1)).await.instances()[0].clone()
        };
        let plain = found(Query::new("web")).await;
        assert_eq!(plain.to_string(), format!("{}:8080", address.ip()));
        assert_eq!(plain.weight(), 1);
        let wan = found(Query::new("web").tagged_address("wan")).await;
        assert_eq!(wan.to_string(), "198.51.100.7:80");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn check_that_is_no_longer_registered_is_gone() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let check = RegistrationOptions::new().check(Check::tcp(address.to_string()));
        let with = registrar(address).with_options(check);
        let first = with.register(web("a", 80)).await.expect("registered");
        becomes(address, "/v1/health/checks/web", "two checks", n_entries(2)).await;
        let second = registrar(address).register(web("a", 80)).await.expect("registered");
        becomes(address, "/v1/health/checks/web", "one check", n_entries(1)).await;
        drop((first, second));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn two_services_of_one_process_keep_their_checks() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let registrar = registrar(address);
        let mut handles = Vec::new();
        for service in ["web", "api"] {
            let registration = Registration::new(service, Instance::new("127.0.0.1", 80));
            handles.push(registrar.register(registration).await.expect("registered"));
        }
        for service in ["web", "api"] {
            let checks = get(address, &format!("/v1/health/checks/{service}")).await;
            assert_eq!(checks.as_array().map(Vec::len), Some(1), "{checks}");
            assert_eq!(checks[0]["CheckID"], format!("service:{service}:127.0.0.1:80"));
        }
    })
    .await;
}

/// Warning has its weight, maintenance is out, and the server's own check decides.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn health_is_shown_and_followed() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let instancer = client(address).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        let registrar =
            registrar(address).with_options(RegistrationOptions::new().warning_weight(7));
        let warns = async || CheckResult::Warning("slow disk".into());
        let _warning = registrar.register(web("w", 1).health(warns)).await.expect("registered");
        let fails = async || CheckResult::Critical("no disk".into());
        let _critical = registrar.register(web("c", 2).health(fails)).await.expect("registered");
        let is_warning = |instance: &Instance| instance.status() == InstanceStatus::Warning;
        let snapshot = sees(&mut subscription, "the warning one", |snapshot| {
            snapshot.instances().iter().any(is_warning)
        });
        let snapshot = snapshot.await;
        assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
        assert_eq!(snapshot.instances()[0].weight(), 7);
        let all = client(address).instancer(Query::new("web").any_health());
        sees(&mut all.subscribe(), "both", listed(2)).await;
        put(address, "/v1/agent/service/maintenance/web:w?enable=true", Value::Null).await;
        sees(&mut subscription, "no instance", |snapshot| snapshot.instances().is_empty()).await;
    })
    .await;
}

/// Out of `?passing` and DNS immediately, still registered, and back on request.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn draining_leaves_passing_and_stays_registered() {
    on_every_agent(async |agent| {
        let address = agent.address();
        // The loss guard would keep the only instance as it was.
        let accepting = RegistryConfig::default().loss(LossPolicy::Accept);
        let config = ConsulConfig::new(address.to_string()).registry(accepting);
        let instancer = Consul::new(config).expect("an address").instancer("web");
        let mut subscription = instancer.subscribe();
        let handle = registrar(address).register(web("a", 80)).await.expect("registered");
        sees(&mut subscription, "it", listed(1)).await;
        handle.update(|it| it.with_status(InstanceStatus::Draining)).await.expect("accepted");
        becomes(address, "/v1/health/service/web?passing", "empty", n_entries(0)).await;
        let draining = |instance: &Instance| instance.status() == InstanceStatus::Draining;
        let is = |snapshot: &tower_sd_core::Snapshot| snapshot.instances().iter().any(draining);
        sees(&mut subscription, "it draining", is).await;
        sleep(TTL).await;
        assert!(is(&subscription.snapshot()), "{:?}", subscription.snapshot());
        handle.update(|it| it.with_status(InstanceStatus::Passing)).await.expect("accepted");
        becomes(address, "/v1/health/service/web?passing", "back", n_entries(1)).await;
    })
    .await;
}

/// A `-dev` agent loses everything; no other process notices.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_lost_its_data_is_filled_within_a_heartbeat() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let instancer = client(address).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        let handle = registrar(address).register(web("a", 80)).await.expect("registered");
        sees(&mut subscription, "it", listed(1)).await;
        agent.restart().await.expect("it starts again");
        let started = Instant::now();
        becomes(address, "/v1/health/service/web?passing", "back", n_entries(1)).await;
        assert!(started.elapsed() < TTL, "{:?}", started.elapsed());
        assert!(matches!(
            handle.state(),
            RegistrationState::Registered | RegistrationState::Lost { .. }
        ));
        let snapshot = subscription.snapshot();
        assert_eq!(snapshot.known().count(), 1, "{snapshot:?}");
        sees(&mut subscription, "it, listed and fresh", listed(1)).await;
    })
    .await;
}

/// 200 on 1.8.7, 404 on newer ones.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn deregistering_what_is_gone_is_success() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let handle = registrar(address).register(web("a", 80)).await.expect("registered");
        put(address, "/v1/agent/service/deregister/web:a", Value::Null).await;
        handle.deregister().await.expect("nothing left is success");
        assert_eq!(get(address, "/v1/agent/services").await, json!({}));
    })
    .await;
}

/// A service without a heartbeat is checked too.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn deleted_entry_without_ttl_is_back_after_the_next_check() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let check = Check::tcp(address.to_string());
        let options = RegistrationOptions::new().without_ttl().check(check);
        let registrar = registrar(address).with_options(options);
        let _handle = registrar.register(web("a", 80)).await.expect("registered");
        put(address, "/v1/agent/service/deregister/web:a", Value::Null).await;
        let looks = async {
            while get(address, "/v1/health/service/web").await == json!([]) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(20), looks).await.expect("read every 15 s");
    })
    .await;
}

/// Consul's limits are ours, to the letter.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn what_passes_our_limits_passes_consuls() {
    on_every_agent(async |agent| {
        let base = Instance::new("a.example", 65_535).with_weight(0).with_id("a/b c");
        let full = (0..60).fold(base, |i, n| i.with_metadata(format!("k{n}"), "v".repeat(512)));
        let full = full.with_metadata("k".repeat(128), "");
        let registration = Registration::new("wéb / ß", full);
        let handle = registrar(agent.address()).register(registration).await.expect("registered");
        let client = client(agent.address());
        client.wait_until_visible("wéb / ß", handle.id(), BOUND).await.expect("visible");
        handle.deregister().await.expect("gone");
    })
    .await;
}

/// Weight and port of the first SRV record of `name`.
async fn srv(dns: SocketAddr, name: &str) -> (u16, u16) {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 33, 0, 1]);
    let socket = UdpSocket::bind((dns.ip(), 0)).await.expect("a socket");
    socket.send_to(&query, dns).await.expect("sent");
    let mut answer = [0; 1500];
    let n = timeout(BOUND, socket.recv(&mut answer)).await.expect("in time").expect("an answer");
    assert!(n > query.len() && answer[7] > 0, "no records: {:?}", &answer[..n]);
    // The name is a pointer or a copy of the question's; type SRV, class, TTL and length follow,
    // then the data.
    let records = &answer[query.len()..n];
    let at = records.windows(4).position(|w| w == [0, 33, 0, 1]).expect("an SRV record") + 10;
    let number = |at: usize| u16::from_be_bytes([records[at], records[at + 1]]);
    (number(at + 2), number(at + 4))
}
