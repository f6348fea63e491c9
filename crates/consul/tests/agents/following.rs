//! What followers make of real agents.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower_sd_consul::Query;
use tower_sd_core::{ErrorKind, Instancer};
use tower_sd_testkit::real;

use crate::support::{
    call, client, is_stale, listed, on_every_agent, on_every_version, put, registrar, sees, web,
};

/// The index of the new agent is lower than the one that is waited for.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_whose_index_started_anew_is_followed_immediately() {
    on_every_agent(async |agent| {
        let address = agent.address();
        for n in 0..30 {
            put(address, "/v1/agent/service/register", json!({"Name": format!("s{n}")})).await;
        }
        let registrar = registrar(address);
        let _a = registrar.register(web("a", 80)).await.expect("registered");
        let instancer = client(address).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "one", listed(1)).await;
        agent.restart().await.expect("it starts again");
        let _b = registrar.register(web("b", 81)).await.expect("registered");
        sees(&mut subscription, "both", listed(2)).await;
    })
    .await;
}

/// Newer agents always send the same leader and last contact while they stream.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_streams_is_not_taken_for_one_without_a_leader() {
    on_every_agent(async |agent| {
        let body = json!({"Name": "web", "Port": 80, "Address": "10.0.0.1"});
        put(agent.address(), "/v1/agent/service/register", body).await;
        let query = Query::new("web").wait(Duration::from_millis(300));
        let instancer = client(agent.address()).instancer(query);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        let change = timeout(Duration::from_secs(2), subscription.changed()).await;
        assert!(change.is_err(), "{change:?}");
    })
    .await;
}

/// Every tag counts.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn tags_filters_and_names_with_slashes_select() {
    on_every_agent(async |agent| {
        let address = agent.address();
        for (id, tags) in [("1", json!(["api"])), ("2", json!(["api", "v2"])), ("3", json!([]))] {
            let body = json!({"Name": "a/b c", "ID": id, "Port": 80, "Address": format!("10.0.0.{id}"), "Tags": tags});
            put(address, "/v1/agent/service/register", body).await;
        }
        for (query, n) in [
            (Query::new("a/b c"), 3),
            (Query::new("a/b c").tag("api"), 2),
            (Query::new("a/b c").tag("api").tag("v2"), 1),
            (Query::new("a/b c").filter(r#"Service.ID == "3""#), 1),
            (Query::new("a/b c").near("_agent").stale(), 3),
            (Query::new("a/b c").consistent(), 3),
            (Query::new("a/b"), 0),
        ] {
            let what = format!("{n} of {query:?}");
            let instancer = client(address).instancer(query);
            sees(&mut instancer.subscribe(), &what, listed(n)).await;
        }
        let wrong = client(address).instancer(Query::new("web").filter("Nonsense =="));
        let failed = |snapshot: &tower_sd_core::Snapshot| snapshot.freshness().error().is_some();
        let snapshot = sees(&mut wrong.subscribe(), "an error", failed).await;
        let error = snapshot.freshness().error().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    })
    .await;
}

/// A reset on 1.8.7, a 429 on newer ones.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn one_connection_too_many_is_transient_and_names_the_remedy() {
    on_every_version(async |binary| {
        let config = real::ConsulConfig::dev(binary);
        let config = config.config(r#"{"limits": {"http_max_conns_per_client": 4}}"#);
        let agent = real::Consul::start(config).await.expect("the agent starts");
        let follow = || client(agent.address()).instancer(Query::new("web"));
        let instancers: Vec<_> = (0..6).map(|_| follow()).collect();
        sleep(Duration::from_secs(2)).await;
        let errors = instancers
            .iter()
            .filter_map(|instancer| instancer.subscribe().snapshot().freshness().error().cloned());
        let errors: Vec<_> = errors.collect();
        assert!(!errors.is_empty(), "six followers, four connections");
        for error in errors {
            assert!(error.is_transient(), "{error}");
            assert!(error.to_string().contains("http_max_conns_per_client"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn closing_during_the_long_wait_takes_less_than_100_ms() {
    on_every_agent(async |agent| {
        let instancer = client(agent.address()).instancer(Query::new("web"));
        sees(&mut instancer.subscribe(), "no instance", listed(0)).await;
        sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        instancer.close().await;
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    })
    .await;
}

/// An agent that is killed and started again, and one that hangs.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_is_away_leaves_the_set_stale_and_complete() {
    on_every_version(async |binary| {
        let server = real::ConsulConfig::server(binary);
        let agent = real::Consul::start(server).await.expect("the agent starts");
        let address = agent.address();
        let body = json!({"Name": "web", "Port": 80, "Address": "10.0.0.1"});
        put(address, "/v1/agent/service/register", body).await;
        let instancer = client(address).instancer(Query::new("web"));
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        agent.kill();
        let snapshot = sees(&mut subscription, "stale", is_stale).await;
        assert_eq!(snapshot.instances().len(), 1);
        agent.restart().await.expect("it starts again");
        sees(&mut subscription, "fresh", listed(1)).await;
        let answer = call(address, "GET", "/v1/agent/services", &Value::Null).await;
        assert!(answer.body.contains("10.0.0.1"), "{}", answer.body);
    })
    .await;
}
