//! A host that vanishes without closing its connections.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, FixedInstancer, Instance, RoundRobin,
};
use tower_sd_http::{Dialer, HttpEndpoint, HttpFactory, HttpVersion};

use crate::namespace::{self, Host};

type Sent = Full<Bytes>;

/// Responds to `/fast`, and never to `/hangs`.
struct Server {
    address: SocketAddr,
    n_hanging: Arc<Semaphore>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let n_hanging = Arc::new(Semaphore::new(0));
        let arrived = Arc::clone(&n_hanging);
        let respond = move |request: Request<Incoming>| {
            let arrived = Arc::clone(&arrived);
            async move {
                if request.uri().path() == "/hangs" {
                    arrived.add_permits(1);
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("fast")))
            }
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                let respond = respond.clone();
                connections.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    drop(builder.serve_connection(io, service_fn(respond)).await);
                });
            }
        });
        Self { address, n_hanging, _serving: serving }
    }

    /// Waits until `n` further requests hang.
    async fn hangs(&self, n: u32) {
        let hanging = timeout(LONG, self.n_hanging.acquire_many(n)).await.expect("they arrive");
        hanging.expect("never closed").forget();
    }
}

async fn fetch(client: &Balance<HttpEndpoint<Sent>>, path: &str) -> Result<Bytes, BoxError> {
    let request = Request::get(format!("http://orders{path}")).body(Sent::default());
    let response = client.clone().ready().await?.call(request.expect("a path")).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Two requests hang on a host that vanishes; their places are free when it is back.
async fn vanish(version: HttpVersion) {
    let host = Host::new(ADDRESS);
    let server = Server::start(ADDRESS).await;
    let dialer = Dialer::new().keepalive(Duration::from_secs(1)).user_timeout(USER_TIMEOUT);
    let factory = HttpFactory::new()
        .version(version)
        .dialer(dialer)
        .max_http1_connections(2)
        .max_http2_connections(1)
        .max_streams(2);
    let (host_name, port) = (server.address.ip().to_string(), server.address.port());
    let instances = FixedInstancer::new([Instance::new(host_name, port)]);
    let endpointer = Endpointer::new(&instances, factory);
    let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    assert_eq!(fetch(&client, "/fast").await.expect("responds"), "fast");

    let hanging = async { tokio::join!(fetch(&client, "/hangs"), fetch(&client, "/hangs")) };
    let vanished = async {
        server.hangs(2).await;
        host.vanish();
        Instant::now()
    };
    let (ended, vanished_at) =
        timeout(LONG, async { tokio::join!(hanging, vanished) }).await.expect("the requests end");
    let took = vanished_at.elapsed();
    ended.0.expect_err("no response");
    ended.1.expect_err("no response");
    // A probe each second finds out after the user timeout.
    assert!(took < USER_TIMEOUT * 2, "{version:?}: {took:?}");
    let in_flight: Vec<_> =
        endpointer.report().endpoints.iter().map(|endpoint| endpoint.in_flight).collect();
    assert_eq!(in_flight, [0]);

    host.come_back();
    let back_at = Instant::now();
    loop {
        match timeout(LONG, both_of(&client)).await.expect("their places are free") {
            Ok(()) => break,
            Err(error) => assert!(back_at.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    host.vanish();
}

async fn both_of(client: &Balance<HttpEndpoint<Sent>>) -> Result<(), BoxError> {
    let (one, two) = tokio::join!(fetch(client, "/fast"), fetch(client, "/fast"));
    one.and(two).map(drop)
}

#[tokio::test]
async fn requests_to_a_vanished_host_end_within_the_user_timeout() {
    if namespace::is_inside("slow::requests_to_a_vanished_host_end_within_the_user_timeout") {
        vanish(HttpVersion::Http1).await;
    }
}

#[tokio::test]
async fn streams_to_a_vanished_host_end_within_the_user_timeout() {
    if namespace::is_inside("slow::streams_to_a_vanished_host_end_within_the_user_timeout") {
        vanish(HttpVersion::Http2).await;
    }
}

const ADDRESS: &str = "10.9.9.9";
const USER_TIMEOUT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(30);
