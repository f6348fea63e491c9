//! A client agent whose servers come and go.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};
use tower_sd_consul::Query;
use tower_sd_core::Instancer;
use tower_sd_testkit::real::ConsulCluster;

use crate::support::{
    client, is_stale, listed, on_every_version, put, registrar, sees, sees_within, web,
};

/// A 500 of 1.8.7 carries an index; newer ones go on with 200 and their last view; a plain read
/// fails.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn servers_that_are_away_are_noticed_and_no_instance_is_lost() {
    on_every_version(async |binary| {
        let cluster = ConsulCluster::start(&binary, 1).await.expect("they start");
        let handle = registrar(cluster.address()).register(web("a", 80)).await.expect("registered");
        let query = Query::new("web").consistency_check_interval(Duration::from_secs(3));
        let instancer = client(cluster.address()).instancer(query);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        // Long enough that the view of a streaming agent is what it follows.
        sleep(Duration::from_millis(300)).await;
        cluster.servers()[0].kill();
        // The probe, and the 7 to 21 s for which an agent searches a leader.
        let bound = Duration::from_secs(30);
        let snapshot = sees_within(bound, &mut subscription, "stale", is_stale).await;
        assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
        cluster.servers()[0].restart().await.expect("it starts again");
        sees_within(bound, &mut subscription, "fresh", listed(1)).await;
        drop(handle);
    })
    .await;
}

/// An agent that was restarted while its servers are away returns `200 []` with index 1.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_without_servers_is_not_trusted() {
    on_every_version(async |binary| {
        let cluster = ConsulCluster::start(&binary, 1).await.expect("they start");
        let body = json!({"Name": "web", "Port": 80, "Address": "10.0.0.1"});
        put(cluster.address(), "/v1/agent/service/register", body).await;
        let query = Query::new("web").wait(Duration::from_secs(3));
        let instancer = client(cluster.address()).instancer(query);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, "it", listed(1)).await;
        cluster.servers()[0].kill();
        cluster.agent().kill();
        sees(&mut subscription, "stale", is_stale).await;
        // It has no servers, so it does not become ready.
        let restarted = timeout(Duration::from_secs(8), cluster.agent().restart()).await;
        assert!(restarted.is_err(), "it found servers that are away");
        let snapshot = subscription.snapshot();
        assert!(is_stale(&snapshot), "{snapshot:?}");
        assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
        assert!(snapshot.held().is_empty(), "{snapshot:?}");
    })
    .await;
}
