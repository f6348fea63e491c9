//! When connections end that nothing is wrong with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::Method;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Sent, endpoint_of, fetch, get,
    http2::server::{Server as Http2Server, answer},
    send,
    server::{Peer, Server},
};
use crate::{HttpFactory, HttpVersion};

const BOUND: Duration = Duration::from_secs(60);

fn post() -> http::Request<Sent> {
    let mut request = get("/");
    *request.method_mut() = Method::POST;
    request
}

/// Sends `head` with each answer, and closes a connection that was silent for `silence` after it.
async fn announcing(head: &'static str, silence: Duration) -> Server {
    Server::start(move |mut peer: Peer| async move {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}content-length: 2\r\n\r\nok");
        let mut request = peer.request().await;
        while request.is_some() {
            peer.write(&answer).await;
            request = timeout(silence, peer.request()).await.unwrap_or_default();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_in_the_race_with_an_announced_close_all_succeed() {
    let server = Arc::new(announcing("keep-alive: timeout=2\r\n", Duration::from_secs(2)).await);
    let mut callers = JoinSet::new();
    for i in 0..1000_u64 {
        let server = Arc::clone(&server);
        callers.spawn(async move {
            // A thousand connects at a time take a busy machine some seconds.
            let endpoint = endpoint_of(HttpFactory::new().connect_timeout(BOUND), &server);
            fetch(&endpoint, post()).await.expect("answers");
            // From a second before the close to some after it.
            sleep(Duration::from_micros(900_000 + i * 1300)).await;
            fetch(&endpoint, post()).await.expect("answers again");
        });
    }
    let all = callers.join_all();
    assert_eq!(timeout(BOUND, all).await.expect("in time").len(), 1000);
}

#[tokio::test]
async fn announced_idle_time_is_obeyed_within_the_setting() {
    for (head, idle_timeout, n_accepted) in [
        ("keep-alive: timeout=1\r\n", 30_000, 2),
        ("Keep-Alive: max=5, timeout=60\r\n", 200, 2),
        ("Keep-Alive: max=5, timeout=60\r\n", 30_000, 1),
        ("", 30_000, 1),
    ] {
        let server = announcing(head, BOUND).await;
        let factory = HttpFactory::new().idle_timeout(Duration::from_millis(idle_timeout));
        let endpoint = endpoint_of(factory, &server);
        fetch(&endpoint, post()).await.expect("answers");
        sleep(Duration::from_millis(700)).await;
        fetch(&endpoint, post()).await.expect("answers");
        assert_eq!(server.n_accepted(), n_accepted, "{head}");
    }
}

#[tokio::test]
async fn busy_connections_end_at_their_age_and_no_request_fails() {
    let one = Server::polite().await;
    let two = Http2Server::polite(100).await;
    for protocol in [HttpVersion::Http1, HttpVersion::Http2] {
        let instance = match protocol {
            HttpVersion::Http1 => one.instance(),
            _ => two.instance(),
        };
        let factory =
            HttpFactory::<Sent>::new().version(protocol).max_age(Duration::from_millis(300));
        let endpoint = factory.endpoint(&instance).expect("an address");
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            let requests = (0..4).map(|_| fetch(&endpoint, get("/")));
            for outcome in join_all(requests).await {
                assert_eq!(outcome.expect("answers"), "ok");
            }
        }
        let n_accepted = match protocol {
            HttpVersion::Http1 => one.n_accepted(),
            _ => two.n_accepted(),
        };
        assert!(n_accepted >= 4, "{protocol:?}: {n_accepted}");
    }
}

/// A virtual IP sends each new connection to the backend of the moment, and moves none.
#[tokio::test]
async fn busy_connections_leave_a_virtual_address_for_its_new_backend() {
    let backend = Arc::<AtomicUsize>::default();
    let moved = Arc::clone(&backend);
    let server = Server::start(move |mut peer: Peer| {
        let name = ["old", "new"][backend.load(Ordering::SeqCst)];
        async move {
            while peer.request().await.is_some() {
                peer.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{name}")).await;
            }
        }
    })
    .await;
    let endpoint = endpoint_of(HttpFactory::new().max_age(Duration::from_millis(300)), &server);
    let answers = async || {
        let requests = join_all((0..4).map(|_| fetch(&endpoint, get("/")))).await;
        requests.into_iter().map(|answer| answer.expect("no request fails")).collect::<Vec<_>>()
    };
    assert_eq!(answers().await, ["old"; 4]);
    moved.store(1, Ordering::SeqCst);
    let left = async { while answers().await != ["new"; 4] {} };
    timeout(BOUND, left).await.expect("no connection outlives its age");
}

/// However short the age is, each connection serves a request.
#[tokio::test]
async fn age_of_zero_is_one_request_a_connection() {
    let one = Server::polite().await;
    let two = Http2Server::polite(100).await;
    for (protocol, instance) in
        [(HttpVersion::Http1, one.instance()), (HttpVersion::Http2, two.instance())]
    {
        let factory = HttpFactory::<Sent>::new().version(protocol).max_age(Duration::ZERO);
        let endpoint = factory.endpoint(&instance).expect("an address");
        for _ in 0..20 {
            let fetched = timeout(BOUND, fetch(&endpoint, get("/"))).await.expect("in time");
            assert_eq!(fetched.expect("answers"), "ok");
        }
    }
    assert_eq!((one.n_accepted(), two.n_accepted()), (20, 20));
}

#[tokio::test]
async fn aged_connection_drains_its_streams_and_closes() {
    let n_seen = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&n_seen);
    let server = Http2Server::start(100, move |_, reply| {
        let seen = Arc::clone(&seen);
        async move {
            if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                sleep(Duration::from_millis(600)).await;
            }
            answer(reply, "ok");
        }
    })
    .await;
    let factory = HttpFactory::<Sent>::new()
        .version(HttpVersion::Http2)
        .max_http2_connections(1)
        .max_age(Duration::from_millis(200));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let slow = send(&endpoint, get("/slow"));
    let others = async {
        sleep(Duration::from_millis(250)).await;
        // A draining connection does not count among those that may be open.
        timeout(BOUND, fetch(&endpoint, get("/"))).await.expect("in time").expect("answers");
        assert_eq!((server.n_accepted(), server.n_open()), (2, 2));
    };
    let (slow, ()) = tokio::join!(slow, others);
    drop(slow.expect("was not cut"));
    let closed = async {
        while server.n_open() > 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, closed).await.expect("closes when its last stream has ended");
}

#[tokio::test]
async fn durations_without_end_do_not_panic() {
    for protocol in [HttpVersion::Http1, HttpVersion::Http2] {
        let one = Server::polite().await;
        let two = Http2Server::polite(100).await;
        let factory = HttpFactory::<Sent>::new()
            .version(protocol)
            .connect_timeout(Duration::MAX)
            .idle_timeout(Duration::MAX)
            .max_age(Duration::MAX)
            .read_timeout(Duration::MAX)
            .keep_alive_interval(Duration::MAX)
            .keep_alive_timeout(Duration::MAX);
        let instance = match protocol {
            HttpVersion::Http1 => one.instance(),
            _ => two.instance(),
        };
        let endpoint = factory.endpoint(&instance).expect("an address");
        for _ in 0..3 {
            assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
        }
    }
}

/// Its bound counts no connection that takes nothing more.
#[tokio::test]
async fn request_at_the_bound_gets_a_new_connection_for_an_old_one() {
    let server = Http2Server::start(2, async |request, reply| {
        match request.uri().path() {
            "/long" => std::future::pending().await,
            "/short" => sleep(Duration::from_millis(400)).await,
            _ => {}
        }
        answer(reply, "ok");
    })
    .await;
    let factory = HttpFactory::new()
        .version(HttpVersion::Http2)
        .max_http2_connections(1)
        .max_age(Duration::from_millis(200));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let (long, short) = (fetch(&endpoint, get("/long")), fetch(&endpoint, get("/short")));
    let waiting = async {
        sleep(Duration::from_millis(50)).await;
        fetch(&endpoint, get("/")).await
    };
    let both = async { tokio::join!(short, waiting) };
    tokio::select! {
        _ = long => panic!("it never ends"),
        ended = timeout(Duration::from_secs(20), both) => {
            let (short, waiting) = ended.expect("in time");
            assert_eq!((short.expect("answers"), waiting.expect("answers")), ("ok".into(), "ok".into()));
        }
    }
    assert_eq!(server.n_accepted(), 2);
}
