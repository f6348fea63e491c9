use rustls::{HandshakeKind, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Duration, advance, pause, resume},
};
use tower_sd_core::{ErrorKind, TlsConfig};

use super::authority::{Authority, Files, certificate};
use crate::{DialErrorKind, Dialer, Target, TlsClient, TlsServer};

/// Connects once, and returns the client's certificate as the server has seen it, and the kind of
/// the handshake.
async fn greeted(
    server: &TlsServer,
    client: &TlsClient,
) -> Result<Option<(CertificateDer<'static>, HandshakeKind)>, DialErrorKind> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serving = async {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut stream = server.accept(stream, &[b"h2"]).await.ok()?;
        stream.write_all(b"hello").await.ok()?;
        stream.shutdown().await.ok()?;
        let session = stream.get_ref().1;
        let first = session.peer_certificates()?.first()?.clone().into_owned();
        Some((first, session.handshake_kind()?))
    };
    let target = Target::host(address.ip().to_string(), address.port());
    let dialer = Dialer::new();
    let connecting = async {
        let mut connection =
            dialer.dial(&target, Some(client), &[b"h2"]).await.map_err(|error| error.kind())?;
        assert_eq!(connection.alpn.as_deref(), Some(&b"h2"[..]));
        let mut text = String::new();
        connection.io.read_to_string(&mut text).await.map_err(|_refused| DialErrorKind::Tls)?;
        assert_eq!(text, "hello");
        Ok(())
    };
    let (seen, connected) = tokio::join!(serving, connecting);
    connected.map(|()| seen)
}

fn trusting(authority: &Authority) -> TlsConfig {
    TlsConfig::new().with_root(authority.pem.as_str()).with_server_name("a.test")
}

fn client(config: TlsConfig) -> TlsClient {
    TlsClient::new(config).expect("usable")
}

#[tokio::test]
async fn rotated_server_certificate_is_used_for_later_connections() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::new(&old.identity("a.test"));
    let server = TlsServer::new(files.identity(TlsConfig::new())).expect("usable");
    greeted(&server, &client(trusting(&old))).await.expect("trusted");
    files.write(&new.identity("a.test"));
    pause();
    advance(Duration::from_secs(1)).await;
    resume();
    greeted(&server, &client(trusting(&new))).await.expect("rotated");
    let error = greeted(&server, &client(trusting(&old))).await.expect_err("not any more");
    assert_eq!(error, DialErrorKind::Tls);
}

#[tokio::test]
async fn authorities_make_client_certificates_required() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let (chain, key) = authority.identity("a.test");
    let config = TlsConfig::new().with_root(authority.pem.as_str());
    let server = TlsServer::new(config.with_identity(chain.as_str(), key.as_str()));
    let server = server.expect("usable");
    let (chain, key) = authority.identity("client");
    let known = client(trusting(&authority).with_identity(chain.as_str(), key.as_str()));
    // A resumed session would check no certificate.
    for _ in 0..2 {
        let seen = greeted(&server, &known).await.expect("known");
        assert_eq!(seen, Some((certificate(&chain), HandshakeKind::Full)));
    }
    greeted(&server, &client(trusting(&authority))).await.expect_err("none presented");
    let (chain, key) = stranger.identity("client");
    let unknown = client(trusting(&authority).with_identity(chain.as_str(), key.as_str()));
    greeted(&server, &unknown).await.expect_err("of another authority");
}

#[test]
fn server_without_a_certificate_is_refused() {
    let error = TlsServer::new(TlsConfig::new()).expect_err("no identity");
    assert_eq!(error.kind(), ErrorKind::Config);
}
