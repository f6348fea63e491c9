//! Active checks, over real sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Request;
use tokio::time::{sleep, timeout};
use tower_sd_balance::{EndpointState, FixedInstancer, RoundRobin, Served};

use super::server::{OK, Server};
use crate::{Client, HealthPolicy};

/// Counts its checks and its other requests; the test sets its health.
#[derive(Clone, Default)]
struct Site {
    is_ill: Arc<AtomicBool>,
    n_checks: Arc<AtomicUsize>,
    n_requests: Arc<AtomicUsize>,
}

impl Site {
    async fn start(&self) -> Server {
        let site = self.clone();
        Server::start(move |mut peer| {
            let site = site.clone();
            async move {
                while let Some(head) = peer.request().await {
                    let is_check = head.starts_with("GET /health?deep=1 ");
                    assert!(!is_check || head.contains("host: orders\r\n"), "{head}");
                    let counter = if is_check { &site.n_checks } else { &site.n_requests };
                    counter.fetch_add(1, Relaxed);
                    match is_check && site.is_ill.load(Relaxed) {
                        true => peer.write("HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nill").await,
                        false => peer.write(OK).await,
                    }
                }
            }
        })
        .await
    }
}

fn policy() -> HealthPolicy {
    let policy = HealthPolicy::new("/health?deep=1").expect("a path").thresholds(2, 1);
    let policy = policy.interval(Duration::from_secs(1)).timeout(Duration::from_secs(1));
    policy.host("orders").expect("a host")
}

async fn until(is_so: impl Fn() -> bool + Send + Sync) {
    let waited = timeout(Duration::from_secs(30), async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("within 30 s");
}

#[tokio::test]
async fn instance_that_fails_its_checks_gets_no_requests() {
    let (ill, well) = (Site::default(), Site::default());
    let servers = [ill.start().await, well.start().await];
    let client = Client::builder(FixedInstancer::new(servers.iter().map(Server::instance)))
        .balancer(RoundRobin::new())
        .factory(|factory| factory.health(policy()))
        .build();
    client.wait_until_ready(Duration::from_secs(5)).await.expect("ready before any check");
    ill.is_ill.store(true, Relaxed);
    let is_out = |client: &Client| {
        let endpoints = client.report().endpoints;
        endpoints.iter().any(|endpoint| {
            let is_it = endpoint.instance.port() == servers[0].instance().port();
            is_it && endpoint.state == EndpointState::Ejected
        })
    };
    until(|| is_out(&client)).await;
    let endpoints = client.report().endpoints;
    assert!(endpoints.iter().any(|it| it.error.as_deref().is_some_and(|e| e.contains("503"))));
    let before = ill.n_requests.load(Relaxed);
    for _ in 0..10 {
        let request = Request::get("http://orders/a").body(String::new()).expect("a request");
        let response = client.request(request).await.expect("answered");
        let served = response.extensions().get::<Served>().expect("served");
        assert_eq!(served.instance(), servers[1].instance().id());
    }
    assert_eq!(ill.n_requests.load(Relaxed), before);
    ill.is_ill.store(false, Relaxed);
    until(|| !is_out(&client)).await;
    // With its client the checks end.
    drop(client);
    sleep(Duration::from_millis(500)).await;
    let n_checks = ill.n_checks.load(Relaxed);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(ill.n_checks.load(Relaxed), n_checks);
}

/// Clones of a client are one endpointer; clients that are built apart share the policy. The one
/// that checks may leave.
#[tokio::test]
async fn endpoint_has_one_check_whatever_the_number_of_clients() {
    let site = Site::default();
    let servers = [site.start().await];
    let tenth = Duration::from_millis(100);
    let policy = policy().interval(tenth).timeout(tenth);
    let build = || {
        Client::builder(FixedInstancer::new([servers[0].instance()]))
            .factory(|factory| factory.health(policy.clone()))
            .build()
    };
    let mut apart: Vec<_> = (0..10).map(|_| build()).collect();
    let clones: Vec<_> = (0..10).map(|i| apart[i].clone()).collect();
    sleep(Duration::from_millis(1_000)).await;
    let n_checks = site.n_checks.load(Relaxed);
    // Each client's own would be 200, and one of each endpointer 100.
    assert!((1..=40).contains(&n_checks), "{n_checks} checks");
    site.is_ill.store(true, Relaxed);
    let is_out = |client: &Client| {
        client.report().endpoints.iter().all(|it| it.state == EndpointState::Ejected)
    };
    until(|| apart.iter().all(is_out)).await;
    drop(clones);
    // Whichever of them checks, it is among those that leave.
    site.is_ill.store(false, Relaxed);
    let last = apart.split_off(9);
    drop(apart);
    until(|| !is_out(&last[0])).await;
    // A new one learns the last decision, and that there are no checks when all have left.
    let next = build();
    drop(last);
    until(|| !next.report().endpoints.is_empty()).await;
    drop(next);
    sleep(Duration::from_millis(300)).await;
    let n_checks = site.n_checks.load(Relaxed);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(site.n_checks.load(Relaxed), n_checks);
}
