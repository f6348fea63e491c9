//! One deadline across three hops: HTTP, gRPC, HTTP.

use std::{
    convert::Infallible,
    future::pending,
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
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
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_sd_balance::{BoxError, FixedInstancer, Instance};
use tower_sd_http::{Client, ClientErrorKind};
use tower_sd_testkit::stall::with_stall;
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
/// Beyond the deadline, on an idle machine; the work itself would take 30 s.
const LATE: Duration = Duration::from_millis(50);

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

/// A handler of HTTP requests that does `work`.
fn handler<F>(
    hop: Hop,
    work: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> impl Service<http::Request<Incoming>, Response = Answer, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    F: Future<Output = StatusCode> + Send + 'static,
{
    service_fn(move |request: http::Request<Incoming>| {
        let (working, work) = (hop.begin(request.headers()), work());
        async move {
            let _working = working;
            let mut response = Answer::default();
            *response.status_mut() = work.await;
            Ok(response)
        }
    })
}

type Answer = http::Response<Full<Bytes>>;

async fn serve_http<S, B>(tasks: &mut JoinSet<()>, service: S) -> Instance
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
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
    let work = handler(hops[2].clone(), || async {
        sleep(Duration::from_secs(30)).await;
        StatusCode::OK
    });
    let last = serve_http(&mut tasks, DeadlineLayer::new().layer(work)).await;
    let next = Client::new(FixedInstancer::new([last]));
    let middle = serve_grpc(&mut tasks, Middle { hop: hops[1].clone(), next }).await;
    let channel = EchoClient::new(Channel::new(FixedInstancer::new([middle])));
    let work = handler(hops[0].clone(), move || {
        let mut channel = channel.clone();
        async move {
            let answer = channel.one(message("order")).await;
            answer.map_or(StatusCode::BAD_GATEWAY, |_| StatusCode::OK)
        }
    });
    let first = serve_http(&mut tasks, DeadlineLayer::new().layer(work)).await;
    let client = Client::builder(FixedInstancer::new([first])).timeout(DEADLINE).build();
    client.wait_until_ready(Duration::from_secs(20)).await.expect("an instance");

    let begun = Instant::now();
    let request = http::Request::get("http://first/").body(String::new()).expect("a request");
    let all = async {
        let outcome = client.request(request).await;
        let [first, middle, last] = &hops;
        (outcome, [first.stopped().await, middle.stopped().await, last.stopped().await])
    };
    let ((outcome, stopped), stall) = with_stall(all).await;
    // Its own timer, or the answer of the first hop's.
    match outcome {
        Ok(response) => assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT),
        Err(error) => assert_eq!(error.kind(), ClientErrorKind::Timeout, "{error}"),
    }
    // What is left is sent with each call, so each hop is later by what stalled those before it.
    for (stopped, n) in stopped.into_iter().zip(1..) {
        let late = stopped.saturating_duration_since(begun + DEADLINE);
        assert!(late < LATE + stall * n, "hop {n} has stopped {late:?} late, stalled {stall:?}");
    }
    let http = |hop: &Hop| hop.header("x-envoy-expected-rq-timeout-ms");
    let left = |ms: Option<String>| ms.expect("a header").parse::<u64>().expect("milliseconds");
    let (first, last) = (left(http(&hops[0])), left(http(&hops[2])));
    assert!(first <= 300 && last <= first, "{first} {last}");
    let middle = hops[1].header("grpc-timeout").expect("a header");
    assert!(middle.ends_with('u'), "{middle}");
}

/// Its client is answered in time; only work that outlives its connection goes on.
#[tokio::test]
async fn hop_without_the_layer_works_on_without_a_deadline() {
    const WORK: Duration = Duration::from_millis(600);
    let (mut tasks, hops) = (JoinSet::new(), [(); 2].map(|()| Hop::default()));
    let work = handler(hops[1].clone(), || async {
        sleep(WORK).await;
        StatusCode::OK
    });
    let last = serve_http(&mut tasks, DeadlineLayer::new().layer(work)).await;
    let next = Client::new(FixedInstancer::new([last]));
    // What is begun for a request and goes on without it.
    let detached = Arc::new(Mutex::new(JoinSet::new()));
    let work = handler(hops[0].clone(), {
        let detached = Arc::clone(&detached);
        move || {
            let request = http::Request::get("http://last/").body(String::new());
            let answer = next.request(request.expect("a request"));
            detached.lock().expect("no panic").spawn(answer);
            pending()
        }
    });
    let first = serve_http(&mut tasks, work).await;
    let client = Client::builder(FixedInstancer::new([first])).timeout(DEADLINE).build();
    client.wait_until_ready(Duration::from_secs(20)).await.expect("an instance");

    let request = http::Request::get("http://first/").body(String::new()).expect("a request");
    let error = client.request(request).await.expect_err("too late");
    assert_eq!(error.kind(), ClientErrorKind::Timeout, "{error}");
    let mut detached = mem::take(&mut *detached.lock().expect("no panic"));
    let answer = detached.join_next().await.expect("one request").expect("no panic");
    assert_eq!(answer.expect("it works on").status(), StatusCode::OK);
    let header = "x-envoy-expected-rq-timeout-ms";
    assert!(hops[0].header(header).is_some(), "the client sends its deadline");
    assert_eq!(hops[1].header(header), None, "no hop without the layer carries it on");
}
