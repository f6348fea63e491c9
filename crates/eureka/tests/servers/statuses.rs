use std::sync::Arc;

use tokio::{
    join,
    sync::watch,
    time::{Instant, sleep},
};
use tower_sd_core::{
    CheckResult, InstanceStatus, Instancer, Registration, RegistrationHandle, RegistrationState,
    Snapshot,
};
use tower_sd_eureka::RegistrationOptions;
use tower_sd_testkit::{
    real,
    servers::required,
    wait::{shows, shows_that},
};

use crate::support::{
    BOUND, LEASE, LONG_LEASE, PORT, client, entry, entry_that, instance, operate, post, post_with,
    query, update,
};

/// The override of an operator outlives updates and renewals, and ends when the operator ends it.
///
/// The last instance that an operator takes out of service is held: a registry may err.
async fn operator(server: &real::Eureka) {
    let eureka = client(&[server]);
    let register = async |id: &str, port| {
        let registration = Registration::new("overridden", instance(id, port)).fail_fast(BOUND);
        eureka.register(registration).await.expect("registered")
    };
    let (a, _b) = (register("a", 1).await, register("b", 2).await);
    let mut all = eureka.instancer(query("overridden").any_status()).subscribe();
    let mut subscription = eureka.instancer(query("overridden")).subscribe();
    shows_that(&mut subscription, "both", BOUND, |it| it.instances().len() == 2).await;
    operate(server.address(), "PUT", "overridden", "a", "/status?value=OUT_OF_SERVICE").await;
    let drains =
        |it: &Snapshot| matches!(it.instances(), [a, _b] if a.status() == InstanceStatus::Draining);
    shows_that(&mut all, "a, out of service", BOUND, drains).await;
    shows(&mut subscription, &["b"], BOUND).await;
    update(&a, |it| it.with_metadata("shard", "3")).await;
    has(&a, "overridden by an operator: OUT_OF_SERVICE").await;
    let xml = entry(server, "overridden", "a").await;
    assert!(xml.contains("<overriddenstatus>OUT_OF_SERVICE</"), "{xml}");
    assert!(xml.contains("<shard>3</shard>"), "{xml}");
    operate(server.address(), "DELETE", "overridden", "a", "/status?value=UP").await;
    shows(&mut subscription, &["a", "b"], BOUND).await;
    has(&a, "registered").await;
    // The override that ends another one has the status of the announcement.
    operate(server.address(), "PUT", "overridden", "a", "/status?value=OUT_OF_SERVICE").await;
    shows(&mut subscription, &["b"], BOUND).await;
    operate(server.address(), "PUT", "overridden", "a", "/status?value=UP").await;
    sleep(LEASE).await;
    let xml = entry(server, "overridden", "a").await;
    assert!(xml.contains("<overriddenstatus>UP</"), "{xml}");
    assert!(matches!(a.state(), RegistrationState::Registered), "{a:?}");
    operate(server.address(), "PUT", "overridden", "a", "/status?value=OUT_OF_SERVICE").await;
    for status in [InstanceStatus::Draining, InstanceStatus::Passing] {
        update(&a, move |it| it.with_status(status)).await;
        let xml = entry(server, "overridden", "a").await;
        assert!(xml.contains("<overriddenstatus>OUT_OF_SERVICE</"), "{status:?}: {xml}");
    }
    has(&a, "overridden by an operator: OUT_OF_SERVICE").await;
    a.deregister().await.expect("deregistered");
    assert_eq!(entry(server, "overridden", "a").await, "");
    shows(&mut subscription, &["b"], BOUND).await;
    operate(server.address(), "PUT", "overridden", "b", "/status?value=OUT_OF_SERVICE").await;
    let is_held = |it: &Snapshot| {
        it.instances().is_empty() && it.held().iter().any(|b| b.id().as_str() == "b")
    };
    shows_that(&mut subscription, "b, held", BOUND, is_held).await;
}

/// Out of service while draining, and back. The ids here differ from those of the other
/// applications: a server keeps overrides by the id alone.
async fn draining(server: &real::Eureka) {
    let eureka = client(&[server]);
    let registration = Registration::new("draining", instance("c", 3)).fail_fast(BOUND);
    let a = eureka.register(registration).await.expect("registered");
    for (status, shown) in [
        (InstanceStatus::Draining, "OUT_OF_SERVICE"),
        (InstanceStatus::Passing, "UP"),
        (InstanceStatus::Critical, "DOWN"),
        (InstanceStatus::Draining, "OUT_OF_SERVICE"),
        (InstanceStatus::Warning, "UP"),
    ] {
        update(&a, move |it| it.with_status(status)).await;
        let xml = entry(server, "draining", "c").await;
        // In XML a server writes `DOWN` for an instance that is out of service.
        let node = if shown == "OUT_OF_SERVICE" { "overriddenstatus" } else { "status" };
        assert!(xml.contains(&format!("<{node}>{shown}</{node}>")), "{shown}: {xml}");
        sleep(LEASE / 2).await;
        assert_eq!(entry(server, "draining", "c").await.contains("<status>UP"), shown == "UP");
    }
    // A predecessor that was killed while it drained leaves its override to its successor.
    update(&a, |it| it.with_status(InstanceStatus::Draining)).await;
    let successor = client(&[server]);
    let registration = Registration::new("draining", instance("c", 3)).fail_fast(BOUND);
    let b = successor.register(registration).await.expect("registered");
    let xml = entry(server, "draining", "c").await;
    assert!(xml.contains("<status>UP</status>"), "{xml}");
    // An operator's does not end with it.
    let registration = || Registration::new("draining", instance("f", 6)).fail_fast(BOUND);
    let f = eureka.register(registration()).await.expect("registered");
    operate(server.address(), "PUT", "draining", "f", "/status?value=OUT_OF_SERVICE").await;
    update(&f, |it| it.with_status(InstanceStatus::Draining)).await;
    let g = successor.register(registration()).await.expect("registered");
    has(&g, "overridden by an operator: OUT_OF_SERVICE").await;
    let xml = entry(server, "draining", "f").await;
    assert!(xml.contains("<overriddenstatus>OUT_OF_SERVICE</"), "{xml}");
    // As a lifecycle ends: nothing is left of the override.
    update(&b, |it| it.with_status(InstanceStatus::Draining)).await;
    b.deregister().await.expect("deregistered");
    assert_eq!(entry(server, "draining", "c").await, "");
    post(server, "DRAINING", "c", "UP").await;
    let xml = entry(server, "draining", "c").await;
    assert!(xml.contains("<status>UP</status>"), "{xml}");
    assert!(xml.contains("<overriddenstatus>UNKNOWN</"), "{xml}");
}

/// Ports that no client can connect to: left out, and counted.
async fn malformed(server: &real::Eureka) {
    let eureka = client(&[server]);
    for (id, port) in [("zero", r#"{"$":0,"@enabled":"true"}"#), ("none", NO_PORT), ("good", PORT)]
    {
        post_with(server, "MALFORMED", id, "UP", port, LONG_LEASE).await;
    }
    let mut subscription = eureka.instancer(query("malformed")).subscribe();
    shows(&mut subscription, &["good"], BOUND).await;
    assert!(subscription.stats().malformed >= 2, "{:?}", subscription.stats());
    assert_eq!(subscription.stats().errors, 0, "{:?}", subscription.stats());
}

/// Without an override: of a predecessor that has registered itself as out of service.
async fn predecessor(server: &real::Eureka) {
    post(server, "PREDECESSOR", "e", "OUT_OF_SERVICE").await;
    let registration = Registration::new("predecessor", instance("e", 5)).fail_fast(BOUND);
    let e = client(&[server]).register(registration).await.expect("registered");
    let xml = entry(server, "predecessor", "e").await;
    assert!(xml.contains("<status>UP</status>"), "{xml}");
    assert!(matches!(e.state(), RegistrationState::Registered), "{e:?}");
}

/// Not yet, up, and no more.
async fn health(server: &real::Eureka) {
    let check = watch::Sender::new(CheckResult::Critical("warming up".into()));
    let checked = Arc::new(check.subscribe());
    let registration = Registration::new("health", instance("d", 4));
    let registration = registration.health(move || {
        let checked = Arc::clone(&checked);
        async move { checked.borrow().clone() }
    });
    let options = RegistrationOptions::new()
        .home_page_url("http://10.0.0.7:1/")
        .status_page_url("http://10.0.0.7:1/status")
        .health_check_url("http://10.0.0.7:1/health");
    let eureka = client(&[server]).with_options(options);
    let _a = eureka.register(registration.fail_fast(BOUND)).await.expect("registered");
    for (result, status) in [
        (CheckResult::Critical("warming up".into()), "STARTING"),
        (CheckResult::Passing, "UP"),
        (CheckResult::Critical("no database".into()), "DOWN"),
        (CheckResult::Warning("slow".into()), "UP"),
    ] {
        check.send_replace(result);
        let node = format!("<status>{status}</status>");
        let xml = entry_that(server, "health", "d", |xml| xml.contains(&node)).await;
        for (node, path) in [("homePage", ""), ("statusPage", "status"), ("healthCheck", "health")]
        {
            let node = format!("<{node}Url>http://10.0.0.7:1/{path}</{node}Url>");
            assert!(xml.contains(&node), "{node}: {xml}");
        }
        assert!(xml.contains("<durationInSecs>3</durationInSecs>"), "{xml}");
    }
}

/// Waits until its state is shown as `state`.
async fn has(handle: &RegistrationHandle, state: &str) {
    let deadline = Instant::now() + BOUND;
    while handle.state().to_string() != state {
        assert!(Instant::now() < deadline, "{handle:?}");
        sleep(LEASE / 10).await;
    }
}

const NO_PORT: &str = r#"{"$":9,"@enabled":"false"}"#;

#[tokio::test]
#[ignore = "needs eureka"]
async fn statuses_are_those_of_operators_instances_and_checks() {
    // Without Spring's page of errors an unknown entry has Tomcat's, as with Netflix's server.
    let config = real::EurekaConfig::quick(required("eureka")).option(
        "spring.autoconfigure.exclude",
        "org.springframework.boot.webmvc.autoconfigure.error.ErrorMvcAutoConfiguration",
    );
    let server = real::Eureka::start(config).await.expect("a server");
    join!(
        operator(&server),
        draining(&server),
        predecessor(&server),
        health(&server),
        malformed(&server)
    );
}
