use std::{future::poll_fn, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Endpointer, FixedInstancer, RetryLayer, RetryPolicy, RoundRobin,
};

use super::{
    Sent, endpoint, endpoint_of, fetch, get, send,
    server::{OK, Server},
};
use crate::{HttpFactory, HttpProtocol};

#[tokio::test]
async fn connection_is_used_again_when_the_body_has_ended() {
    let server = Server::polite().await;
    let endpoint = endpoint(&server);
    for _ in 0..20 {
        assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    }
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn reader_that_stops_at_the_known_length_has_read_to_the_end() {
    let server = Server::polite().await;
    let endpoint = endpoint(&server);
    for _ in 0..5 {
        let mut body = send(&endpoint, get("/")).await.expect("answers").into_body();
        let frame = body.frame().await.expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), "ok");
        drop(body);
    }
    assert_eq!(server.n_accepted(), 1);
}

/// As a retry does with a response that it repeats.
#[tokio::test]
async fn short_body_that_is_dropped_unread_costs_no_connection() {
    let server = Server::start(async |mut peer| {
        for n in 0.. {
            if peer.request().await.is_none() {
                return;
            }
            match n % 2 {
                0 => peer.write("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy").await,
                _ => peer.write(OK).await,
            }
        }
    })
    .await;
    let factory = HttpFactory::<Sent>::new();
    let endpointer = Endpointer::new(&FixedInstancer::new([server.instance()]), factory);
    // The rest is read during the pause, which is nearly all of this time with this seed.
    let pause = Duration::from_millis(200);
    let policy = RetryPolicy::new().without_budget().backoff(pause, pause).with_seed(36);
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.protocol(HttpProtocol::new().repeat_unavailable())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer);
    for _ in 0..10 {
        let response = client.clone().oneshot(get("/")).await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.expect("whole");
    }
    let n = server.n_accepted();
    assert!(n <= 5, "{n}");
}

#[tokio::test]
async fn answer_without_body_gives_the_connection_back() {
    let server = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let endpoint = endpoint(&server);
    let first = send(&endpoint, get("/")).await.expect("answers");
    let second = send(&endpoint, get("/")).await.expect("answers");
    assert_eq!((first.status(), second.status()), (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT));
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn body_that_is_still_read_keeps_its_connection_to_itself() {
    let server = Server::polite().await;
    let endpoint = endpoint(&server);
    let first = send(&endpoint, get("/")).await.expect("answers");
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 2);
    drop(first);
}

#[tokio::test]
async fn connection_obtained_and_not_used_is_given_back() {
    let server = Server::polite().await;
    let endpoint = endpoint(&server);
    for _ in 0..5 {
        endpoint.clone().ready().await.expect("connects");
    }
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn connection_whose_caller_gave_up_is_kept_for_the_next() {
    let server = Server::polite().await;
    let endpoint = endpoint(&server);
    let mut impatient = endpoint.clone();
    let first = poll_fn(|cx| std::task::Poll::Ready(impatient.poll_ready(cx))).await;
    assert!(first.is_pending());
    drop(impatient);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn no_more_than_max_idle_connections_are_kept() {
    let server = Server::polite().await;
    let endpoint = endpoint_of(HttpFactory::new().max_idle(2), &server);
    let mut responses = Vec::new();
    for _ in 0..5 {
        responses.push(send(&endpoint, get("/")).await.expect("answers"));
    }
    for response in responses {
        response.into_body().collect().await.expect("whole");
    }
    open_connections_become(&server, 2).await;
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_time() {
    let server = Server::polite().await;
    let factory = HttpFactory::new().idle_timeout(Duration::from_millis(100));
    let endpoint = endpoint_of(factory, &server);
    fetch(&endpoint, get("/")).await.expect("answers");
    assert_eq!(server.n_open(), 1);
    open_connections_become(&server, 0).await;
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    open_connections_become(&server, 0).await;
}

#[tokio::test]
async fn answer_before_the_end_of_the_request_does_not_spoil_the_next() {
    let server = Server::start(async |mut peer| {
        while peer.head().await.is_some() {
            peer.write(OK).await;
            peer.closed().await;
        }
    })
    .await;
    let endpoint = endpoint(&server);
    // More than the sockets' buffers take, so that it cannot be sent before the answer.
    let large = Sent::from(vec![b'x'; 32 << 20]);
    let post = Request::post("http://arithmetic/").body(large).expect("a valid request");
    assert_eq!(fetch(&endpoint, post).await.expect("answers"), "ok");
    let next = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
    assert_eq!(next.expect("in time").expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 2);
}

#[tokio::test]
async fn server_sees_the_path_and_the_name_of_the_service() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let heads = Arc::clone(&seen);
    let server = Server::start(move |mut peer| {
        let heads = Arc::clone(&heads);
        async move {
            while let Some(head) = peer.request().await {
                *heads.lock().expect("alive") = head;
                peer.write(OK).await;
            }
        }
    })
    .await;
    fetch(&endpoint(&server), get("/a?b=c")).await.expect("answers");
    let head = seen.lock().expect("alive").clone();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: arithmetic\r\n"), "{head}");
}

async fn open_connections_become(server: &Server, n: usize) {
    let reached = async {
        while server.n_open() != n {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(5), reached).await.is_ok();
    assert!(in_time, "{} connections are open, not {n}", server.n_open());
}

/// As tower's p2c balancer does.
#[tokio::test]
async fn connection_that_a_ready_service_holds_grows_old_too() {
    let server = Server::polite().await;
    for (factory, is_new) in [
        (HttpFactory::new().idle_timeout(Duration::from_secs(1)), true),
        (HttpFactory::new().max_age(Duration::from_secs(1)), true),
        (HttpFactory::new(), false),
    ] {
        let endpoint = endpoint_of(factory, &server);
        fetch(&endpoint, get("/")).await.expect("answers");
        let mut held = endpoint.clone();
        held.ready().await.expect("an idle one");
        let n_before = server.n_accepted();
        sleep(Duration::from_millis(1_100)).await;
        let sent = held.ready().await.expect("another one").call(get("/")).await;
        drop(sent.expect("answers"));
        assert_eq!(server.n_accepted() > n_before, is_new);
    }
}

#[tokio::test]
async fn connection_that_is_given_back_unused_grows_no_younger() {
    let server = Server::polite().await;
    let endpoint =
        endpoint_of(HttpFactory::new().idle_timeout(Duration::from_millis(300)), &server);
    fetch(&endpoint, get("/")).await.expect("answers");
    for _ in 0..6 {
        sleep(Duration::from_millis(100)).await;
        endpoint.clone().ready().await.expect("a connection");
    }
    assert!(server.n_accepted() > 1);
}
