//! Connecting belongs to the pool.
//!
//! It is bounded, shared, and reported to every request that waits.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use http::Method;
use http_body_util::BodyExt;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Endpointer, Event, FixedInstancer, Observer, RetryLayer, RetryPolicy, RoundRobin,
    async_trait,
};
use tower_sd_net::Target;
use tower_sd_testkit::{load::paced, loopback::BlackHole};

use super::{Sent, dead, fetch, get, http2::server::Server as Http2Server, send, server::Server};
use crate::{Connector, HttpErrorKind, HttpFactory, HttpProtocol, HttpVersion, Io};

const PROTOCOLS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];
const BOUND: Duration = Duration::from_secs(20);

/// Counts the connects that run towards one port.
#[derive(Debug)]
struct Counting {
    port: u16,
    n_running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Connector for Counting {
    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        let _running = (address.port() == self.port).then(|| {
            let n = self.n_running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(n, Ordering::SeqCst);
            Running(Arc::clone(&self.n_running))
        });
        Ok(TcpStream::connect(address).await?.into())
    }
}

/// With the largest number of sockets that were open towards the hole.
fn counting(hole: &BlackHole, protocol: HttpVersion) -> (HttpFactory<Sent>, Arc<AtomicUsize>) {
    let most = Arc::<AtomicUsize>::default();
    let counting = Counting {
        port: hole.instance().port(),
        n_running: Arc::default(),
        most: Arc::clone(&most),
    };
    (HttpFactory::new().version(protocol).connector(counting), most)
}

#[tokio::test]
async fn black_hole_is_dialled_by_four_sockets_at_most() {
    for protocol in PROTOCOLS {
        let hole = BlackHole::open().await.expect("loopback");
        let (factory, most) = counting(&hole, protocol);
        let endpoint = factory.endpoint(&hole.instance()).expect("an address");
        let mut requests = JoinSet::new();
        for _ in 0..600 {
            let mut endpoint = endpoint.clone();
            requests.spawn(async move {
                let outcome = timeout(Duration::from_millis(300), endpoint.ready()).await;
                outcome.is_ok_and(|ready| ready.is_ok())
            });
            sleep(Duration::from_millis(5)).await;
        }
        while let Some(is_ready) = requests.join_next().await {
            assert!(!is_ready.expect("no panic"));
        }
        let most = most.load(Ordering::SeqCst);
        assert!((1..=4).contains(&most), "{protocol:?}: {most}");
    }
}

#[tokio::test]
async fn failed_connect_is_reported_to_every_request_that_waits() {
    for protocol in PROTOCOLS {
        let hole = BlackHole::open().await.expect("loopback");
        let factory = HttpFactory::<Sent>::new()
            .version(protocol)
            .connect_timeout(Duration::from_millis(300));
        let endpoint = factory.endpoint(&hole.instance()).expect("an address");
        let started = Instant::now();
        let waits = (0..100).map(|_| endpoint.clone().ready_oneshot());
        for outcome in timeout(BOUND, join_all(waits)).await.expect("in time") {
            assert_eq!(outcome.map(drop).expect_err("black").kind(), HttpErrorKind::Connect);
        }
        assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn readiness_is_pending_while_connecting_and_an_error_after() {
    let hole = BlackHole::open().await.expect("loopback");
    let factory = HttpFactory::<Sent>::new().connect_timeout(Duration::from_millis(200));
    let endpoint = factory.endpoint(&hole.instance()).expect("an address");
    let mut probe = endpoint.clone();
    assert!(probe.ready().now_or_never().is_none());
    assert!(endpoint.clone().ready().now_or_never().is_none(), "its dial is shared");
    let outcome = timeout(BOUND, probe.ready()).await.expect("in time");
    assert_eq!(outcome.map(drop).expect_err("black").kind(), HttpErrorKind::Connect);
}

#[tokio::test]
async fn burst_opens_growing_numbers_of_connections() {
    let server = Server::polite().await;
    let factory = HttpFactory::<Sent>::new();
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let requests = join_all((0..200).map(|_| fetch(&endpoint, get("/"))));
    for outcome in timeout(BOUND, requests).await.expect("in time") {
        assert_eq!(outcome.expect("answers"), "ok");
    }
    assert!(server.n_accepted() <= 200);
}

/// The peer of each connection, and the failure.
#[derive(Debug, Default)]
struct Connects(Mutex<Vec<(String, Option<String>)>>);

impl Observer for Connects {
    fn on(&self, event: &Event<'_>) {
        if let Event::Connected { address, time, error } = event {
            assert!(*time < BOUND, "{time:?}");
            let connect = ((*address).to_owned(), error.map(ToString::to_string));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connect);
        }
    }
}

#[tokio::test]
async fn each_connect_is_observed_with_its_failure() {
    let connects = Arc::<Connects>::default();
    let observer: Arc<dyn Observer> = Arc::<Connects>::clone(&connects);
    let factory = HttpFactory::<Sent>::new().observer(observer);
    let server = Server::polite().await;
    let (dead, live) = (dead(), server.instance());
    for (instance, is_live) in [(&dead, false), (&live, true)] {
        let mut endpoint = factory.endpoint(instance).expect("an address");
        let ready = timeout(BOUND, endpoint.ready()).await.expect("in time");
        assert_eq!(ready.is_ok(), is_live);
    }
    let seen = connects.0.lock().unwrap_or_else(PoisonError::into_inner);
    let [(first, failure), second] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((first, second), (&dead.to_string(), &(live.to_string(), None)));
    let failure = failure.as_deref().expect("it refuses");
    assert!(failure.contains(&dead.to_string()), "{failure}");
}

/// A connector that fails on demand.
#[derive(Debug)]
struct Switch {
    is_off: Arc<AtomicUsize>,
    n_dials: Arc<AtomicUsize>,
}

impl Switch {
    fn new() -> (Self, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let (is_off, n_dials) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        (Self { is_off: Arc::clone(&is_off), n_dials: Arc::clone(&n_dials) }, is_off, n_dials)
    }
}

#[async_trait]
impl Connector for Switch {
    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        self.n_dials.fetch_add(1, Ordering::SeqCst);
        if self.is_off.load(Ordering::SeqCst) > 0 {
            return Err(io::Error::other("switched off"));
        }
        Ok(TcpStream::connect(address).await?.into())
    }
}

#[tokio::test]
async fn failed_dial_is_followed_by_another_while_requests_wait() {
    for protocol in PROTOCOLS {
        let (one, two);
        let instance = match protocol {
            HttpVersion::Http1 => {
                one = Server::polite().await;
                one.instance()
            }
            _ => {
                two = Http2Server::polite(1).await;
                two.instance()
            }
        };
        let (switch, is_off, n_dials) = Switch::new();
        let factory = HttpFactory::<Sent>::new().version(protocol).connector(switch);
        let endpoint = factory.endpoint(&instance).expect("an address");
        let mut busy = endpoint.clone();
        timeout(BOUND, busy.ready()).await.expect("in time").expect("connects");
        is_off.store(1, Ordering::SeqCst);
        let mut waits = endpoint.clone();
        assert!(waits.ready().now_or_never().is_none());
        while n_dials.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        is_off.store(0, Ordering::SeqCst);
        timeout(BOUND, waits.ready()).await.expect("in time").expect("dialled again");
        assert_eq!(n_dials.load(Ordering::SeqCst), 3, "{protocol:?}");

        // A second failure without a sign of life is reported.
        is_off.store(1, Ordering::SeqCst);
        let mut third = endpoint.clone();
        let outcome = timeout(BOUND, third.ready()).await.expect("in time");
        assert_eq!(outcome.map(drop).expect_err("off").kind(), HttpErrorKind::Connect);
        drop((busy, waits));
    }
}

#[tokio::test]
async fn places_are_given_first_come_first_served() {
    for protocol in PROTOCOLS {
        let (one, two);
        let instance = match protocol {
            HttpVersion::Http1 => {
                one = Server::polite().await;
                one.instance()
            }
            _ => {
                two = Http2Server::polite(1).await;
                two.instance()
            }
        };
        let factory = HttpFactory::<Sent>::new()
            .version(protocol)
            .max_http1_connections(1)
            .max_http2_connections(1);
        let endpoint = factory.endpoint(&instance).expect("an address");
        let first = send(&endpoint, get("/")).await.expect("answers");
        let (mut second, mut third) = (endpoint.clone(), endpoint.clone());
        assert!(second.ready().now_or_never().is_none(), "one is busy");
        assert!(third.ready().now_or_never().is_none(), "one is busy");
        first.into_body().collect().await.expect("whole");
        assert!(endpoint.clone().ready().now_or_never().is_none(), "it came last");
        timeout(BOUND, second.ready()).await.expect("in time").expect("its turn");
        assert!(third.ready().now_or_never().is_none(), "its turn comes next");
        drop(second);
        timeout(BOUND, third.ready()).await.expect("in time").expect("its turn");
    }
}

#[tokio::test]
async fn refused_connect_ends_the_waiting_of_a_burst() {
    let factory = HttpFactory::<Sent>::new();
    let endpoint = factory.endpoint(&dead()).expect("an address");
    let waits = (0..500).map(|_| endpoint.clone().ready_oneshot());
    for outcome in timeout(BOUND, join_all(waits)).await.expect("in time") {
        assert_eq!(outcome.map(drop).expect_err("refused").kind(), HttpErrorKind::Connect);
    }
}

/// 200 requests a second, 300 ms per try, one black hole of two; slow ones in the first second.
#[tokio::test]
async fn no_request_fails_and_few_sockets_open_beside_a_black_hole() {
    let one = Server::polite().await;
    let two = Http2Server::polite(100).await;
    for (protocol, instance) in
        [(HttpVersion::Http1, one.instance()), (HttpVersion::Http2, two.instance())]
    {
        let hole = BlackHole::open().await.expect("loopback");
        let instancer = FixedInstancer::new([hole.instance(), instance.clone()]);
        let (factory, most) = counting(&hole, protocol);
        let policy = RetryPolicy::new().per_try_timeout(PER_TRY).protocol(HttpProtocol::new());
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(Endpointer::new(&instancer, factory));
        let control = HttpFactory::new().version(protocol).endpoint(&instance).expect("an address");
        let interval = Duration::from_millis(5);
        let requests = paced(600, interval, |i| {
            let (client, mut request) = (client.clone(), get("/"));
            if i % 4 < 2 {
                *request.method_mut() = Method::POST;
            }
            async move { client.oneshot(request).await.map(drop) }
        });
        let controls = paced(600, interval, |_| {
            let control = control.clone();
            async move { control.oneshot(get("/")).await.map(drop) }
        });
        let (requests, controls) = tokio::join!(requests, controls);
        // Where the machine itself takes so long, tries time out.
        let is_fit = requests.errors.is_empty() || controls.slowest() > PER_TRY / 3;
        assert!(is_fit, "{protocol:?}: {:?}", requests.errors);
        let (p99, without) = (requests.p99_after(200), controls.p99_after(200));
        assert!(
            p99 <= Duration::from_millis(50) + without * 2,
            "{protocol:?}: {p99:?} {without:?}"
        );
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 4, "{protocol:?}: {most}");
    }
}

const PER_TRY: Duration = Duration::from_millis(300);
