use std::{future::pending, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::{Sent, endpoint, endpoint_of, fetch, get, send, server::Server};
use crate::HttpFactory;

const SLOW: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha";

/// Answers half, and the other half 100 ms later.
async fn slow_server() -> Server {
    Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write(SLOW).await;
            sleep(Duration::from_millis(100)).await;
            peer.write("lf").await;
        }
    })
    .await
}

#[tokio::test]
async fn idle_connections_and_their_tasks_end_with_the_endpoint() {
    let server = Server::polite().await;
    let before = Handle::current().metrics().num_alive_tasks();
    let factory = HttpFactory::new();
    let endpoint = endpoint_of(factory.clone(), &server);
    let (one, two) = (send(&endpoint, get("/")).await, send(&endpoint, get("/")).await);
    for response in [one, two] {
        response.expect("answers").into_body().collect().await.expect("whole");
    }
    assert_eq!(server.n_open(), 2);
    drop(endpoint);
    // Each connection has a task at the server, too, which ends with it.
    alive_tasks_become(before).await;
    assert_eq!(server.n_open(), 0);
}

#[tokio::test]
async fn body_is_read_to_its_end_after_everything_else_is_gone() {
    let server = slow_server().await;
    let before = Handle::current().metrics().num_alive_tasks();
    let endpoint = endpoint(&server);
    let response = send(&endpoint, get("/")).await.expect("begins");
    drop(endpoint);
    let body = response.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, "half");
    alive_tasks_become(before).await;
    assert_eq!(server.n_open(), 0);
}

#[tokio::test]
async fn long_body_dropped_early_closes_its_connection() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nha").await;
        peer.closed().await;
    })
    .await;
    let before = Handle::current().metrics().num_alive_tasks();
    let endpoint = endpoint(&server);
    let response = send(&endpoint, get("/")).await.expect("begins");
    assert_eq!(server.n_open(), 1);
    drop(response);
    alive_tasks_become(before).await;
    assert_eq!(server.n_open(), 0);
}

/// The rest of a short one is waited for a moment only.
#[tokio::test]
async fn short_body_dropped_early_closes_its_connection_if_it_stalls() {
    let server = Server::start(async |mut peer| {
        peer.request().await;
        peer.write(SLOW).await;
        peer.closed().await;
    })
    .await;
    let before = Handle::current().metrics().num_alive_tasks();
    let endpoint = endpoint(&server);
    drop(send(&endpoint, get("/")).await.expect("begins"));
    alive_tasks_become(before).await;
    assert_eq!(server.n_open(), 0);
}

#[tokio::test]
async fn request_given_up_with_a_stuck_body_closes_its_connection() {
    let server = Server::start(async |mut peer| {
        peer.head().await;
        pending::<()>().await;
    })
    .await;
    let endpoint = endpoint(&server);
    let before = Handle::current().metrics().num_alive_tasks();
    // More than the sockets' buffers take.
    let large = Sent::from(vec![b'x'; 32 << 20]);
    let post = Request::post("http://arithmetic/").body(large).expect("a valid request");
    let stuck = timeout(Duration::from_millis(100), send(&endpoint, post)).await;
    assert!(stuck.is_err());
    // One at the server, which waits without end.
    alive_tasks_become(before + 1).await;
}

#[tokio::test]
async fn close_waits_for_every_connection_whatever_it_carries() {
    let server = slow_server().await;
    let before = Handle::current().metrics().num_alive_tasks();
    let factory = HttpFactory::<Sent>::new();
    let endpoint = endpoint_of(factory.clone(), &server);
    fetch(&endpoint, get("/")).await.expect("answers");
    let response = send(&endpoint, get("/")).await.expect("begins");
    timeout(Duration::from_secs(5), factory.close()).await.expect("ends");
    response.into_body().collect().await.map(drop).expect_err("closed");
    send(&endpoint, get("/")).await.map(drop).expect_err("closed");
    alive_tasks_become(before).await;
}

pub(super) async fn alive_tasks_become(n: usize) {
    let metrics = Handle::current().metrics();
    let reached = async {
        while metrics.num_alive_tasks() != n {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(5), reached).await.is_ok();
    assert!(in_time, "{} tasks are alive, not {n}", metrics.num_alive_tasks());
}
