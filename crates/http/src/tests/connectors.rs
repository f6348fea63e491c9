//! Streams that are not the factory's own.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tower_sd_balance::{Instance, async_trait};
use tower_sd_net::Target;

use super::{Sent, fetch, get};
use crate::{Connector, HttpErrorKind, HttpFactory, HttpVersion, Io};

/// Answers `name` to each request on each stream.
fn serve(protocol: HttpVersion) -> (mpsc::Sender<DuplexStream>, JoinSet<()>) {
    let (sender, mut streams) = mpsc::channel::<DuplexStream>(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut peers = JoinSet::new();
        while let Some(stream) = streams.recv().await {
            peers.spawn(answer_all(protocol, stream));
        }
    });
    (sender, tasks)
}

async fn answer_all<S>(protocol: HttpVersion, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer =
        service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("in memory"))));
    let io = TokioIo::new(stream);
    // The client closes as it likes.
    drop(match protocol {
        HttpVersion::Http1 => conn::http1::Builder::new().serve_connection(io, answer).await,
        _ => conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await,
    });
}

/// A network without sockets.
struct Memory {
    streams: mpsc::Sender<DuplexStream>,
    n_failures: AtomicUsize,
}

impl Memory {
    fn new(streams: mpsc::Sender<DuplexStream>) -> Self {
        Self { streams, n_failures: AtomicUsize::new(0) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for Memory {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(host, "nowhere");
        Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
    }

    async fn connect(&self, _target: &Target, _address: SocketAddr) -> io::Result<Io> {
        match self.n_failures.fetch_sub(1, Ordering::SeqCst) {
            2 => return Err(io::Error::other("the proxy refused")),
            1 => std::future::pending::<()>().await,
            _ => self.n_failures.store(0, Ordering::SeqCst),
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        self.streams.send(theirs).await.map_err(io::Error::other)?;
        Ok(Io::boxed(ours))
    }
}

#[tokio::test]
async fn connector_takes_the_place_of_tcp_in_both_protocols() {
    for protocol in [HttpVersion::Http1, HttpVersion::Http2] {
        let (streams, _tasks) = serve(protocol);
        let factory = HttpFactory::<Sent>::new().version(protocol).connector(Memory::new(streams));
        let endpoint = factory.endpoint(&Instance::new("nowhere", 1)).expect("a name");
        for _ in 0..3 {
            let body: Bytes = fetch(&endpoint, get("/")).await.expect("answers");
            assert_eq!(body, "in memory");
        }
    }
}

#[tokio::test]
async fn connector_that_fails_or_hangs_is_a_failed_connect() {
    let (streams, _tasks) = serve(HttpVersion::Http1);
    let memory = Memory { streams, n_failures: AtomicUsize::new(2) };
    let factory =
        HttpFactory::<Sent>::new().connect_timeout(Duration::from_millis(100)).connector(memory);
    let endpoint = factory.endpoint(&Instance::new("nowhere", 1)).expect("a name");
    for reason in ["the proxy refused", "100ms"] {
        let fetched = timeout(Duration::from_secs(20), fetch(&endpoint, get("/"))).await;
        let error = fetched.expect("in time").expect_err("fails");
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        assert!(format!("{error:?}").contains(reason), "{error:?}");
    }
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "in memory");
}

/// A name that leads to the credentials of a cloud's machine.
#[derive(Debug)]
struct LinkLocal;

#[async_trait]
impl Connector for LinkLocal {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([169, 254, 169, 254], port))])
    }

    async fn connect(&self, _target: &Target, _address: SocketAddr) -> io::Result<Io> {
        unreachable!("it is denied")
    }
}

#[tokio::test]
async fn host_name_with_a_link_local_address_is_denied_by_default() {
    let factory = HttpFactory::<Sent>::new().connector(LinkLocal);
    let endpoint = factory.endpoint(&Instance::new("nowhere", 80)).expect("a name");
    let error = fetch(&endpoint, get("/")).await.expect_err("denied");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(format!("{error:?}").contains("in a denied network"), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_instances_of_both_protocols() {
    use tokio::net::UnixListener;
    use tower::{Service, ServiceBuilder, ServiceExt};
    use tower_sd_balance::{BalanceLayer, Endpointer, FixedInstancer, RoundRobin};

    for protocol in [HttpVersion::Http1, HttpVersion::Http2] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            answer_all(protocol, stream).await;
        });
        let instance = Instance::new(format!("unix:{}", path.display()), 0);
        let factory = HttpFactory::<Sent>::new().version(protocol);
        let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
        let mut balance =
            ServiceBuilder::new().layer(BalanceLayer::new(RoundRobin::new())).service(endpointer);
        for _ in 0..3 {
            let response = balance.ready().await.expect("always").call(get("/")).await;
            let body = response.expect("answers").into_body();
            assert_eq!(body.collect().await.expect("whole").to_bytes(), "in memory");
        }
    }
}
