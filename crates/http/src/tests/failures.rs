use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;
use tower_sd_balance::FixedInstancer;
use tower_sd_testkit::loopback::BlackHole;

use super::{
    Sent, dead, endpoint, fetch, get, send,
    server::{OK, Server},
};
use crate::{Client, HttpError, HttpErrorKind, HttpFactory};

#[tokio::test]
async fn refused_connect_is_seen_before_the_request_is_given() {
    let instance = dead();
    let endpoint = HttpFactory::<Sent>::new().endpoint(&instance).expect("an address");
    let error = endpoint.clone().ready().await.map(drop).expect_err("the port is closed");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(error.is_not_sent());
    assert_eq!(error.to_string(), format!("no connection to {instance}"));
    let first: &(dyn Error + 'static) = &error;
    let chain = std::iter::successors(Some(first), |error| (*error).source());
    let cause = chain.last().expect("at least itself").to_string();
    assert!(cause.contains("refused"), "{cause}");
}

#[tokio::test]
async fn host_that_never_answers_a_connect_is_given_up_in_time() {
    let hole = BlackHole::open().await.expect("loopback");
    let black_hole = HttpFactory::<Sent>::new()
        .connect_timeout(Duration::from_millis(200))
        .endpoint(&hole.instance())
        .expect("an address");
    let started = Instant::now();
    let error = black_hole.clone().ready().await.map(drop).expect_err("no answer");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn body_cut_short_is_an_error_that_the_user_sees() {
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for answer in [length, chunked] {
        let server = Server::start(async move |mut peer| {
            peer.request().await;
            peer.write(answer).await;
        })
        .await;
        let response = send(&endpoint(&server), get("/")).await.expect("begins");
        let error = response.into_body().collect().await.map(drop).expect_err("cut short");
        assert_eq!(error.kind(), HttpErrorKind::Body);
        assert!(!error.is_not_sent());
    }
}

#[tokio::test]
async fn server_that_accepts_and_closes_is_an_error_and_no_loop() {
    let server = Server::start(async |peer| drop(peer)).await;
    let endpoint = endpoint(&server);
    for n in 1..=20 {
        let outcome = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
        outcome.expect("an outcome").expect_err("no answer");
        assert_eq!(server.n_accepted(), n);
    }
}

#[tokio::test]
async fn server_that_dies_before_its_answer_is_an_io_error() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
    })
    .await;
    let error = fetch(&endpoint(&server), get("/")).await.expect_err("no answer");
    assert_eq!(error.kind(), HttpErrorKind::Io);
    assert!(!error.is_not_sent());
}

#[tokio::test]
async fn answer_that_is_no_http_is_an_error_of_the_exchange() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
        peer.write("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    let error = fetch(&endpoint(&server), get("/")).await.expect_err("no answer");
    assert_eq!(error.kind(), HttpErrorKind::Io);
}

#[tokio::test]
async fn idle_connection_that_the_server_closed_costs_no_request() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
        peer.write(OK).await;
    })
    .await;
    let endpoint = endpoint(&server);
    for n in 1..=20 {
        assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
        assert_eq!(server.n_accepted(), n);
        // A close that is on its way cannot be seen; this one has arrived.
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn connection_that_the_server_means_to_close_is_not_used_again() {
    let server = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let endpoint = endpoint(&server);
    for n in 1..=20 {
        assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
        assert_eq!(server.n_accepted(), n);
    }
}

#[tokio::test]
async fn errors_are_found_behind_those_that_wrap_them() {
    #[derive(Debug)]
    struct Wrapped(HttpError);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let address = Arc::from("a:1");
    let wrapped = Wrapped(HttpError::new(HttpErrorKind::NotSent, &address, "closed"));
    assert!(HttpError::find(&wrapped).is_some_and(HttpError::is_not_sent));
    assert!(HttpError::find(&std::fmt::Error).is_none());
}

#[tokio::test]
async fn request_dropped_before_its_answer_closes_the_connection() {
    let closed = Arc::new(AtomicUsize::new(0));
    let n_closed = Arc::clone(&closed);
    let server = Server::start(move |mut peer| {
        let n_closed = Arc::clone(&n_closed);
        async move {
            peer.request().await;
            peer.closed().await;
            n_closed.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let endpoint = endpoint(&server);
    let unanswered = timeout(Duration::from_millis(50), fetch(&endpoint, get("/"))).await;
    assert!(unanswered.is_err());
    let seen = async {
        while closed.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(5), seen).await.is_ok());
}

/// It counts as the faster of the others: two thirds at most, of requests one after the other.
#[tokio::test]
async fn instance_that_refuses_fast_gets_not_nearly_all() {
    let works = async || {
        Server::start(async |mut peer| {
            while peer.request().await.is_some() {
                sleep(Duration::from_millis(20)).await;
                peer.write(OK).await;
            }
        })
        .await
    };
    for (status, at_most) in [(429, 20), (404, 105)] {
        let refuses = Server::start(move |mut peer| async move {
            while peer.request().await.is_some() {
                let head = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
                peer.write(&head).await;
            }
        });
        let servers = [refuses.await, works().await, works().await];
        let instances = FixedInstancer::new(servers.iter().map(Server::instance));
        let client: Client = Client::new(instances);
        client.wait_until_ready(Duration::from_secs(5)).await.expect("ready");
        let mut n_refused = 0;
        for _ in 0..120 {
            let request = Request::get("http://orders/a").body(String::new()).expect("a request");
            let response = client.request(request).await.expect("answered");
            n_refused += usize::from(response.status() == status);
            response.into_body().collect().await.expect("whole");
        }
        assert!(n_refused <= at_most, "{status}: {n_refused}");
    }
}
