//! A server that refuses the client's certificate in the life of a connection.

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    crypto::cipher::{OutboundChunks, OutboundPlainMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot::{Receiver, channel},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Endpointer, FixedInstancer, Instance, RetryError, RetryLayer, RetryPolicy,
};

use super::{factory, server::Authority};
use crate::{
    HttpError, HttpErrorKind, HttpProtocol,
    tests::{Sent, get, send, server::OK},
};

/// The alert `certificate_expired`, fatal.
const EXPIRED: [u8; 2] = [2, 45];
const PREFACE: usize = 24;
/// SETTINGS, and the acknowledgement of the client's.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
/// HEADERS of stream 3, which end it: `:status: 204`.
const ANSWER: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x03\x89";
const HEADERS: u8 = 1;

/// Reads the head of a request.
async fn request(stream: &mut TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
}

/// Ends the connection with an alert: rustls sends none but its own.
async fn refuse(stream: TlsStream<TcpStream>) {
    let (mut io, connection) = stream.into_inner();
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.tls13());
    let (number, keys) = connection.dangerous_extract_secrets().expect("allowed").tx;
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = keys
    else {
        panic!("an unknown cipher");
    };
    let alert = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(&EXPIRED),
    };
    let mut encrypter = suite.expect("TLS 1.3").aead_alg.encrypter(key, iv);
    let record = encrypter.encrypt(alert, number).expect("short").encode();
    io.write_all(&record).await.expect("it is open");
    // Until the client has read it.
    drop(io.read(&mut [0]).await);
}

/// Reads frames of HTTP/2 until the head of a request.
async fn until_headers(stream: &mut TlsStream<TcpStream>) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("short")];
        stream.read_exact(&mut payload).await.expect("a whole frame");
        if head[3] == HEADERS {
            return;
        }
    }
}

/// Answers the second of two requests with 204, and once that is `read`, both with an alert.
async fn answer_the_second(mut stream: TlsStream<TcpStream>, read: Receiver<()>) {
    stream.read_exact(&mut [0; PREFACE]).await.expect("a preface");
    stream.write_all(SETTINGS).await.expect("it is open");
    stream.flush().await.expect("it is open");
    until_headers(&mut stream).await;
    until_headers(&mut stream).await;
    stream.write_all(ANSWER).await.expect("it is open");
    stream.flush().await.expect("it is open");
    read.await.expect("it is read");
    refuse(stream).await;
}

async fn listen() -> (TcpListener, Instance) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    (listener, Instance::new("127.0.0.1", port))
}

fn acceptor(authority: &Authority, protocol: &str) -> TlsAcceptor {
    let mut config = authority.issue("arithmetic").serves(None);
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![protocol.into()];
    TlsAcceptor::from(Arc::new(config))
}

/// Each connection answers so many requests, and the next with an alert.
async fn start(authority: &Authority, n_answered: u64, tasks: &mut JoinSet<()>) -> Instance {
    let (acceptor, (listener, instance)) = (acceptor(authority, "http/1.1"), listen().await);
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = acceptor.accept(stream).await.expect("trusted");
            for _ in 0..n_answered {
                request(&mut stream).await;
                stream.write_all(OK.as_bytes()).await.expect("it is open");
                stream.flush().await.expect("it is open");
            }
            request(&mut stream).await;
            refuse(stream).await;
        }
    });
    instance
}

/// In TLS 1.3 an alert in the place of the first response proves that no request was read. Later
/// the request may have been: it is not sent again.
#[tokio::test]
async fn alert_on_a_used_connection_does_not_repeat_a_post() {
    for (n_answered, kind, n_attempts) in
        [(0, HttpErrorKind::NotSent, 2), (1, HttpErrorKind::Io, 1), (2, HttpErrorKind::Io, 1)]
    {
        let (authority, mut tasks) = (Authority::new(), JoinSet::new());
        let instance = start(&authority, n_answered, &mut tasks).await;
        let endpointer =
            Endpointer::new(&FixedInstancer::new([instance]), factory(authority.trusted()));
        let policy = RetryPolicy::new().max_attempts(2).protocol(HttpProtocol::new());
        let balance = BalanceLayer::default().layer(endpointer.clone());
        let mut client = RetryLayer::new(policy).layer(balance);
        let mut send = async || {
            let post = Request::builder().method(Method::POST).uri("http://arithmetic/");
            let post = post.body(Sent::default()).expect("a valid request");
            client.ready().await?.call(post).await
        };
        for _ in 0..n_answered {
            let answer = send().await.expect("answers");
            answer.into_body().collect().await.expect("whole");
        }
        let error = send().await.map(drop).expect_err("refused");
        let retry: &RetryError = error.downcast_ref().expect("of a retry");
        let found = HttpError::find(&*error).expect("ours").kind();
        assert_eq!((found, retry.attempts().len()), (kind, n_attempts), "{n_answered}");
        let outcomes = endpointer.report().endpoints[0].outcomes;
        assert_eq!(outcomes.success, n_answered);
    }
}

/// In HTTP/2 the server has answered the connection before it gets a request, and others beside it.
#[tokio::test]
async fn alert_on_a_shared_connection_does_not_repeat_a_post() {
    let (authority, mut tasks) = (Authority::new(), JoinSet::new());
    let (acceptor, (listener, instance)) = (acceptor(&authority, "h2"), listen().await);
    let (was_read, read) = channel();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("one comes");
        answer_the_second(acceptor.accept(stream).await.expect("trusted"), read).await;
    });
    let endpoint = factory(authority.trusted()).endpoint(&instance).expect("an address");
    let mut post = get("/");
    *post.method_mut() = Method::POST;
    let mut first = endpoint.clone();
    let posted = first.ready().await.expect("connects").call(post);
    let second = async {
        let answer = send(&endpoint, get("/")).await.expect("answers");
        assert_eq!(answer.status(), 204);
        was_read.send(()).expect("it waits");
    };
    let (posted, ()) = tokio::join!(posted, second);
    let error = posted.map(drop).expect_err("refused");
    assert_eq!((error.kind(), error.is_not_sent()), (HttpErrorKind::Io, false), "{error:?}");
}
