//! The retry's deadline bounds a call to the end of its stream.

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Code;
use tower_sd_balance::{Instance, RetryPolicy};

use crate::{endpointer, failures::dead, message, retried, server::Server};

#[tokio::test]
async fn deadline_of_the_retry_bounds_a_stream_that_stalls() {
    let server = Server::start();
    let endpointer = endpointer([server.instance()]);
    let bound = Duration::from_millis(500);
    let mut client = retried(&endpointer, RetryPolicy::new().timeout(bound));
    let begun = Instant::now();
    let mut stream = client.repeat(message("open")).await.expect("begins").into_inner();
    assert_eq!(stream.message().await.expect("in time").expect("one").text, "1");
    let end = timeout(Duration::from_secs(20), stream.message()).await.expect("in time");
    assert_eq!(end.expect_err("stalled").code(), Code::DeadlineExceeded);
    let late = begun.elapsed().saturating_sub(bound);
    assert!(begun.elapsed() >= bound && late < Duration::from_millis(100), "{late:?}");
    let outcomes = endpointer.report().endpoints[0].outcomes;
    assert_eq!((outcomes.timed_out, outcomes.success), (1, 0));
}

/// Nothing was sent, so each instance is tried, and the call fails in one wait.
#[tokio::test]
async fn service_that_refuses_everywhere_fails_in_one_wait() {
    let endpointer = endpointer([dead(), dead(), dead()]);
    endpointer.ready(Duration::from_secs(20)).await.expect("endpoints");
    let policy = RetryPolicy::new().per_try_timeout(Duration::from_millis(300));
    let begun = Instant::now();
    let status = retried(&endpointer, policy).one(message("order")).await.expect_err("dead");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("none accepts a connection"), "{status}");
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(endpointer.report().endpoints.iter().all(|endpoint| endpoint.refusals > 0));
}

/// 200 calls a second, 300 ms per try, one black hole of two: none fails.
#[tokio::test]
async fn no_call_fails_beside_a_black_hole() {
    let (server, hole) = (Server::start(), BlackHole::open().await);
    let endpointer = endpointer([hole.instance(), server.instance()]);
    let client =
        retried(&endpointer, RetryPolicy::new().per_try_timeout(Duration::from_millis(300)));
    let mut calls = JoinSet::new();
    for _ in 0..600 {
        let mut client = client.clone();
        calls.spawn(async move { client.one(message("order")).await.map(drop) });
        sleep(Duration::from_millis(5)).await;
    }
    while let Some(outcome) = calls.join_next().await {
        outcome.expect("no panic").expect("answers");
    }
}

/// A listener whose backlog is full: the kernel drops further SYNs, as a host that vanished does.
struct BlackHole {
    listener: TcpListener,
    _backlog: JoinSet<std::io::Result<TcpStream>>,
}

impl BlackHole {
    async fn open() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut backlog = JoinSet::new();
        for _ in 0..8 {
            backlog.spawn(TcpStream::connect(address));
        }
        sleep(Duration::from_millis(200)).await;
        Self { listener, _backlog: backlog }
    }

    fn instance(&self) -> Instance {
        let address = self.listener.local_addr().expect("bound");
        Instance::new(address.ip().to_string(), address.port())
    }
}
