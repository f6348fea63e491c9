//! The instancer on the DNS of a real Consul agent.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_sd_core::{FollowConfig, Instancer, LossPolicy, PublisherConfig};
use tower_sd_dns::{DnsClient, DnsConfig, DnsInstancer, Query, Transport};
use tower_sd_testkit::{real::Consul, servers::required, wire::request};

/// facts D11: over UDP it would be 19 of them, others every time.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn sixty_instances_are_all_seen_and_stay() {
    let consul = Consul::dev(required("consul")).await.expect("it starts");
    for n in 1..=60 {
        let body = format!(
            r#"{{"ID":"web-{n}","Name":"web","Address":"10.0.0.{n}","Port":{},"Weights":{{"Passing":{n},"Warning":1}}}}"#,
            8000 + n
        );
        let target = "/v1/agent/service/register";
        let answer = request(consul.address(), "PUT", target, &body).await;
        assert_eq!(answer.expect("it answers").status, 200);
    }
    let config = DnsConfig::new([consul.dns_address()]).transport(Transport::TcpFirst);
    let dns = DnsClient::new(config);
    let mut follow = FollowConfig::new("dns");
    follow.min_refresh = Duration::from_millis(100);
    let publisher = PublisherConfig::new("dns", "web").loss(LossPolicy::Accept);
    let query = Query::srv("web.service.consul").expect("a name");
    let instancer = DnsInstancer::with_config(&dns, query, publisher, follow);
    let mut subscription = instancer.subscribe();
    let all = async {
        while subscription.snapshot().instances().len() < 60 {
            subscription.changed().await.expect("the loop lives");
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("all are seen");
    let snapshot = subscription.snapshot();
    let seventh = snapshot.instances().iter().find(|it| it.host() == "10.0.0.7");
    assert_eq!(seventh.map(|it| (it.port(), it.weight(), it.priority())), Some((8007, 700, 1)));

    // Some twenty-five lookups, none of which changes anything.
    let revision = snapshot.revision();
    sleep(Duration::from_millis(3000)).await;
    let snapshot = subscription.snapshot();
    assert_eq!((snapshot.revision(), snapshot.instances().len()), (revision, 60));
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    assert_eq!(subscription.stats().errors, 0);
}
