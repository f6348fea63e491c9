//! The registrar against a scripted agent.
//!
//! What is sent, and what is made of every kind of answer.

mod beside;
mod proxies;
mod support;

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};
use tower_sd_consul::{Check, Consul, ConsulConfig, RegistrationOptions};
use tower_sd_core::{CheckResult, ErrorKind, InstanceStatus, RegistrationState};
use tower_sd_testkit::script::{Received, Reply, Script};

use self::support::{BOUND, body, next, next_to, register, registrar, scripted, web, willing};
/// The first heartbeat follows immediately.
#[tokio::test]
async fn registration_is_one_put_and_a_heartbeat() {
    let script = willing().await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    let read = next(&script).await;
    assert_eq!((&*read.method, &*read.target), ("GET", "/v1/agent/health/service/id/web:a"));
    let first = next(&script).await;
    assert_eq!((&*first.method, &*first.target), ("PUT", "/v1/agent/service/register"));
    assert_eq!(first.headers["content-type"], "application/json");
    let incarnation = body(&first)["Meta"]["tower-sd-incarnation"].clone();
    let incarnation = incarnation.as_str().expect("text").to_owned();
    assert_eq!(incarnation.len(), 32);
    let check = json!({
        "CheckID": "service:web:a", "Name": "tower-sd heartbeat", "TTL": "1000ms",
        "Notes": format!("incarnation {incarnation}, token 0"),
        "Status": "passing", "DeregisterCriticalServiceAfter": "600000ms",
    });
    let expected = json!({
        "ID": "web:a", "Name": "web", "Address": "10.0.0.7", "Port": 80, "Tags": [],
        "Meta": {"tower-sd-id": "a", "tower-sd-incarnation": incarnation},
        "Weights": {"Passing": 1, "Warning": 1}, "Checks": [check],
    });
    assert_eq!(body(&first), expected);
    let second = next(&script).await;
    assert_eq!(second.target, "/v1/agent/check/update/service:web:a");
    assert_eq!(body(&second), json!({"Status": "passing", "Output": ""}));
    handle.deregister().await.expect("the agent accepts it");
}

/// An agent registers where it is, whatever datacenter is followed.
#[tokio::test]
async fn registration_is_in_the_agents_own_datacenter() {
    let script = willing().await;
    let config = ConsulConfig::new(script.url()).ttl(Duration::from_secs(1)).datacenter("eu");
    let registrar = Consul::new(config).expect("an address");
    let handle = register(&registrar, web()).await;
    let bound = Duration::from_millis(1);
    registrar.wait_until_visible("web", &"a".into(), bound).await.expect_err("no catalogue");
    handle.deregister().await.expect("the agent accepts it");
    let targets: Vec<_> = script.received().into_iter().map(|request| request.target).collect();
    assert!(targets.iter().any(|target| target.starts_with("/v1/health/service/web")));
    assert!(!targets.iter().any(|target| target.contains("dc=")), "{targets:?}");
}

/// Three forms of the same answer.
#[tokio::test]
async fn agent_without_the_check_gets_it_again_immediately() {
    for (status, text) in [
        (500, r#"CheckID "service:web:a" does not have associated TTL"#),
        (500, r#"Unknown check "service:web:a""#),
        (404, r#"Unknown check ID "service:web:a". Ensure that the check ID is passed"#),
    ] {
        let mut n_beats = 0;
        let script = scripted(Reply::new(status).body(text), move |request| {
            let is_beat = request.target.contains("/check/update/");
            n_beats += u32::from(is_beat);
            is_beat && n_beats == 2
        });
        let script = script.await;
        let registrar = registrar(&script);
        let mut handle = register(&registrar, web()).await;
        let lost = timeout(BOUND, handle.changed()).await.expect("it notices");
        assert!(matches!(lost, RegistrationState::Lost { .. }), "{lost:?}");
        next_to(&script, "/v1/agent/service/register").await;
        next_to(&script, "/v1/agent/service/register").await;
        handle.registered(BOUND).await.expect("it is back");
    }
}

#[tokio::test]
async fn deregistering_what_the_agent_does_not_know_is_success() {
    for (status, text) in [
        (200, ""),
        (404, r#"Unknown service ID "web:a". Ensure that the service ID is passed"#),
        (500, r#"Unknown service {"web:a" {}}"#),
    ] {
        let gone = |request: &Received| request.target.contains("/deregister/");
        let script = scripted(Reply::new(status).body(text), gone).await;
        let registrar = registrar(&script);
        let handle = register(&registrar, web()).await;
        handle.deregister().await.expect("nothing left is success");
        next_to(&script, "/v1/agent/service/deregister/web:a").await;
    }
}

/// A late heartbeat would bring the check back.
#[tokio::test]
async fn no_heartbeat_follows_the_deregistration() {
    let script = willing().await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    next_to(&script, "/v1/agent/check/update/").await;
    next_to(&script, "/v1/agent/check/update/").await;
    handle.deregister().await.expect("the agent accepts it");
    sleep(Duration::from_secs(1)).await;
    let last = script.received().pop().expect("requests");
    assert_eq!(last.target, "/v1/agent/service/deregister/web:a");
}

/// An agent that has an entry of another program under our id.
async fn overwritten() -> Script {
    let foreign = r#"{"Service":{"ID":"web:a","Service":"web","Address":"10.6.6.6","Port":80}}"#;
    scripted(Reply::new(200).body(foreign), |request| request.method == "GET").await
}

/// An operator, or another process, has registered something else under our id: the check may live
/// on.
#[tokio::test]
async fn entry_that_was_overwritten_is_registered_again() {
    let script = overwritten().await;
    let registrar = registrar(&script);
    let _handle = register(&registrar, web()).await;
    next_to(&script, "/v1/agent/service/register").await;
    // Read every 15 s.
    let looked = async { while next(&script).await.method != "GET" {} };
    timeout(Duration::from_secs(20), looked).await.expect("it reads");
    next_to(&script, "/v1/agent/service/register").await;
}

/// Its own program alone may remove it, and would not register it again.
#[tokio::test]
async fn entry_without_an_owner_is_left_by_the_deregistration() {
    let script = overwritten().await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    handle.deregister().await.expect("nothing of ours is left");
    let received = script.received();
    let removals = received.iter().filter(|request| request.target.contains("/deregister/"));
    assert_eq!(removals.count(), 0);
}

#[tokio::test]
async fn servers_own_check_becomes_the_status() {
    let script = willing().await;
    let registrar = registrar(&script);
    let critical = async || CheckResult::Critical("no database".into());
    let _handle = register(&registrar, web().health(critical)).await;
    let beat = next_to(&script, "/v1/agent/check/update/").await;
    assert_eq!(body(&beat), json!({"Status": "critical", "Output": "no database"}));
}

#[tokio::test]
async fn draining_is_maintenance() {
    let script = willing().await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    handle
        .update(|instance| instance.with_status(InstanceStatus::Draining))
        .await
        .expect("it is registered");
    let request = next_to(&script, "/v1/agent/service/maintenance/").await;
    let expected = "/v1/agent/service/maintenance/web:a?enable=true&reason=draining+%28tower-sd%29";
    assert_eq!(request.target, expected);
}

#[tokio::test]
async fn all_kinds_of_checks_are_written_as_consul_documents_them() {
    let script = willing().await;
    let options = RegistrationOptions::new()
        .check(Check::http("http://10.0.0.7/health").method("HEAD").failures_before_critical(3))
        .check(
            Check::tcp("10.0.0.7:80").interval(Duration::from_secs(2)).successes_before_passing(2),
        )
        .check(Check::grpc("10.0.0.7:80/web").grpc_tls().timeout(Duration::from_secs(1)))
        .check(Check::alias("db"))
        .deregister_critical_after(Some(Duration::from_secs(60)))
        .warning_weight(3)
        .tagged_address("wan", "198.51.100.7", 8080);
    let registrar = registrar(&script).with_options(options);
    let _handle = register(&registrar, web()).await;
    let sent = body(&next_to(&script, "/v1/agent/service/register").await);
    let after = "60000ms";
    let expected = json!([
        {"CheckID": "service:web:a", "Name": "tower-sd heartbeat", "TTL": "1000ms",
         "Status": "passing", "DeregisterCriticalServiceAfter": after},
        {"CheckID": "check-1:web:a", "Name": "HTTP http://10.0.0.7/health", "HTTP": "http://10.0.0.7/health",
         "Method": "HEAD", "Interval": "10000ms", "Timeout": "5000ms", "SuccessBeforePassing": 1,
         "FailuresBeforeCritical": 3, "DeregisterCriticalServiceAfter": after},
        {"CheckID": "check-2:web:a", "Name": "TCP 10.0.0.7:80", "TCP": "10.0.0.7:80", "Interval": "2000ms",
         "Timeout": "5000ms", "SuccessBeforePassing": 2, "FailuresBeforeCritical": 1,
         "DeregisterCriticalServiceAfter": after},
        {"CheckID": "check-3:web:a", "Name": "gRPC 10.0.0.7:80/web", "GRPC": "10.0.0.7:80/web",
         "GRPCUseTLS": true, "Interval": "10000ms", "Timeout": "1000ms", "SuccessBeforePassing": 1,
         "FailuresBeforeCritical": 1, "DeregisterCriticalServiceAfter": after},
        {"CheckID": "check-4:web:a", "Name": "alias of db", "AliasService": "db",
         "DeregisterCriticalServiceAfter": after},
    ]);
    let mut checks = sent["Checks"].clone();
    for check in checks.as_array_mut().expect("a list") {
        assert!(check.as_object_mut().expect("an object").remove("Notes").is_some());
    }
    assert_eq!(checks, expected);
    assert_eq!(sent["Weights"], json!({"Passing": 1, "Warning": 3}));
    assert_eq!(sent["TaggedAddresses"], json!({"wan": {"Address": "198.51.100.7", "Port": 8080}}));
}

/// 30 s cannot be had.
#[tokio::test]
async fn deregistration_time_that_consul_would_raise_is_refused() {
    let script = willing().await;
    let registrar = registrar(&script);
    let after = Some(Duration::from_secs(30));
    let options = RegistrationOptions::new().deregister_critical_after(after);
    let registrar = registrar.with_options(options);
    let error = registrar.register(web()).await.expect_err("below 60 s");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("60 s"), "{error}");
    assert!(script.received().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn ttl_out_of_bounds_is_refused_and_that_of_the_url_used() {
    let script = willing().await;
    let error = registrar(&script).register(web().ttl(Duration::ZERO)).await.expect_err("0 s");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("between 1 s and 24 h"), "{error}");
    assert!(script.received().is_empty(), "nothing was sent");
    let url = format!("consul://{}?ttl=42s", script.address());
    let registrar = Consul::from_url(&url).expect("a URL");
    let _handle = register(&registrar, web()).await;
    let sent = body(&next_to(&script, "/v1/agent/service/register").await);
    assert_eq!(sent["Checks"][0]["TTL"], "42000ms");
}

/// The agent was killed, or the port is closed.
#[tokio::test]
async fn agent_that_is_not_there_is_named_with_the_systems_reason() {
    // Bound and not listening, so that no other test gets the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
    let address = socket.local_addr().expect("bound");
    let error = refusal(address).await;
    let (text, chain) = (error.to_string(), error.chain().to_string());
    let expected =
        format!("consul register: the agent cannot be reached: cannot connect to {address}");
    assert_eq!(text, expected);
    assert!(chain.contains("Connection refused"), "{chain}");
    assert_eq!(chain.matches(&address.to_string()).count(), 1, "{chain}");
}

#[tokio::test]
async fn connection_that_ends_before_an_answer_is_reported_as_that() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let accepts = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _request = stream.read(&mut [0; 4096]).await.expect("a request");
        }
    };
    let error =
        tokio::select! { error = refusal(address) => error, () = accepts => unreachable!() };
    let text = error.to_string();
    let start = format!(
        "consul register: http://{address} closed the connection before an answer: the agent stopped or is"
    );
    assert!(text.starts_with(&start), "{text}");
}

/// Why a registration fails.
async fn refusal(address: std::net::SocketAddr) -> tower_sd_core::Error {
    let config = ConsulConfig::new(format!("http://{address}")).token("s3cr3t");
    let registrar = Consul::new(config).expect("an address");
    let registration = web().fail_fast(Duration::from_secs(1));
    let error = registrar.register(registration).await.expect_err("no answer");
    assert!(!error.chain().to_string().contains("s3cr3t"), "{}", error.chain());
    error
}

#[tokio::test]
async fn denied_registration_is_reported_immediately() {
    let script = Script::answering(|_| Reply::new(403).body("Permission denied"));
    let script = script.await.expect("loopback");
    let error = registrar(&script).register(web()).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(script.received().len(), 1, "repeating cannot mend it");
}

/// Registered once, and never again.
#[tokio::test]
async fn first_registration_that_fails_is_tried_again() {
    let mut n = 0;
    let script = scripted(Reply::new(500).body("No cluster leader"), move |_| {
        n += 1;
        n < 4
    });
    let script = script.await;
    let _handle = register(&registrar(&script), web()).await;
    assert!(script.received().len() >= 5, "{:?}", script.received().len());
}
