//! Traffic through servers that a real Consul agent lists, while that agent is disturbed.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::{
    select,
    time::{interval, sleep},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::{
    BalanceLayer, BoxError, Endpointer, Instance, Instancer, Registrar, Registration, RetryLayer,
    RetryPolicy, RoundRobin,
};
use tower_sd_consul::{ConsulClient, ConsulConfig, ConsulInstancer, ConsulRegistrar, Query};
use tower_sd_http::{HttpFactory, HttpReplay};
use tower_sd_testkit::{
    real,
    script::{Reply, Script},
    servers::configured,
};

/// Sends a request every 10 ms while `disturb` runs, on every version; none may fail.
async fn traffic_survives(disturb: impl AsyncFn(&real::Consul)) {
    for binary in configured("consul").unwrap_or_else(|missing| panic!("{missing}")) {
        let agent = real::Consul::dev(binary.clone()).await.expect("the agent starts");
        let client = ConsulClient::new(ConsulConfig::new(agent.url())).expect("an address");
        let registrar = ConsulRegistrar::new(&client).ttl(TTL);
        let (mut servers, mut handles) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let server = Script::answering(|_| Reply::new(200).body("5")).await.expect("loopback");
            let address = server.address();
            let instance = Instance::new(address.ip().to_string(), address.port());
            let registration = Registration::new("arithmetic", instance);
            handles.push(registrar.register(registration).await.expect("registered"));
            servers.push(server);
        }
        let instancer = ConsulInstancer::new(&client, Query::service("arithmetic"));
        let mut subscription = instancer.subscribe();
        while subscription.snapshot().instances().len() < 3 {
            subscription.changed().await.expect("the loop lives");
        }
        let endpointer = Endpointer::new(&instancer, HttpFactory::new());
        let policy = RetryPolicy::new().replay_with(HttpReplay::new());
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(endpointer);
        let mut every = interval(Duration::from_millis(10));
        let (mut n, mut failures) = (0, Vec::new());
        let requests = async {
            loop {
                every.tick().await;
                n += 1;
                if let Err(error) = ask(client.clone()).await {
                    failures.push(error.to_string());
                }
            }
        };
        select! {
            () = requests => {}
            () = disturb(&agent) => {}
        }
        assert!(failures.is_empty(), "consul v{}: {failures:?} of {n}", binary.version);
        assert!(n > 100, "only {n} requests");
        let snapshot = subscription.snapshot();
        assert_eq!(snapshot.instances().len(), 3, "{snapshot:?}");
    }
}

async fn ask<S, B>(mut client: S) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let request = Request::get("http://arithmetic/").body(Full::default())?;
    let ready = client.ready().await.map_err(Into::into)?;
    let response = ready.call(request).await.map_err(Into::into)?;
    response.into_body().collect().await.map_err(Into::into)?;
    Ok(())
}

/// Issue 6: a `-dev` agent is restarted with empty state under registered servers.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn an_agent_that_forgot_everything_costs_no_request() {
    traffic_survives(async |agent| {
        sleep(Duration::from_millis(500)).await;
        agent.restart_empty().await.expect("it starts again");
        sleep(TTL * 2).await;
    })
    .await;
}

/// All TTLs fire at once when it wakes up.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn an_agent_that_was_suspended_costs_no_request() {
    traffic_survives(async |agent| {
        agent.suspend().expect("it runs");
        sleep(TTL * 2).await;
        agent.resume().expect("it runs");
        sleep(TTL).await;
    })
    .await;
}

const TTL: Duration = Duration::from_secs(3);
