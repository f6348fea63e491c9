//! A host that vanishes without closing its connections.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::Body;
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
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_sd::grpc::GrpcFactory;
use tower_sd_balance::{
    BalanceLayer, BoxError, Endpointer, EndpointerReport, FixedInstancer, Instance, RoundRobin,
};
use tower_sd_http::{Dialer, HttpFactory, HttpVersion};

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
                let response = Response::builder().header("grpc-status", "0");
                let response = response.header(CONTENT_TYPE, "application/grpc");
                Ok::<_, Infallible>(response.body(Full::<Bytes>::from("fast")).expect("valid"))
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

/// Returns the bodies of responses.
type Client = BoxCloneSyncService<Request<Sent>, Bytes, BoxError>;

async fn fetch(client: &Client, path: &str) -> Result<Bytes, BoxError> {
    let request = Request::post(format!("http://orders{path}")).body(Sent::default());
    client.clone().oneshot(request.expect("a path")).await
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http(HttpVersion),
    Grpc,
}

/// The settings of all protocols: places for three requests.
fn factory<B>() -> HttpFactory<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let dialer = Dialer::new().keepalive(PROBE).user_timeout(USER_TIMEOUT);
    let factory = HttpFactory::new().dialer(dialer).max_http1_connections(3);
    factory.max_http2_connections(1).max_streams(3)
}

/// A client of the server, and the number of its requests in flight.
fn client(protocol: Protocol, server: &Server) -> (Client, Box<dyn Fn() -> usize + Send + Sync>) {
    let instance = Instance::new(server.address.ip().to_string(), server.address.port());
    let instances = FixedInstancer::new([instance]);
    let layer = BalanceLayer::new(RoundRobin::new());
    match protocol {
        Protocol::Http(version) => {
            let endpointer = Endpointer::new(&instances, factory().version(version));
            let client = layer.layer(endpointer.clone()).and_then(whole);
            (Client::new(client), Box::new(move || in_flight(&endpointer.report())))
        }
        Protocol::Grpc => {
            let endpointer = Endpointer::new(&instances, GrpcFactory::over(factory()));
            let to_grpc = |request: Request<Sent>| request.map(tonic::body::Body::new);
            let client = layer.layer(endpointer.clone()).map_request(to_grpc);
            (Client::new(client.and_then(whole)), Box::new(move || in_flight(&endpointer.report())))
        }
    }
}

async fn whole<B: Body<Error: Into<BoxError>>>(response: Response<B>) -> Result<Bytes, BoxError> {
    Ok(response.into_body().collect().await.map_err(Into::into)?.to_bytes())
}

fn in_flight(report: &EndpointerReport) -> usize {
    report.endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
}

/// Two requests hang on a host that vanishes, and one is sent to it by an open connection; their
/// places are free when it is back.
async fn vanish(protocol: Protocol) {
    let host = Host::new(ADDRESS);
    let server = Server::start(ADDRESS).await;
    let (client, in_flight) = client(protocol, &server);
    let begun = Instant::now();
    let hanging =
        async { tokio::join!(ended(&client, "/hangs", begun), ended(&client, "/hangs", begun)) };
    let vanished = async {
        server.hangs(2).await;
        assert_eq!(fetch(&client, "/fast").await.expect("responds"), "fast");
        host.vanish();
        let vanished_at = begun.elapsed();
        (vanished_at, ended(&client, "/hangs", begun).await)
    };
    let all = async { tokio::join!(hanging, vanished) };
    let ((one, two), (vanished_at, late)) = timeout(LONG, all).await.expect("the requests end");
    let took = [one, two, late].map(|ended_at| ended_at - vanished_at);
    // A probe each second finds out after the user timeout.
    let bound = USER_TIMEOUT + PROBE + Duration::from_secs(1);
    assert!(took.into_iter().all(|took| took < bound), "{protocol:?}: {took:?}");
    assert_eq!(in_flight(), 0);

    host.come_back();
    let back_at = Instant::now();
    loop {
        match timeout(LONG, all_of(&client)).await.expect("their places are free") {
            Ok(()) => break,
            Err(error) => assert!(back_at.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    host.vanish();
}

/// The time from `begun` to the failure.
async fn ended(client: &Client, path: &str, begun: Instant) -> Duration {
    fetch(client, path).await.expect_err("no response");
    begun.elapsed()
}

async fn all_of(client: &Client) -> Result<(), BoxError> {
    let fast = || fetch(client, "/fast");
    let (one, two, three) = tokio::join!(fast(), fast(), fast());
    one.and(two).and(three).map(drop)
}

#[tokio::test]
async fn requests_to_a_vanished_host_end_within_the_user_timeout() {
    if namespace::is_inside("slow::requests_to_a_vanished_host_end_within_the_user_timeout") {
        vanish(Protocol::Http(HttpVersion::Http1)).await;
    }
}

#[tokio::test]
async fn streams_to_a_vanished_host_end_within_the_user_timeout() {
    if namespace::is_inside("slow::streams_to_a_vanished_host_end_within_the_user_timeout") {
        vanish(Protocol::Http(HttpVersion::Http2)).await;
    }
}

#[tokio::test]
async fn calls_to_a_vanished_host_end_within_the_user_timeout() {
    if namespace::is_inside("slow::calls_to_a_vanished_host_end_within_the_user_timeout") {
        vanish(Protocol::Grpc).await;
    }
}

const ADDRESS: &str = "10.9.9.9";
const USER_TIMEOUT: Duration = Duration::from_secs(3);
const PROBE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);
