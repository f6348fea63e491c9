use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::server::{BlackHole, Server, chain, refusing};
use crate::{Dialer, HttpClient, HttpClientError, HttpClientErrorKind as Kind, Target};

const LONG: Duration = Duration::from_secs(30);

/// Answers with the path and the `Host` header.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers().get("host").map_or(&b""[..], |host| host.as_bytes());
    let text = format!("{} {}", request.uri(), String::from_utf8_lossy(host));
    Ok(Response::new(Full::from(text)))
}

async fn serve(stream: TcpStream) {
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo));
    // The client closes it.
    drop(serving.await);
}

fn client(target: Target) -> HttpClient {
    HttpClient::builder(target).build().expect("a host")
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).expect("a path")
}

/// Reads a request, and answers with these bytes before it closes.
async fn scripted(answer: &'static [u8]) -> Server {
    Server::start(move |mut stream| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.expect("a request");
        stream.write_all(answer).await.expect("open");
    })
    .await
}

async fn failure(server: &Server, max_body: usize) -> HttpClientError {
    let client = client(server.target());
    client.send(get("/"), LONG, max_body).await.expect_err("no complete response")
}

#[tokio::test]
async fn requests_share_a_connection_and_name_the_host() {
    let server = Server::start(serve).await;
    let client = client(server.target());
    for _ in 0..3 {
        let response = client.send(get("/v1/a?b=c"), LONG, 100).await.expect("answers");
        let expected = format!("/v1/a?b=c {}", server.address);
        assert_eq!(response.into_body(), expected);
    }
    assert_eq!(server.n_connections(), 1);
    client.close().await;
}

#[tokio::test]
async fn body_above_the_bound_is_an_error() {
    let announced = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    let counted = scripted(b"HTTP/1.1 200 OK\r\n\r\n0123456789ABCDEF").await;
    for server in [announced, counted] {
        let error = failure(&server, 15).await;
        assert_eq!(error.kind(), Kind::TooLong);
        let address = server.address;
        let expected = format!("response of {address} longer than the bound: 15 bytes");
        assert_eq!(error.to_string(), expected);
    }
    let whole = scripted(b"HTTP/1.1 200 OK\r\n\r\n0123456789ABCDE").await;
    let response = client(whole.target()).send(get("/"), LONG, 15).await.expect("not above");
    assert_eq!(response.into_body().len(), 15);
}

#[tokio::test]
async fn failures_have_their_kind_and_name_the_server() {
    let closed = scripted(b"").await;
    let cut = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    for (server, kind) in [(closed, Kind::Closed), (cut, Kind::Body)] {
        let error = failure(&server, 100).await;
        assert_eq!(error.kind(), kind, "{}", chain(&error));
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
    let dead = refusing();
    let target = Target::host(dead.ip().to_string(), dead.port());
    let error = client(target).send(get("/"), LONG, 1).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Connect);
    let text = chain(&error);
    assert!(text.starts_with(&format!("cannot connect to {dead}")), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
    assert_eq!(text.matches(&dead.to_string()).count(), 1, "{text}");
}

#[tokio::test]
async fn timeout_bounds_connection_response_and_body() {
    let timeout = Duration::from_millis(200);
    let silent = Server::start(|stream| async move {
        sleep(LONG).await;
        drop(stream);
    })
    .await;
    let stalled = Server::start(|mut stream| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").await.expect("open");
        sleep(LONG).await;
    })
    .await;
    let hole = BlackHole::new().await;
    let hole = Target::host(hole.address.ip().to_string(), hole.address.port());
    for target in [silent.target(), stalled.target(), hole] {
        let error = client(target).send(get("/"), timeout, 100).await.expect_err("silent");
        assert_eq!(error.kind(), Kind::Timeout, "{}", chain(&error));
        assert!(error.to_string().ends_with("in time: 200ms"), "{error}");
    }
}

#[tokio::test]
async fn connect_timeout_is_a_failed_connection() {
    let hole = BlackHole::new().await;
    let dialer = Dialer::new().connect_timeout(Duration::from_millis(100));
    let target = Target::host(hole.address.ip().to_string(), hole.address.port());
    let client = HttpClient::builder(target).dialer(dialer).build().expect("a host");
    let error = client.send(get("/"), LONG, 100).await.expect_err("silent");
    assert_eq!(error.kind(), Kind::Connect, "{}", chain(&error));
}

#[tokio::test]
async fn dropped_request_closes_its_connection() {
    let (closed, mut is_closed) = tokio::sync::mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let closed = closed.clone();
        async move {
            let mut bytes = Vec::new();
            drop(stream.read_to_end(&mut bytes).await);
            closed.send(bytes.len()).await.expect("the test waits");
        }
    })
    .await;
    let client = client(server.target());
    client.send(get("/"), Duration::from_millis(200), 100).await.expect_err("silent");
    let n_bytes = tokio::time::timeout(LONG, is_closed.recv()).await.expect("closed in time");
    assert!(n_bytes.is_some_and(|n| n > 0));
}

#[cfg(unix)]
#[tokio::test]
async fn requests_reach_a_unix_socket() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("binds");
    let serving = async {
        let (stream, _) = listener.accept().await.expect("accepts");
        let io = TokioIo::new(stream);
        drop(http1::Builder::new().serve_connection(io, service_fn(echo)).await);
    };
    let client = client(Target::unix(&path));
    let asking = async {
        let response = client.send(get("/a"), LONG, 100).await.expect("answers");
        assert_eq!(response.into_body(), "/a localhost");
        client.close().await;
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn streamed_body_is_read_as_it_arrives() {
    let server = Server::start(|mut stream| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.expect("a request");
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
        stream.write_all(head).await.expect("open");
        // Closed by the client.
        drop(stream.read(&mut request).await);
    })
    .await;
    let client = client(server.target());
    let response = client.stream(get("/"), LONG).await.expect("a head");
    let mut body = response.into_body();
    let first = body.chunk().await.expect("open").expect("two bytes");
    assert_eq!(first, "ab");
    let waiting = tokio::time::timeout(Duration::from_millis(50), body.chunk()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    client.close().await;
    let error = body.chunk().await.expect_err("closed amid the body");
    assert_eq!(error.kind(), Kind::Body);
}
