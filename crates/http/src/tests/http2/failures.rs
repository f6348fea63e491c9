use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use http::Response;
use http_body_util::BodyExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, ServiceExt};
use tower_sd_balance::{BalanceLayer, EndpointState, Endpointer, FixedInstancer, RoundRobin};

use super::{
    super::{
        dead,
        server::{HEADERS, RST_STREAM, Server as RawServer},
    },
    Server, answer, endpoint, fetch, gated, get, http2, send,
};
use crate::{HttpError, HttpErrorKind};

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// GOAWAY with the last stream 0, without an error.
pub(crate) const BEFORE_THE_FIRST: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// GOAWAY with the last stream 1.
pub(crate) const THE_FIRST: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";

#[tokio::test]
async fn refused_connect_fails_all_waiting_requests() {
    let endpoint = http2().endpoint(&dead()).expect("an address");
    let outcomes = join_all((0..10).map(|_| fetch(&endpoint, get("/"))));
    for outcome in timeout(Duration::from_secs(5), outcomes).await.expect("in time") {
        let error = outcome.expect_err("the port is closed");
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        assert!(error.is_not_sent());
    }
}

#[tokio::test]
async fn server_without_http_2_refuses_the_connection() {
    let answers: [&[u8]; 3] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""];
    for answer in answers {
        let server = RawServer::start(async move |mut peer| peer.write_bytes(answer).await).await;
        let endpoint = http2().endpoint(&server.instance()).expect("an address");
        let error = endpoint.clone().ready().await.map(drop).expect_err("no HTTP/2");
        assert_eq!(error.kind(), HttpErrorKind::Connect);
    }
}

#[tokio::test]
async fn server_that_accepts_and_is_silent_is_given_up_in_time() {
    let server = RawServer::start(async |mut peer| peer.closed().await).await;
    let factory = http2().connect_timeout(Duration::from_millis(100));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let started = Instant::now();
    let error = endpoint.clone().ready().await.map(drop).expect_err("silent");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn server_that_goes_away_finishes_and_gets_nothing_more() {
    let (server, gate) = gated(100).await;
    let endpoint = endpoint(&server);
    let in_flight = async { fetch(&endpoint, get("/")).await };
    let leaving = async {
        sleep(Duration::from_millis(50)).await;
        server.leave();
        sleep(Duration::from_millis(50)).await;
        gate.add_permits(2);
        fetch(&endpoint, get("/")).await
    };
    let both = async { tokio::join!(in_flight, leaving) };
    let (first, second) = timeout(Duration::from_secs(5), both).await.expect("in time");
    assert_eq!(first.expect("finished"), "ok");
    assert_eq!(second.expect("sent on another connection"), "ok");
    assert_eq!(server.n_accepted(), 2);
}

#[tokio::test]
async fn request_beyond_the_last_processed_one_is_unsent() {
    let error = refused_with(BEFORE_THE_FIRST).await;
    assert_eq!(error.kind(), HttpErrorKind::NotSent);
    assert!(error.is_not_sent());
}

#[tokio::test]
async fn request_that_the_server_may_have_processed_is_not_unsent() {
    let error = refused_with(THE_FIRST).await;
    assert_eq!(error.kind(), HttpErrorKind::Io);
    assert!(!error.is_not_sent());
}

/// Answers the first request of a connection with `frames`, and closes it.
pub(crate) async fn going_away(frames: &'static [u8]) -> RawServer {
    RawServer::start(async move |mut peer| {
        peer.write_bytes(SETTINGS).await;
        peer.until_headers().await;
        peer.write_bytes(frames).await;
    })
    .await
}

async fn refused_with(frames: &'static [u8]) -> HttpError {
    let server = going_away(frames).await;
    let endpoint = http2().endpoint(&server.instance()).expect("an address");
    fetch(&endpoint, get("/")).await.expect_err("no answer")
}

#[tokio::test]
async fn reset_request_is_unsent_only_when_the_server_refused_it() {
    for (reason, kind) in [
        (Reason::REFUSED_STREAM, HttpErrorKind::NotSent),
        (Reason::INTERNAL_ERROR, HttpErrorKind::Io),
        (Reason::CANCEL, HttpErrorKind::Io),
    ] {
        let server = Server::start(1, move |_, mut reply| {
            reply.send_reset(reason);
            async {}
        })
        .await;
        let endpoint = endpoint(&server);
        for _ in 0..3 {
            let error = fetch(&endpoint, get("/")).await.expect_err("reset");
            assert_eq!(error.kind(), kind, "{reason:?}");
        }
        assert_eq!(server.n_accepted(), 1);
    }
}

/// Each that is given up may have an answer on its way.
#[tokio::test]
async fn requests_that_are_given_up_break_no_other() {
    const N: usize = 1_200;
    let (n_seen, n_reset) = (watch::Sender::new(0), watch::Sender::new(0));
    let (seen, reset) = (n_seen.clone(), n_reset.clone());
    let server = RawServer::start(move |mut peer| {
        let (n_seen, n_reset) = (n_seen.clone(), n_reset.clone());
        async move {
            peer.write_bytes(SETTINGS).await;
            peer.preface().await;
            let mut streams = Vec::new();
            while let Some((kind, stream)) = peer.frame().await {
                match kind {
                    HEADERS => streams.push(stream),
                    RST_STREAM => n_reset.send_modify(|n| *n += 1),
                    _ => {}
                }
                n_seen.send_replace(streams.len());
                if *n_reset.borrow() == N {
                    let data = |stream: &[u8; 4]| [b"\0\0\x01\0\0", &stream[..], b"x"].concat();
                    let late: Vec<_> = streams.drain(1..).flat_map(|it| data(&it)).collect();
                    peer.write_bytes(&late).await;
                    // The status 200, and the end.
                    peer.write_bytes(&[b"\0\0\x01\x01\x05", &streams[0][..], b"\x88"].concat())
                        .await;
                }
            }
        }
    })
    .await;
    let endpoint = http2().max_streams(2 * N).endpoint(&server.instance()).expect("an address");
    let first = async { fetch(&endpoint, get("/")).await };
    let others = async {
        let given_up = join_all((0..N).map(|_| fetch(&endpoint, get("/"))));
        tokio::select! {
            _ = given_up => panic!("nothing is answered"),
            all = async { seen.subscribe().wait_for(|n| *n == N + 1).await.map(drop) } => all,
        }
    };
    let both = async { tokio::join!(first, others) };
    let (first, _) = timeout(Duration::from_secs(20), both).await.expect("in time");
    first.expect("answers");
    assert_eq!((*reset.borrow(), server.n_accepted()), (N, 1));
}

#[tokio::test]
async fn body_cut_short_is_an_error_that_the_user_sees() {
    // The last one means "no error", and hyper takes it for the end.
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let server = Server::start(100, move |_, mut reply| async move {
            let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
            stream.send_data(Bytes::from("half"), false).expect("a stream");
            sleep(Duration::from_millis(20)).await;
            stream.send_reset(reason);
        })
        .await;
        let response = send(&endpoint(&server), get("/")).await.expect("begins");
        let error = response.into_body().collect().await.map(drop).expect_err("cut short");
        assert_eq!(error.kind(), HttpErrorKind::Body, "{reason:?}");
        assert!(!error.is_not_sent());
    }
}

#[tokio::test]
async fn body_shorter_or_longer_than_announced_is_an_error() {
    for length in ["10", "2"] {
        let server = Server::start(100, move |_, mut reply| async move {
            let response = Response::builder().header("content-length", length).body(());
            let response = response.expect("a valid response");
            let mut stream = reply.send_response(response, false).expect("a stream");
            stream.send_data(Bytes::from("half"), true).ok();
        })
        .await;
        let endpoint = endpoint(&server);
        fetch(&endpoint, get("/")).await.expect_err("another length");
    }
}

#[tokio::test]
async fn connection_that_breaks_ends_every_body_with_an_error() {
    let server = Server::start(100, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        stream.send_data(Bytes::from("half"), false).expect("a stream");
        std::future::pending::<()>().await;
    })
    .await;
    let endpoint = endpoint(&server);
    let (one, two) = (send(&endpoint, get("/")).await, send(&endpoint, get("/")).await);
    drop(server);
    for response in [one, two] {
        let body = response.expect("begins").into_body();
        let error = body.collect().await.map(drop).expect_err("cut short");
        assert_eq!(error.kind(), HttpErrorKind::Body);
    }
}

#[tokio::test]
async fn peer_that_is_silent_after_a_ping_is_given_up() {
    let server = RawServer::start(async |mut peer| {
        peer.write_bytes(SETTINGS).await;
        peer.closed().await;
    })
    .await;
    let factory = http2()
        .keep_alive_interval(Duration::from_millis(100))
        .keep_alive_timeout(Duration::from_millis(100));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let outcome = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
    let error = outcome.expect("in time").expect_err("silent");
    assert_eq!(error.kind(), HttpErrorKind::Io);
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn idle_connection_that_the_server_closed_costs_no_request() {
    let server = Server::start(100, async |_, reply| answer(reply, "ok")).await;
    let endpoint = endpoint(&server);
    for n in 1..=20 {
        assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
        assert_eq!(server.n_accepted(), n);
        server.leave();
        sleep(Duration::from_millis(10)).await;
    }
}

/// nginx recycles a connection after 1 000 requests, and Envoy at its age.
#[tokio::test]
async fn requests_that_cross_a_goaway_eject_no_instance() {
    let leaving = async || {
        RawServer::start(async |mut peer| {
            peer.write_bytes(SETTINGS).await;
            peer.preface().await;
            // All that come in one burst.
            while timeout(Duration::from_secs(1), peer.frame()).await.is_ok() {}
            peer.write_bytes(BEFORE_THE_FIRST).await;
            peer.closed().await;
        })
        .await
    };
    let servers = [leaving().await, leaving().await];
    let instances = FixedInstancer::new(servers.iter().map(RawServer::instance));
    let endpointer = Endpointer::new(&instances, http2());
    let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
    let results = join_all((0..24).map(|_| client.clone().oneshot(get("/")))).await;
    for result in results {
        let error = result.expect_err("not taken");
        assert!(HttpError::find(&*error).is_some_and(HttpError::is_going_away), "{error:?}");
    }
    sleep(Duration::from_millis(50)).await;
    let endpoints = endpointer.report().endpoints;
    assert!(endpoints.iter().all(|it| it.state != EndpointState::Ejected), "{endpoints:?}");
}
