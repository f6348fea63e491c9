//! Requests to HTTP servers that `named` lists, by priority and weight.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{BalanceLayer, BoxError, Endpointer, Prioritized, RetryLayer, RetryPolicy};
use tower_sd_core::Instancer;
use tower_sd_http::{HttpFactory, HttpProtocol};
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    real::Bind,
    script::{Reply, Script},
};

use crate::scene::{SOON, following, named, sees_that, services, update};

/// A server that answers with its name, and its address, which can be taken away from it.
struct Server {
    name: &'static str,
    door: Proxy,
    _script: Script,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let script = Script::answering(move |_| Reply::new(200).body(name)).await;
        let script = script.expect("loopback");
        let door = Proxy::start(script.address()).await.expect("loopback");
        Self { name, door, _script: script }
    }

    async fn is_listed(&self, bind: &Bind, priority: u16, weight: u16) {
        let (name, address) = (self.name, self.door.address());
        let (ip, port): (IpAddr, u16) = (address.ip(), address.port());
        let srv = format!("{priority} {weight} {port} {name}.lab.test.");
        let lines = format!(
            "update add {name}.lab.test. 0 A {ip}\nupdate add _web._tcp.lab.test. 0 SRV {srv}"
        );
        update(bind, &lines).await;
    }
}

async fn ask<S, B>(client: &mut S) -> Result<String, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let request = Request::get("http://web/").body(Full::default())?;
    let response = client.ready().await?.call(request).await?;
    let body = response.into_body().collect().await.map_err(Into::into)?;
    Ok(String::from_utf8(body.to_bytes().to_vec())?)
}

/// Who answers a hundred requests, none of which may fail.
async fn who_answers<S, B>(client: &mut S) -> BTreeMap<String, usize>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let name = ask(client).await.expect("there is one");
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Waits until this one answers; no request fails meanwhile.
async fn answers<S, B>(client: &mut S, name: &str)
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<B>, Error = BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let start = Instant::now();
    while ask(client).await.expect("there is one") != name {
        assert!(start.elapsed() < SOON * 4, "{name} does not answer");
        sleep(Duration::from_millis(5)).await;
    }
}

fn names(counts: &BTreeMap<String, usize>) -> Vec<&str> {
    counts.keys().map(String::as_str).collect()
}

/// Servers of the next priority get requests only while none of the better one can be reached. No
/// request fails.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn next_priority_serves_while_the_better_one_is_away() {
    let bind = named().await;
    let servers = ["best-1", "best-2", "spare-1", "spare-2"];
    let servers = futures_util::future::join_all(servers.map(Server::start)).await;
    for (server, priority) in servers.iter().zip([10, 10, 20, 20]) {
        server.is_listed(&bind, priority, 1).await;
    }
    let instancer = following(&bind, services());
    let mut subscription = instancer.subscribe();
    sees_that(&mut subscription, SOON, |it| it.instances().len() == 4).await;
    let endpointer = Endpointer::new(&instancer, HttpFactory::new());
    endpointer.ready(SOON).await.expect("there are endpoints");
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
        .layer(BalanceLayer::new(Prioritized::default().overprovisioning(u32::MAX)).with_seed(7))
        .service(endpointer);

    assert_eq!(names(&who_answers(&mut client).await), ["best-1", "best-2"]);
    servers[0].door.set(Fault::Refuse).await;
    assert_eq!(names(&who_answers(&mut client).await), ["best-2"]);
    servers[1].door.set(Fault::Refuse).await;
    assert_eq!(names(&who_answers(&mut client).await), ["spare-1", "spare-2"]);
    servers[1].door.set(Fault::None).await;
    answers(&mut client, "best-2").await;
    assert_eq!(names(&who_answers(&mut client).await), ["best-2"]);
    servers[0].door.set(Fault::None).await;
    answers(&mut client, "best-1").await;
    assert_eq!(names(&who_answers(&mut client).await), ["best-1", "best-2"]);

    // An operator changes their ranks.
    update(&bind, "update delete _web._tcp.lab.test. SRV").await;
    for (server, priority) in servers.iter().zip([20, 20, 20, 10]) {
        server.is_listed(&bind, priority, 1).await;
    }
    let ranks = |it: &tower_sd_core::Snapshot| {
        it.instances().iter().filter(|it| it.priority() == 20).count() == 3
    };
    sees_that(&mut subscription, SOON, ranks).await;
    answers(&mut client, "spare-2").await;
    assert_eq!(names(&who_answers(&mut client).await), ["spare-2"]);
}

/// RFC 2782's weights, as precisely as a thousand requests show them; 0 is hardly ever.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn servers_of_one_priority_share_by_weight() {
    let bind = named().await;
    let servers = ["one", "nine", "zero"];
    let servers = futures_util::future::join_all(servers.map(Server::start)).await;
    for (server, weight) in servers.iter().zip([100, 900, 0]) {
        server.is_listed(&bind, 10, weight).await;
    }
    let instancer = following(&bind, services());
    let mut subscription = instancer.subscribe();
    sees_that(&mut subscription, SOON, |it| it.instances().len() == 3).await;
    let endpointer = Endpointer::new(&instancer, HttpFactory::new());
    endpointer.ready(SOON).await.expect("there are endpoints");
    let mut client = ServiceBuilder::new()
        .layer(BalanceLayer::new(Prioritized::default()).with_seed(7))
        .service(endpointer);
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..10 {
        for (name, n) in who_answers(&mut client).await {
            *counts.entry(name).or_default() += n;
        }
    }
    // A hundred of 1000 are expected, with a standard deviation of 9.5.
    let one = counts.get("one").copied().unwrap_or_default();
    let zero = counts.get("zero").copied().unwrap_or_default();
    assert!((60..=140).contains(&one) && zero < 10, "{counts:?}");
}
