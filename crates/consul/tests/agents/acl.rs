//! Under ACLs that deny by default.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{CheckResult, ErrorKind, FollowConfig, Instancer, RegistryConfig, Snapshot};
use tower_sd_testkit::real;

use crate::support::{BOUND, call, get, is_stale, listed, on_every_version, put, sees, web};

const ROOT: &str = "6f0c2a0e-2f5a-4d6f-9a52-3d6a5f1f7d01";

/// Its own requests, the test's among them, are allowed everything; a client with a token only what
/// that may do.
fn config() -> String {
    let tokens = json!({"master": ROOT, "default": ROOT});
    json!({"primary_datacenter": "dc1", "acl": {"enabled": true, "default_policy": "deny", "tokens": tokens}})
        .to_string()
}

/// A token with a policy.
struct Token {
    secret: String,
    accessor: String,
    policy: String,
}

/// Makes a policy and a token with it.
async fn token(agent: &real::Consul, name: &str, rules: &str) -> Token {
    let policy = made(agent, "/v1/acl/policy", json!({"Name": name, "Rules": rules})).await;
    let token = made(agent, "/v1/acl/token", json!({"Policies": [{"Name": name}]})).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    Token {
        secret: text(&token["SecretID"]),
        accessor: text(&token["AccessorID"]),
        policy: text(&policy["ID"]),
    }
}

async fn made(agent: &real::Consul, target: &str, body: Value) -> Value {
    let answer = call(agent.address(), "PUT", target, &body).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Changes the policy of a token.
async fn allow(agent: &real::Consul, token: &Token, name: &str, rules: &str) {
    let id = &token.policy;
    let body = json!({"ID": id, "Name": name, "Rules": rules});
    made(agent, &format!("/v1/acl/policy/{id}"), body).await;
}

fn client(agent: &real::Consul, token: &str) -> Consul {
    Consul::new(ConsulConfig::new(agent.url()).token(token).ttl(crate::support::TTL))
        .expect("an address")
}

async fn on_every_guarded_agent(test: impl AsyncFn(&real::Consul)) {
    on_every_version(async |binary| {
        let start = real::Consul::start(real::ConsulConfig::dev(binary).config(config()));
        let agent = start.await.expect("the agent starts");
        // 1.8.7 is in a legacy mode at first.
        let ready = async {
            while call(agent.address(), "GET", "/v1/acl/policies", &Value::Null).await.status != 200
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(BOUND, ready).await.expect("it has policies");
        Box::pin(test(&agent)).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn service_write_is_enough_to_register_and_to_come_back() {
    on_every_guarded_agent(async |agent| {
        let token = token(agent, "writes", r#"service "web" { policy = "write" }"#).await;
        let registrar = client(agent, &token.secret);
        let handle = registrar.register(web("a", 80)).await.expect("registered");
        let instancer = client(agent, ROOT).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        put(agent.address(), "/v1/agent/service/deregister/web:a", Value::Null).await;
        crate::support::becomes(
            agent.address(),
            "/v1/health/service/web?passing",
            "back",
            crate::support::n_entries(1),
        )
        .await;
        put(agent.address(), "/v1/agent/service/deregister/web:a", Value::Null).await;
        handle.deregister().await.expect("nothing left is success");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn token_that_may_not_is_denied_with_a_hint() {
    on_every_guarded_agent(async |agent| {
        let token = token(agent, "reads", r#"service "web" { policy = "read" }"#).await;
        for token in [token.secret.as_str(), "00000000-0000-0000-0000-000000000009"] {
            let registrar = client(agent, token);
            let error = registrar.register(web("a", 80)).await.expect_err("may not");
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            assert!(error.to_string().contains("service:write"), "{error}");
            assert!(!format!("{error:?}").contains(token), "{error:?}");
        }
    })
    .await;
}

/// Without `node:read` Consul answers `200 []`, which newer versions mark.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn token_that_sees_nothing_does_not_empty_the_set() {
    on_every_guarded_agent(async |agent| {
        put(agent.address(), "/v1/agent/service/register", json!({"Name": "web", "Port": 80}))
            .await;
        let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
        let token = token(agent, "sees", rules).await;
        let instancer = client(agent, &token.secret).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        allow(agent, &token, "sees", r#"service_prefix "" { policy = "read" }"#).await;
        // The follower finds out by its next read.
        subscription.refresh();
        let troubled = |snapshot: &Snapshot| is_stale(snapshot) || !snapshot.held().is_empty();
        let snapshot = sees(&mut subscription, "denied or held", troubled).await;
        assert_eq!(snapshot.known().count(), 1, "{snapshot:?}");
    })
    .await;
}

/// A streaming agent goes on under the same index when it may show more or less than before.
///
/// A view that is made anew is behind that index, and is followed by a plain read. From 1.11 on the
/// answer reports that entries are left out, and the set is stale instead.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn changed_policy_is_published_though_the_index_stands() {
    on_every_guarded_agent(async |agent| {
        for node in ["n1", "n2"] {
            let service = json!({"Service": "web", "Port": 80});
            let body = json!({"Node": node, "Address": format!("10.0.0.{}", &node[1..]), "Service": service});
            put(agent.address(), "/v1/catalog/register", body).await;
        }
        let (both, one) = (
            r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#,
            r#"service "web" { policy = "read" } node "n1" { policy = "read" }"#,
        );
        let token = token(agent, "sees", both).await;
        // No probe: the blocking queries alone have to show it.
        let query = Query::new("web").wait(Duration::from_secs(1));
        let query = query.consistency_check_interval(Duration::from_secs(600));
        let mut follow = FollowConfig::default();
        follow.denied_interval = Duration::from_millis(500);
        let registry = RegistryConfig::default().follow(follow);
        let config = ConsulConfig::new(agent.url()).token(token.secret.as_str());
        let instancer = Consul::new(config.registry(registry)).expect("good").instancer(query);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "both", listed(2)).await;
        sleep(Duration::from_millis(500)).await;
        allow(agent, &token, "sees", one).await;
        let is_denied = |snapshot: &Snapshot| {
            let error = snapshot.freshness().error();
            error.is_some_and(|error| error.kind() == ErrorKind::Denied)
        };
        let narrowed = |it: &Snapshot| it.instances().len() == 1 || is_denied(it);
        sees(&mut subscription, "one, or denied", narrowed).await;
        allow(agent, &token, "sees", both).await;
        sees(&mut subscription, "both again", listed(2)).await;
    })
    .await;
}

/// The token is deleted, and another one is written into the file.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn token_that_was_rotated_is_found_in_its_file() {
    on_every_guarded_agent(async |agent| {
        put(agent.address(), "/v1/agent/service/register", json!({"Name": "web", "Port": 80}))
            .await;
        let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
        let (old, new) = (token(agent, "old", rules).await, token(agent, "new", rules).await);
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &old.secret).expect("our file");
        // A streaming agent goes on answering a deleted token from its view.
        let query = Query::new("web").consistency_check_interval(Duration::from_secs(1));
        let mut follow = FollowConfig::default();
        follow.denied_interval = Duration::from_millis(500);
        let registry = RegistryConfig::default().follow(follow);
        let config = ConsulConfig::new(agent.url()).token_file(file.path()).registry(registry);
        let instancer = Consul::new(config).expect("an address").instancer(query);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        let deleted = format!("/v1/acl/token/{}", old.accessor);
        call(agent.address(), "DELETE", &deleted, &Value::Null).await;
        // The query that waits is not woken by that.
        subscription.refresh();
        let snapshot = sees(&mut subscription, "stale", is_stale).await;
        let error = snapshot.freshness().error().expect("stale");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(snapshot.known().count(), 1, "{snapshot:?}");
        std::fs::write(file.path(), &new.secret).expect("our file");
        sees(&mut subscription, "fresh", listed(1)).await;
    })
    .await;
}

/// How the agent and the catalogue show `web:a`.
async fn statuses(agent: &real::Consul) -> (Value, Value) {
    let checks = get(agent.address(), "/v1/agent/checks").await;
    let listed = get(agent.address(), "/v1/health/checks/web").await;
    (checks["service:web:a"]["Status"].clone(), listed[0]["Status"].clone())
}

async fn both_are(agent: &real::Consul, status: &str) {
    let wanted = (json!(status), json!(status));
    let deadline = Instant::now() + crate::support::TTL;
    while statuses(agent).await != wanted {
        assert!(Instant::now() < deadline, "{:?}, not {status}", statuses(agent).await);
        sleep(Duration::from_millis(20)).await;
    }
}

/// The agent writes an entry with the token of its registration, not with that of a heartbeat.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn entry_of_a_rotated_token_is_in_the_catalogue_as_at_the_agent() {
    on_every_guarded_agent(async |agent| {
        // Its own requests are allowed nothing but its node.
        let node = token(agent, "node", r#"node_prefix "" { policy = "write" }"#).await;
        let rules = r#"service "web" { policy = "write" }"#;
        let file = NamedTempFile::new().expect("a file");
        let mut old = token(agent, "writes0", rules).await;
        std::fs::write(file.path(), &old.secret).expect("our file");
        let body = json!({"Token": node.secret});
        call(agent.address(), "PUT", "/v1/agent/token/agent", &body).await;
        let config =
            ConsulConfig::new(agent.url()).token_file(file.path()).ttl(crate::support::TTL);
        let client = Consul::new(config).expect("an address");
        let critical = Arc::new(AtomicBool::new(false));
        let shows = Arc::clone(&critical);
        let health = move || {
            let shows = Arc::clone(&shows);
            async move {
                match shows.load(Relaxed) {
                    true => CheckResult::Critical("no disk".into()),
                    false => CheckResult::Passing,
                }
            }
        };
        let registration = web("a", 80).health(health).health_interval(Duration::from_millis(200));
        let registrar = client.clone();
        let handle = registrar.register(registration).await.expect("registered");
        both_are(agent, "passing").await;
        for (n, status) in [(1, "critical"), (2, "passing")] {
            let new = token(agent, &format!("writes{n}"), rules).await;
            std::fs::write(file.path(), &new.secret).expect("our file");
            let deleted = format!("/v1/acl/token/{}", old.accessor);
            call(agent.address(), "DELETE", &deleted, &Value::Null).await;
            critical.store(status == "critical", Relaxed);
            both_are(agent, status).await;
            old = new;
        }
        handle.deregister().await.expect("withdrawn");
    })
    .await;
}
