//! One deadline across three hops: HTTP, gRPC, HTTP.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport};
use tower::{Layer, ServiceExt, service_fn};
use tower_sd_balance::{FixedInstancer, Instance};
use tower_sd_http::{Client, ClientErrorKind};
use tower_sd_tonic::{Channel, DeadlineLayer};

use crate::{
    echo::{
        Message,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
    message,
};

const DEADLINE: Duration = Duration::from_millis(300);
/// Beyond the deadline, on a busy machine; the work itself would take 30 s.
const LATE: Duration = Duration::from_secs(2);

/// What a hop has received, and when it has stopped.
#[derive(Clone, Default)]
struct Hop(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    headers: HeaderMap,
    stopped: Option<Instant>,
}

/// Works until it is dropped.
struct Working(Hop);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.lock().expect("no panic").stopped = Some(Instant::now());
    }
}

impl Hop {
    fn begin(&self, headers: &HeaderMap) -> Working {
        self.0.lock().expect("no panic").headers = headers.clone();
        Working(self.clone())
    }

    fn header(&self, name: &str) -> Option<String> {
        let seen = self.0.lock().expect("no panic");
        seen.headers.get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    async fn stopped(&self) -> Instant {
        loop {
            let stopped = self.0.lock().expect("no panic").stopped;
            match stopped {
                Some(at) => return at,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// Serves HTTP below a `DeadlineLayer`; `work` is what a handler does.
async fn serve_http<F>(
    tasks: &mut JoinSet<()>,
    hop: Hop,
    work: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Instance
where
    F: Future<Output = StatusCode> + Send + 'static,
{
    let handler = service_fn(move |request: http::Request<Incoming>| {
        let (working, work) = (hop.begin(request.headers()), work());
        async move {
            let _working = working;
            let mut response = http::Response::new(Full::new(Bytes::new()));
            *response.status_mut() = work.await;
            Ok::<_, Infallible>(response)
        }
    });
    let service = DeadlineLayer::new().layer(handler);
    let (listener, instance) = listen().await;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let service = service.clone();
            let service =
                hyper::service::service_fn(move |request| service.clone().oneshot(request));
            connections.spawn(async move {
                let io = TokioIo::new(stream);
                let _gone = http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    instance
}

async fn listen() -> (TcpListener, Instance) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address: SocketAddr = listener.local_addr().expect("bound");
    (listener, Instance::new(address.ip().to_string(), address.port()))
}

/// Sends each call on over HTTP.
struct Middle {
    hop: Hop,
    next: Client,
}

#[tonic::async_trait]
impl Echo for Middle {
    type RepeatStream = tokio_stream::Empty<Result<Message, Status>>;
    type ConverseStream = tokio_stream::Empty<Result<Message, Status>>;

    async fn one(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let _working = self.hop.begin(request.metadata().as_ref());
        let next = http::Request::get("http://last/").body(String::new()).expect("a request");
        let response = self.next.request(next).await;
        let response = response.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(message(response.status().to_string())))
    }

    async fn collect(&self, _: Request<Streaming<Message>>) -> Result<Response<Message>, Status> {
        Err(Status::unimplemented("unary only"))
    }

    async fn repeat(&self, _: Request<Message>) -> Result<Response<Self::RepeatStream>, Status> {
        Err(Status::unimplemented("unary only"))
    }

    async fn converse(
        &self,
        _: Request<Streaming<Message>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        Err(Status::unimplemented("unary only"))
    }
}

async fn serve_grpc(tasks: &mut JoinSet<()>, middle: Middle) -> Instance {
    let (listener, instance) = listen().await;
    tasks.spawn(async move {
        transport::Server::builder()
            .layer(DeadlineLayer::new())
            .add_service(EchoServer::new(middle))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .expect("serves");
    });
    instance
}

#[tokio::test]
async fn deadline_ends_the_work_of_three_hops() {
    let (mut tasks, hops) = (JoinSet::new(), [(); 3].map(|()| Hop::default()));
    let last = serve_http(&mut tasks, hops[2].clone(), || async {
        sleep(Duration::from_secs(30)).await;
        StatusCode::OK
    })
    .await;
    let next = Client::new(FixedInstancer::new([last]));
    let middle = serve_grpc(&mut tasks, Middle { hop: hops[1].clone(), next }).await;
    let channel = EchoClient::new(Channel::new(FixedInstancer::new([middle])));
    let first = serve_http(&mut tasks, hops[0].clone(), move || {
        let mut channel = channel.clone();
        async move {
            let answer = channel.one(message("order")).await;
            answer.map_or(StatusCode::BAD_GATEWAY, |_| StatusCode::OK)
        }
    })
    .await;
    let client = Client::builder(FixedInstancer::new([first])).timeout(DEADLINE).build();
    client.wait_until_ready(Duration::from_secs(20)).await.expect("an instance");

    let begun = Instant::now();
    let request = http::Request::get("http://first/").body(String::new()).expect("a request");
    let outcome = client.request(request).await;
    // Its own timer, or the answer of the first hop's.
    match outcome {
        Ok(response) => assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT),
        Err(error) => assert_eq!(error.kind(), ClientErrorKind::Timeout, "{error}"),
    }
    for (n, hop) in hops.iter().enumerate() {
        let late = hop.stopped().await.saturating_duration_since(begun + DEADLINE);
        assert!(late < LATE, "hop {n} has stopped {late:?} late");
    }
    let http = |hop: &Hop| hop.header("x-envoy-expected-rq-timeout-ms");
    let left = |ms: Option<String>| ms.expect("a header").parse::<u64>().expect("milliseconds");
    let (first, last) = (left(http(&hops[0])), left(http(&hops[2])));
    assert!(first <= 300 && last <= first, "{first} {last}");
    let middle = hops[1].header("grpc-timeout").expect("a header");
    assert!(middle.ends_with('u'), "{middle}");
}
