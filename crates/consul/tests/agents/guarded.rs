//! ACLs that deny by default, with an agent that has no token of its own.
//!
//! It writes with the service's token, and newer ones cannot remove with that.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{ErrorKind, InstanceStatus, Instancer, RegistrationHandle, Snapshot};
use tower_sd_testkit::real;

use crate::support::{BOUND, TTL, call, listed, on_every_version, sees, web};

const ROOT: &str = "6f0c2a0e-2f5a-4d6f-9a52-3d6a5f1f7d01";
const WRITES: &str = r#"service "web" { policy = "write" }"#;
const READS_TOO: &str = r#"service "web" { policy = "write" } node_prefix "" { policy = "read" }"#;

/// An agent without a token, and the secret of a service's token.
struct Scene<'a> {
    agent: &'a real::Consul,
    token: String,
}

/// Runs a test with a token that may only write, and with one that may look too.
async fn on_every_agent_without_a_token(test: impl AsyncFn(Scene<'_>)) {
    for rules in [WRITES, READS_TOO] {
        on_every_agent_for_a_token(rules, &test).await;
    }
}

async fn on_every_agent_for_a_token(rules: &str, test: impl AsyncFn(Scene<'_>)) {
    on_every_version(async |binary| {
        // The default one lets the agent start; it is taken away afterwards.
        let tokens = json!({"master": ROOT, "default": ROOT});
        let acl = json!({"enabled": true, "default_policy": "deny", "tokens": tokens});
        let config = json!({"primary_datacenter": "dc1", "acl": acl}).to_string();
        let agent = real::Consul::start(real::ConsulConfig::dev(binary).config(config));
        let agent = agent.await.expect("the agent starts");
        let scene = Scene { agent: &agent, token: String::new() };
        scene.root("PUT", "/v1/acl/policy", json!({"Name": "web", "Rules": rules})).await;
        let body = json!({"Policies": [{"Name": "web"}]});
        let made = scene.root("PUT", "/v1/acl/token", body).await;
        let token = made["SecretID"].as_str().expect("text").to_owned();
        scene.root("PUT", "/v1/agent/token/default", json!({"Token": ""})).await;
        Box::pin(test(Scene { agent: &agent, token })).await;
    })
    .await;
}

impl Scene<'_> {
    /// An operator's query.
    async fn root(&self, method: &str, target: &str, body: Value) -> Value {
        let sign = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{sign}token={ROOT}");
        let answer = call(self.agent.address(), method, &target, &body).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    async fn maintain(&self, enable: bool) {
        let target = format!("/v1/agent/service/maintenance/web:a?enable={enable}&reason=disk");
        self.root("PUT", &target, Value::Null).await;
    }

    fn client(&self) -> Consul {
        let config = ConsulConfig::new(self.agent.url()).token(self.token.as_str()).ttl(TTL);
        Consul::new(config).expect("an address")
    }

    async fn register(&self) -> RegistrationHandle {
        self.client().register(web("a", 80)).await.expect("registered")
    }

    /// How many the catalogue lists, in every state of health and passing.
    async fn listed(&self) -> (usize, usize) {
        let n = |value: Value| value.as_array().expect("a list").len();
        let all = self.root("GET", "/v1/health/service/web", Value::Null).await;
        let passing = self.root("GET", "/v1/health/service/web?passing", Value::Null).await;
        (n(all), n(passing))
    }

    async fn lists(&self, wanted: (usize, usize)) {
        self.lists_within(BOUND, wanted).await;
    }

    async fn lists_within(&self, bound: Duration, wanted: (usize, usize)) {
        let deadline = Instant::now() + bound;
        while self.listed().await != wanted {
            assert!(Instant::now() < deadline, "{:?}, not {wanted:?}", self.listed().await);
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(self.listed().await, wanted, "and stays so");
    }
}

/// What a server does that stops in order, and is started again.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn drained_and_deregistered_server_is_seen_when_it_restarts() {
    on_every_agent_without_a_token(async |scene| {
        for _start in 0..2 {
            let handle = scene.register().await;
            scene.lists((1, 1)).await;
            handle.update(|it| it.with_status(InstanceStatus::Draining)).await.expect("accepted");
            scene.lists((1, 0)).await;
            handle.deregister().await.expect("withdrawn");
            assert_eq!(scene.listed().await, (0, 0), "gone when it reports so");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn maintenance_of_a_dead_server_ends_with_the_next_registration() {
    on_every_agent_without_a_token(async |scene| {
        let handle = scene.register().await;
        scene.maintain(true).await;
        scene.lists((1, 0)).await;
        // As by an agent's own hand, or a registrar of another kind: newer ones leave it in the
        // catalogue.
        let target = "/v1/agent/service/deregister/web:a";
        scene.root("PUT", target, Value::Null).await;
        // The heartbeat notices, and registers again.
        scene.lists((1, 1)).await;
        handle.deregister().await.expect("withdrawn");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn draining_server_that_goes_on_is_seen_again() {
    on_every_agent_without_a_token(async |scene| {
        let handle = scene.register().await;
        handle.update(|it| it.with_status(InstanceStatus::Draining)).await.expect("accepted");
        scene.lists((1, 0)).await;
        handle.update(|it| it.with_status(InstanceStatus::Passing)).await.expect("accepted");
        scene.lists((1, 1)).await;
    })
    .await;
}

/// `200 []` is also the answer to who may see nothing.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn follower_without_a_token_is_denied_and_sees_no_empty_set() {
    on_every_agent_for_a_token(READS_TOO, async |scene| {
        let _handle = scene.register().await;
        let nobody = Consul::new(ConsulConfig::new(scene.agent.url())).expect("an address");
        let mut subscription = nobody.instancer(Query::new("web")).subscribe();
        let failed = |snapshot: &Snapshot| snapshot.freshness().error().is_some();
        let snapshot = sees(&mut subscription, "an error", failed).await;
        let error = snapshot.freshness().error().expect("seen").clone();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("no token was given"), "{error}");
        // A reader with access sees an empty set.
        let mut subscription = scene.client().instancer(Query::new("web")).subscribe();
        sees(&mut subscription, "it", listed(1)).await;
    })
    .await;
}

/// The usual policy of the anonymous token: an empty set is one.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn follower_without_need_of_a_token_sees_an_empty_set() {
    on_every_agent_for_a_token(READS_TOO, async |scene| {
        let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
        scene.root("PUT", anonymous, json!({"Policies": [{"Name": "web"}]})).await;
        let nobody = Consul::new(ConsulConfig::new(scene.agent.url())).expect("an address");
        let mut subscription = nobody.instancer(Query::new("web")).subscribe();
        let known = |snapshot: &Snapshot| snapshot.freshness().is_fresh();
        assert_eq!(sees(&mut subscription, "no instance", known).await.instances().len(), 0);
        let _handle = scene.register().await;
        sees(&mut subscription, "it", listed(1)).await;
    })
    .await;
}

/// What takes more than half a minute.
mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn operators_maintenance_stays_until_the_operator_ends_it() {
        on_every_agent_for_a_token(READS_TOO, async |scene| {
            let _handle = scene.register().await;
            scene.maintain(true).await;
            scene.lists((1, 0)).await;
            let end = Instant::now() + VERIFIED_WITHIN;
            while Instant::now() < end {
                assert_eq!(scene.listed().await, (1, 0));
                sleep(Duration::from_millis(500)).await;
            }
            scene.maintain(false).await;
            scene.lists_within(VERIFIED_WITHIN, (1, 1)).await;
        })
        .await;
    }

    /// Verified every 15 s.
    const VERIFIED_WITHIN: Duration = Duration::from_secs(20);
}
