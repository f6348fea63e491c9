//! One agent.

use std::time::Duration;

use tokio::time::sleep;
use tower_sd_consul::Query;
use tower_sd_testkit::real;

use crate::{on_every_version, traffic::start};

/// Sends requests to three servers while `disturb` runs, on every version; none may fail, and all
/// are listed afterwards.
async fn traffic_survives(disturb: impl AsyncFn(&real::Consul)) {
    on_every_version(async |binary| {
        let agent = real::Consul::dev(binary).await.expect("the agent starts");
        let query = Query::new("arithmetic");
        let (_servers, traffic) = start(agent.address(), 3, TTL, query).await;
        let report = traffic.survives(disturb(&agent)).await;
        assert_eq!(report.least_known(), 3, "{report:?}");
        traffic.sees("all", |snapshot| snapshot.instances().len() == 3).await;
    })
    .await;
}

/// Issue 6: a `-dev` agent is restarted with empty state under registered servers.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_lost_its_data_costs_no_request() {
    traffic_survives(async |agent| {
        sleep(Duration::from_millis(500)).await;
        agent.restart_empty().await.expect("it starts again");
        sleep(TTL * 2).await;
    })
    .await;
}

/// All TTLs fire together when it wakes up.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_was_suspended_costs_no_request() {
    traffic_survives(async |agent| {
        agent.suspend().expect("it runs");
        sleep(TTL * 2).await;
        agent.resume().expect("it runs");
        sleep(TTL).await;
    })
    .await;
}

mod slow {
    use tokio::time::Instant;

    use super::*;
    use crate::say;

    /// For some tens of milliseconds after it wakes up, no check passes at the agent.
    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn agent_of_100_servers_suspended_for_20_s_costs_no_request() {
        on_every_version(async |binary| {
            let agent = real::Consul::dev(binary).await.expect("the agent starts");
            let query = Query::new("arithmetic").passing();
            let ttl = Duration::from_secs(10);
            let (_servers, traffic) = start(agent.address(), 100, ttl, query).await;
            let mut resumed = Instant::now();
            let disturbance = async {
                agent.suspend().expect("it runs");
                sleep(Duration::from_secs(20)).await;
                agent.resume().expect("it runs");
                resumed = Instant::now();
                sleep(ttl).await;
            };
            let report = traffic.survives(disturbance).await;
            assert!(report.least_known() >= 50, "{report:?}");
            let (broken, whole) = report.broken(100).unwrap_or((resumed, resumed));
            let (after, lasted) = (whole - resumed, whole - broken);
            let (listed, known) = (report.least_listed(), report.least_known());
            say(&format!(
                "whole {after:?} after CONT, having missed some for {lasted:?}; {listed} listed and {known} known at least"
            ));
            // Ten times the aim for a machine that does nothing else.
            assert!(after <= Duration::from_secs(1), "{report:?}");
        })
        .await;
    }
}

const TTL: Duration = Duration::from_secs(3);
