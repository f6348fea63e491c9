use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tower::ServiceExt;

use super::*;
use crate::{HttpErrorKind, HttpFactory, pool::Connection, tests::server::Server};

/// An open connection whose other half, the task that writes, is gone: what is handed to it is
/// never written.
async fn unwritable(endpoint: &HttpEndpoint<Full<Bytes>>) -> Connection<Full<Bytes>> {
    let mut endpoint = endpoint.clone();
    endpoint.ready().await.expect("connects");
    let unused = endpoint.checkout.take().expect("ready");
    let mut connection = unused.take().expect("present");
    let (io, _) = tokio::io::duplex(64);
    let io = hyper_util::rt::TokioIo::new(io);
    let handshake = hyper::client::conn::http1::handshake(io).await;
    let (sender, driver) = handshake.expect("no bytes are needed");
    drop(driver);
    let Connection::Http1(exclusive) = &mut connection else {
        panic!("HTTP/1.1 is the default");
    };
    exclusive.sender = sender;
    connection
}

fn request() -> Request<Full<Bytes>> {
    Request::post("/").body(Full::default()).expect("a valid request")
}

#[tokio::test]
async fn unwritten_request_goes_to_another_connection_first() {
    let server = Server::polite().await;
    let factory = HttpFactory::new().max_http1_connections(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let mut connection = unwritable(&endpoint).await;
    if let Connection::Http1(exclusive) = &mut connection {
        exclusive.reused = true;
    }
    let mut next = endpoint.clone();
    assert!(next.ready().now_or_never().is_none(), "it waits for the place");
    let pool = endpoint.checkout.pool();
    let sent = exchange::begin(connection.into_unused(), request(), pool, None);
    let exchanged = timeout(Duration::from_secs(5), sent).await;
    let response = exchanged.expect("has a place").expect("answers");
    let body = response.into_body().collect().await.expect("whole");
    assert_eq!(body.to_bytes(), "ok");
    assert_eq!(server.n_accepted(), 2);
}

/// Else a server that accepts and closes would be tried without end.
#[tokio::test]
async fn request_that_a_new_connection_refused_is_unsent() {
    let server = Server::polite().await;
    let endpoint = HttpFactory::new().endpoint(&server.instance()).expect("an address");
    let connection = unwritable(&endpoint).await;
    let pool = endpoint.checkout.pool();
    let sent = exchange::begin(connection.into_unused(), request(), pool, None);
    let error = sent.await.expect_err("closed");
    assert_eq!(error.kind(), HttpErrorKind::NotSent);
    assert!(error.is_not_sent());
    assert_eq!(server.n_accepted(), 1);
}
