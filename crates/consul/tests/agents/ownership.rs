//! Who an entry belongs to: a successor, or an operator.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower_sd_core::{
    Instance, InstanceStatus, Registration, RegistrationHandle, RegistrationState,
};
use tower_sd_testkit::real;

use crate::support::{
    BOUND, TTL, becomes, get, n_entries, on_every_agent, on_every_version, put, registrar, web,
};

const ENTRY: &str = "/v1/agent/service/web:a";
const PASSING: &str = "/v1/health/service/web?passing";

/// The reason of the maintenance of `web:a`, if it is on.
async fn reason(agent: &real::Consul) -> Option<Value> {
    let checks = get(agent.address(), "/v1/agent/checks").await;
    checks.get("_service_maintenance:web:a").map(|check| check["Notes"].clone())
}

async fn maintain(agent: &real::Consul, enable: bool) {
    let target = format!("/v1/agent/service/maintenance/web:a?enable={enable}&reason=disk");
    put(agent.address(), &target, Value::Null).await;
}

async fn taken_over(handle: &mut RegistrationHandle) -> String {
    let taken_over = async {
        loop {
            if let RegistrationState::TakenOver { by } = handle.state() {
                return by;
            }
            handle.changed().await;
        }
    };
    timeout(BOUND, taken_over).await.expect("the state shows it")
}

/// A reload with overlap: the old process leaves last.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn predecessor_that_leaves_last_takes_nothing_away() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let old = registrar(address).register(web("a", 80)).await.expect("registered");
        let new = registrar(address).register(web("a", 80)).await.expect("registered");
        let incarnation = get(address, ENTRY).await["Meta"]["tower-sd-incarnation"].clone();
        old.deregister().await.expect("an entry of a successor is success");
        let entry = get(address, ENTRY).await;
        assert_eq!(entry["Meta"]["tower-sd-incarnation"], incarnation, "{entry}");
        assert_eq!(get(address, PASSING).await.as_array().map(Vec::len), Some(1));
        new.deregister().await.expect("withdrawn");
        assert_eq!(get(address, "/v1/agent/services").await, json!({}));
    })
    .await;
}

/// What a lifecycle does before it deregisters.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn predecessor_in_maintenance_leaves_its_successor_alone() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let mut old = registrar(address).register(web("a", 80)).await.expect("registered");
        let _new = registrar(address).register(web("a", 80)).await.expect("registered");
        let before = get(address, ENTRY).await;
        // Refused, or not answered while it is taken over: either way nothing is written.
        let _refused =
            timeout(TTL, old.update(move |it| it.with_status(InstanceStatus::Draining))).await;
        let by = taken_over(&mut old).await;
        assert!(by.contains("127.0.0.1:80"), "{by}");
        assert_eq!(get(address, ENTRY).await, before);
        assert_eq!(reason(agent).await, None);
        old.deregister().await.expect("an entry of a successor is success");
        assert_eq!(get(address, ENTRY).await, before);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn operators_maintenance_survives_a_hundred_updates() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let handle = registrar(address).register(web("a", 80)).await.expect("registered");
        maintain(agent, true).await;
        becomes(address, PASSING, "empty", n_entries(0)).await;
        for n in 1..=100 {
            handle.update(move |it| it.with_weight(n)).await.expect("accepted");
            assert_eq!(get(address, PASSING).await, json!([]), "update {n}");
        }
        assert_eq!(reason(agent).await, Some(json!("disk")));
        // Nor does our own begin or end it.
        for status in [InstanceStatus::Draining, InstanceStatus::Passing] {
            handle.update(move |it| it.with_status(status)).await.expect("accepted");
            assert_eq!(reason(agent).await, Some(json!("disk")), "{status:?}");
        }
        // Nor a successor.
        let successor = registrar(address).register(web("a", 80)).await.expect("registered");
        assert_eq!(reason(agent).await, Some(json!("disk")));
        maintain(agent, false).await;
        becomes(address, PASSING, "back", n_entries(1)).await;
        successor.deregister().await.expect("withdrawn");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn operators_maintenance_survives_a_restart_of_the_agent() {
    on_every_version(async |binary| {
        let server = real::ConsulConfig::server(binary);
        let agent = real::Consul::start(server).await.expect("the agent starts");
        let address = agent.address();
        let handle = registrar(address).register(web("a", 80)).await.expect("registered");
        maintain(&agent, true).await;
        put(address, "/v1/agent/maintenance?enable=true&reason=kernel", Value::Null).await;
        agent.restart().await.expect("it starts again");
        handle.update(move |it| it.with_weight(7)).await.expect("accepted");
        assert_eq!(reason(&agent).await, Some(json!("disk")));
        let checks = get(address, "/v1/agent/checks").await;
        assert_eq!(checks["_node_maintenance"]["Notes"], "kernel", "{checks}");
    })
    .await;
}

/// The remains of a process that was killed while it drained.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn maintenance_of_a_predecessor_ends_with_its_successor() {
    on_every_agent(async |agent| {
        let address = agent.address();
        let draining =
            Instance::new("127.0.0.1", 80).with_id("a").with_status(InstanceStatus::Draining);
        let draining = Registration::new("web", draining);
        let old = registrar(address).register(draining).await.expect("registered");
        becomes(address, PASSING, "empty", n_entries(0)).await;
        let _new = registrar(address).register(web("a", 80)).await.expect("registered");
        becomes(address, PASSING, "one", n_entries(1)).await;
        drop(old);
    })
    .await;
}

/// Load, published as weight.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn instance_that_updates_its_weight_is_never_absent() {
    on_every_agent(async |agent| updates_for(agent, Duration::from_secs(9)).await).await;
}

pub(crate) mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn instance_with_updates_for_ten_minutes_is_never_absent() {
        on_every_agent(async |agent| updates_for(agent, Duration::from_secs(600)).await).await;
    }
}

async fn updates_for(agent: &real::Consul, duration: Duration) {
    let address = agent.address();
    let handle = registrar(address).register(web("a", 80)).await.expect("registered");
    becomes(address, PASSING, "one", n_entries(1)).await;
    let end = Instant::now() + duration;
    let mut n = 0;
    while Instant::now() < end {
        n += 1;
        handle.update(move |it| it.with_weight(1 + n % 100)).await.expect("accepted");
        assert!(matches!(handle.state(), RegistrationState::Registered), "{:?}", handle.state());
        let listed = get(address, PASSING).await;
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "update {n}: {listed}");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(n > 10, "{n} updates");
}
