use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};
use tokio_rustls::TlsAcceptor;
use tower_sd_core::{ErrorKind, TlsConfig};

use super::{
    authority::{Authority, Files, Identity, certificate},
    server::{Hosts, Server, chain},
};
use crate::{
    DialError, DialErrorKind, Dialer, HttpClient, HttpClientErrorKind, HttpVersions, Target,
    TlsClient, TlsFailure,
};

const LONG: Duration = Duration::from_secs(30);

/// A server's configuration, which requires client certificates of `clients`.
fn server_config(identity: &Identity, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(clients.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().expect("roots"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.1.as_bytes()).expect("a key");
    let mut config =
        builder.with_single_cert(vec![certificate(&identity.0)], key).expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The client certificates that servers have seen.
type Seen = Arc<Mutex<Vec<CertificateDer<'static>>>>;

/// Answers over HTTP/1.1 and HTTP/2 by the version of the request.
async fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: Seen) {
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    seen.lock().expect("no panic").extend(certificates.first().cloned().map(|it| it.into_owned()));
    let answer = |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{:?}", request.version()))))
    };
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}

async fn start(config: Arc<ServerConfig>) -> (Server, Seen) {
    let seen = Seen::default();
    let recorded = Arc::clone(&seen);
    let server =
        Server::start(move |stream| serve(stream, Arc::clone(&config), Arc::clone(&recorded)));
    (server.await, seen)
}

fn trusting(authority: &Authority) -> TlsConfig {
    TlsConfig::new().with_root(authority.pem.as_str()).with_server_name("a.test")
}

async fn shake(server: &Server, config: TlsConfig) -> Result<(), DialError> {
    let tls = TlsClient::new(config).expect("usable");
    Dialer::new().dial(&server.target(), Some(&tls), &[]).await.map(drop)
}

fn http(server: &Server, tls: &TlsClient, versions: HttpVersions) -> HttpClient {
    let builder = HttpClient::builder(server.target()).tls(tls.clone()).versions(versions);
    builder.build().expect("a host")
}

fn get() -> Request<Bytes> {
    Request::get("/").body(Bytes::new()).expect("a path")
}

#[tokio::test]
async fn certificate_of_a_trusted_authority_is_accepted() {
    let authority = Authority::new("ours");
    let (server, _) = start(server_config(&authority.identity("a.test"), None)).await;
    shake(&server, trusting(&authority)).await.expect("trusted");
    // Without a name of its own the host is the name.
    let (server, _) = start(server_config(&authority.identity("127.0.0.1"), None)).await;
    let config = TlsConfig::new().with_root(authority.pem.as_str());
    shake(&server, config).await.expect("trusted");
    let anyone = TlsConfig::new().danger_accept_invalid_certificates();
    shake(&server, anyone.with_server_name("b.test")).await.expect("any");
}

#[tokio::test]
async fn refused_server_certificates_are_named_by_their_fault() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let rows = [
        (authority.identity("b.test"), "it is for another name"),
        (authority.expired("a.test"), "it has expired"),
        (stranger.identity("a.test"), "its authority is not trusted"),
    ];
    for (identity, words) in rows {
        let (server, _) = start(server_config(&identity, None)).await;
        let error = shake(&server, trusting(&authority)).await.expect_err("not accepted");
        assert_eq!(error.kind(), DialErrorKind::Tls);
        let text = chain(&error);
        assert!(text.contains(&format!("certificate is not accepted: {words}")), "{text}");
    }
}

#[tokio::test]
async fn server_without_tls_is_named() {
    let authority = Authority::new("ours");
    let answer = b"HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request\n";
    let server = Server::start(move |mut stream| async move {
        stream.write_all(answer).await.expect("open");
    });
    let error = shake(&server.await, trusting(&authority)).await.expect_err("no TLS");
    assert!(chain(&error).contains("has no TLS on this port"), "{}", chain(&error));
}

#[tokio::test]
async fn silent_handshake_loses_the_race() {
    let authority = Authority::new("ours");
    let silent = Server::start(|stream| async move {
        tokio::time::sleep(LONG).await;
        drop(stream);
    })
    .await;
    let (server, _) = start(server_config(&authority.identity("a.test"), None)).await;
    let tls = TlsClient::new(trusting(&authority)).expect("usable");
    let dialer = Dialer::new().connector(Hosts(vec![silent.address, server.address]));
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let target = Target::host("a.test", 1);
        dialer.dial(&target, Some(&tls), &[]).await.expect("the other one");
        times.push(start.elapsed());
    }
    assert!(times.iter().any(|time| *time <= Duration::from_millis(400)), "{times:?}");
}

#[tokio::test]
async fn http2_is_agreed_on_and_carries_many_requests() {
    let authority = Authority::new("ours");
    let (server, _) = start(server_config(&authority.identity("a.test"), None)).await;
    let tls = TlsClient::new(trusting(&authority)).expect("usable");
    let client = http(&server, &tls, HttpVersions::Http2OrHttp1);
    client.send(get(), LONG, 100).await.expect("answers");
    let answers = join_all((0..50).map(|_| client.send(get(), LONG, 100))).await;
    for answer in answers {
        let answer = answer.expect("answers");
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(answer.into_body(), "HTTP/2.0");
    }
    assert_eq!(server.n_connections(), 1);
    let client = http(&server, &tls, HttpVersions::Http1);
    assert_eq!(client.send(get(), LONG, 100).await.expect("answers").version(), Version::HTTP_11);
}

/// The server's refusal arrives after the client's half of the handshake (TLS 1.3).
#[tokio::test]
async fn refused_client_certificate_is_named_and_replaced_immediately() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let config = server_config(&authority.identity("a.test"), Some(&authority));
    let (server, seen) = start(config).await;
    let files = Files::new(&authority.expired("client"));
    let tls = TlsClient::new(files.identity(trusting(&authority))).expect("usable");
    let client = http(&server, &tls, HttpVersions::Http1);
    let rows = [
        (authority.expired("client"), "it has expired, or is not valid yet"),
        (stranger.identity("client"), "its authority is not among those that the server trusts"),
    ];
    for (identity, words) in rows {
        files.write(&identity);
        tls.suspect();
        let error = client.send(get(), LONG, 100).await.expect_err("refused");
        assert_eq!(error.kind(), HttpClientErrorKind::Tls, "{}", chain(&error));
        let expected = format!("the server refused the client certificate: {words}");
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert!(TlsFailure::find(&error).expect("found").is_client_refused());
    }
    let renewed = authority.identity("client");
    files.write(&renewed);
    client.send(get(), LONG, 100).await.expect("the failure had the files read again");
    assert_eq!(seen.lock().expect("no panic").last(), Some(&certificate(&renewed.0)));

    let none = TlsClient::new(trusting(&authority)).expect("usable");
    let client = http(&server, &none, HttpVersions::Http1);
    let error = client.send(get(), LONG, 100).await.expect_err("refused");
    assert!(error.to_string().ends_with("requires one, and none is configured"), "{error}");
}

#[tokio::test]
async fn half_rotated_files_leave_the_last_certificate_in_use() {
    let authority = Authority::new("ours");
    let config = server_config(&authority.identity("a.test"), Some(&authority));
    let (server, seen) = start(config).await;
    let (old, new) = (authority.identity("client"), authority.identity("client"));
    let files = Files::new(&old);
    let tls = TlsClient::new(files.identity(trusting(&authority))).expect("usable");
    for (identity, expected) in
        [(old.clone(), &old), ((new.0.clone(), old.1.clone()), &old), (new.clone(), &new)]
    {
        files.write(&identity);
        tls.suspect();
        let client = http(&server, &tls, HttpVersions::Http1);
        client.send(get(), LONG, 100).await.expect("answers");
        assert_eq!(seen.lock().expect("no panic").last(), Some(&certificate(&expected.0)));
    }
}

#[test]
fn unusable_settings_are_refused() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.identity("a.test"), authority.identity("a.test"));
    let rows = [
        (TlsConfig::new().with_identity(one.0.as_str(), other.1.as_str()), "not the certificate's"),
        (TlsConfig::new().with_server_name("a b"), "neither a DNS name"),
        (TlsConfig::new().with_root("-----BEGIN CERTIFICATE-----\n?"), "root: "),
        (TlsConfig::new().with_root("/no/such/file"), "root: cannot read"),
    ];
    for (config, words) in rows {
        let error = TlsClient::new(config).expect_err("unusable");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(words), "{error}");
    }
}
