use std::{future::ready, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd::http::{HttpEndpoint, HttpFactory, HttpProtocol};
use tower_sd::{
    BoxError, FixedInstancer, Instance,
    balance::{Balance, BalanceLayer, RoundRobin},
    endpoint::{EndpointState, Endpointer},
    retry::{Retry, RetryLayer, RetryPolicy},
};

use super::server::Server;

type Endpoint = HttpEndpoint<Empty<Bytes>>;
type Client = Retry<Balance<Endpoint>, HttpProtocol>;

fn client(endpointer: &Endpointer<Endpoint>) -> Client {
    let policy = RetryPolicy::new().max_attempts(2).idempotent().protocol(HttpProtocol::new());
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone())
}

async fn add(client: &Client, n: usize) -> Result<(), BoxError> {
    let uri = format!("http://arithmetic/calculate/Add/{n}/1");
    let request = Request::post(uri).body(Empty::new())?;
    let answer = client.clone().ready().await?.call(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    let expected = format!(r#"{{"result":{},"error":null}}"#, n + 1);
    if body == expected { Ok(()) } else { Err(format!("{body:?}").into()) }
}

/// Sends 4000 requests, 32 concurrently, and ends one of two servers after the 1000th; returns how
/// many have failed.
async fn failures_when_one_ends(how: How) -> usize {
    let servers = [Server::start().await, Server::start().await];
    let instances = servers
        .iter()
        .map(|server| Instance::new(server.address.ip().to_string(), server.address.port()));
    let endpointer = Endpointer::new(&FixedInstancer::new(instances), HttpFactory::new());
    let client = client(&endpointer);
    let one = async |n| {
        if n == 1_000 {
            how.end(&servers[0]).await;
        }
        add(&client, n).await
    };
    let outcomes = stream::iter(0..4_000).map(one).buffer_unordered(32);
    let failed = outcomes.filter(|outcome| ready(outcome.is_err())).count().await;
    let report = endpointer.report();
    let ended = report.endpoints.iter().find(|e| e.instance.port() == servers[0].address.port());
    let ended = ended.expect("a member");
    // Exchanges that broke may have ejected it before a connect was refused.
    let out = [EndpointState::Down, EndpointState::Ejected];
    assert!(out.contains(&ended.state), "{report:?}");
    assert!(ended.picks > 100, "{report:?}");
    failed
}

/// By which signal.
#[derive(Clone, Copy)]
enum How {
    Kill,
    Term,
}

impl How {
    async fn end(self, server: &Server) {
        let ended = match self {
            Self::Kill => server.process.kill(),
            Self::Term => server.process.stop(Duration::from_secs(10)).await,
        };
        ended.expect("ends");
    }
}

#[tokio::test]
async fn server_that_is_killed_under_load_costs_no_request() {
    assert_eq!(failures_when_one_ends(How::Kill).await, 0);
}

#[tokio::test]
async fn server_that_is_stopped_under_load_costs_no_request() {
    assert_eq!(failures_when_one_ends(How::Term).await, 0);
}
