//! A server with TLS, whose certificate rotates while it serves.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_sd_core::{AddressPolicy, TlsConfig, async_trait};
use tower_sd_lifecycle::{Lifecycle, Listener, serve_axum};
use tower_sd_net::{Connector, DialErrorKind, Dialer, Io, Target, TlsClient};

/// An authority and its PEM text.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signs").pem();
    (Issuer::new(params, key), pem)
}

/// Writes a new certificate of `issuer`, with its key, into `folder`.
fn rotate(folder: &Path, issuer: &Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, issuer).expect("signs");
    fs::write(folder.join("cert.pem"), certificate.pem()).expect("a folder of ours");
    fs::write(folder.join("key.pem"), key.serialize_pem()).expect("a folder of ours");
}

/// A listener, the authority of its certificate, and the folder of that.
async fn listening() -> (Listener, String, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (issuer, pem) = authority();
    rotate(folder.path(), &issuer);
    (listening_with(folder.path()).await, pem, folder)
}

/// A listener with the certificate in `folder`.
async fn listening_with(folder: &Path) -> Listener {
    let [certificate, key] = ["cert.pem", "key.pem"].map(|file| folder.join(file));
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    listener.tls(TlsConfig::new().with_identity(certificate, key)).expect("they fit")
}

/// The response of a new connection that trusts `authority`.
async fn request(port: u16, authority: &str) -> Result<String, String> {
    let tls = TlsClient::new(TlsConfig::new().with_root(authority)).expect("well formed");
    let dialer = Dialer::new().addresses(AddressPolicy::any());
    let dialled = dialer.dial(&Target::host("localhost", port), Some(&tls), &[b"http/1.1"]).await;
    let mut io = dialled.map_err(|error| format!("{error:?}"))?.io;
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("open");
    let mut response = String::new();
    let read = timeout(BOUND, io.read_to_string(&mut response)).await.expect("it responds");
    read.map(|_| response).map_err(|error| error.to_string())
}

#[tokio::test]
async fn new_connections_get_the_rotated_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let ((old, old_pem), (new, new_pem)) = (authority(), authority());
    rotate(folder.path(), &old);
    let listener = listening_with(folder.path()).await;
    let port = listener.local_addr().expect("bound").port();
    let router = Router::new().route(
        "/",
        get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
    );
    let stop = CancellationToken::new();
    let lifecycle = Lifecycle::new().ignore_signals().shutdown_on(stop.clone());
    let mut life = JoinSet::new();
    life.spawn(lifecycle.run(listener, serve_axum(router)));

    // One that never begins its handshake delays no other, nor the end.
    let _silent = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let response = request(port, &old_pem).await.expect("the old authority's");
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("127.0.0.1:"), "{response}");
    request(port, &new_pem).await.expect_err("not the new authority's yet");

    rotate(folder.path(), &new);
    sleep(Duration::from_millis(1100)).await;
    let response = request(port, &new_pem).await.expect("the new authority's");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    request(port, &old_pem).await.expect_err("not the old authority's any more");

    stop.cancel();
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends").expect("it runs");
    let report = ended.expect("no panic").expect("no failure");
    assert!(report.is_clean(), "{report}");
}

/// A server of HTTP/1.1 alone.
#[tokio::test]
async fn protocols_of_a_listener_can_be_set() {
    let (listener, pem, _folder) = listening().await;
    let mut listener = listener.alpn(["http/1.1"]);
    let target = Target::host("localhost", listener.local_addr().expect("bound").port());
    let tls = TlsClient::new(TlsConfig::new().with_root(pem)).expect("well formed");
    let dialer = Dialer::new().addresses(AddressPolicy::any());
    let serve = async {
        let (mut connection, _peer) = listener.accept().await;
        connection.read(&mut [0]).await
    };
    let dial = async {
        let dialled = dialer.dial(&target, Some(&tls), &[b"h2", b"http/1.1"]).await;
        dialled.expect("it listens").alpn
    };
    let (served, alpn) = tokio::join!(serve, dial);
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]), "{served:?}");
}

/// A server that waits for its first bytes, as that of gRPC does, finds their end.
#[tokio::test]
async fn peer_in_its_handshake_does_not_delay_the_end() {
    let (listener, _pem, _folder) = listening().await;
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let lifecycle = Lifecycle::new().ignore_signals().shutdown_on(stop.clone());
    let mut life = JoinSet::new();
    life.spawn(lifecycle.run(listener, |mut listener, _drain| async move {
        let (mut connection, _peer) = listener.accept().await;
        let read = connection.read(&mut [0]).await?;
        assert_eq!(read, 0, "nothing is sent");
        // As hyper ends a connection.
        connection.flush().await?;
        connection.shutdown().await
    }));
    let _silent = TcpStream::connect(address).await.expect("it listens");
    sleep(Duration::from_millis(100)).await;
    stop.cancel();
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends").expect("it runs");
    let report = ended.expect("no panic").expect("the handshake has not timed out");
    assert!(report.is_clean(), "{report}");
}

/// A handshake that went on would let a request in that is never served.
#[tokio::test]
async fn handshake_after_the_end_of_a_connection_fails() {
    let (mut listener, pem, _folder) = listening().await;
    let port = listener.local_addr().expect("bound").port();
    let tls = TlsClient::new(TlsConfig::new().with_root(pem)).expect("well formed");
    let dialer = Dialer::new().addresses(AddressPolicy::any()).connector(Late);
    let target = Target::host("localhost", port);
    let dial = dialer.dial(&target, Some(&tls), &[b"http/1.1"]);
    let serve = async {
        let (mut connection, _peer) = listener.accept().await;
        connection.shutdown().await
    };
    let (dialled, served) = tokio::join!(dial, serve);
    served.expect("a handshake is given up");
    assert_eq!(dialled.map(drop).expect_err("given up").kind(), DialErrorKind::Tls);
}

/// Sends its first bytes only when the server has ended the connection.
#[derive(Debug)]
struct Late;

#[async_trait]
impl Connector for Late {
    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        let stream = TcpStream::connect(address).await?;
        sleep(Duration::from_millis(100)).await;
        Ok(Io::Tcp(stream))
    }
}

#[tokio::test]
async fn server_without_a_certificate_is_refused() {
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let error = listener.tls(TlsConfig::new()).expect_err("no identity");
    assert!(error.to_string().contains("a server needs a certificate"), "{error}");
}

const BOUND: Duration = Duration::from_secs(10);
