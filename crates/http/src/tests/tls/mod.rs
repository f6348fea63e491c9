//! TLS over real sockets, with certificates made for the test.

mod alerts;
mod server;

use std::{error::Error, sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::Request;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use tower_sd_balance::Instance;

use super::{Sent, fetch, get, server::Server as PlainServer};
use crate::{HttpErrorKind, HttpFactory, HttpVersion, TlsClient, TlsConfig};
use server::{Authority, Server};

const BOTH: &[&str] = &["h2", "http/1.1"];
const HTTP_1: &[&str] = &["http/1.1"];

fn factory(tls: TlsConfig) -> HttpFactory<Sent> {
    HttpFactory::new().tls(TlsClient::new(tls).expect("certificates"))
}

/// What the server saw of the request.
async fn outcome(factory: &HttpFactory<Sent>, server: &Server) -> Result<String, String> {
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let fetched = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
    match fetched.expect("in time") {
        Ok(body) => Ok(String::from_utf8(body.to_vec()).expect("a sentence")),
        Err(error) => {
            assert!(error.is_not_sent(), "{error:?}");
            Err(sentence(&error))
        }
    }
}

/// The error with all its causes.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    chain.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn certificate_for_the_service_is_accepted_at_any_address() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("arithmetic"), BOTH, None).await;
    let seen = outcome(&factory(authority.trusted()), &server).await;
    assert_eq!(seen.expect("trusted"), "HTTP/2.0 https://arithmetic/");
}

#[tokio::test]
async fn certificate_for_another_name_fails_the_connect_with_a_reason() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("geometry"), BOTH, None).await;
    let endpoint = factory(authority.trusted()).endpoint(&server.instance()).expect("an address");
    let error = endpoint.clone().ready().await.map(drop).expect_err("another name");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
    let sentence = sentence(&error);
    assert!(sentence.contains("not valid for name \"arithmetic\""), "{sentence}");
    assert!(sentence.contains("geometry"), "{sentence}");
}

#[tokio::test]
async fn certificate_of_another_authority_fails_the_connect() {
    let server = Server::start(&Authority::new().issue("arithmetic"), BOTH, None).await;
    let sentence =
        outcome(&factory(Authority::new().trusted()), &server).await.expect_err("a stranger");
    assert!(sentence.contains("invalid peer certificate"), "{sentence}");
}

#[tokio::test]
async fn server_chooses_the_protocol_where_ours_is_auto() {
    let authority = Authority::new();
    let identity = authority.issue("arithmetic");
    let names: [(&[&str], &str); 3] =
        [(BOTH, "HTTP/2.0 https://arithmetic/"), (HTTP_1, "HTTP/1.1 /"), (&[], "HTTP/1.1 /")];
    for (protocols, seen) in names {
        let server = Server::start(&identity, protocols, None).await;
        let factory = factory(authority.trusted());
        assert_eq!(outcome(&factory, &server).await.expect("agreed"), seen);
    }
}

#[tokio::test]
async fn concurrent_requests_get_a_connection_each_over_http_1() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("arithmetic"), HTTP_1, None).await;
    let factory = factory(authority.trusted());
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    for n in [10, 10] {
        for fetched in join_all((0..n).map(|_| fetch(&endpoint, get("/")))).await {
            assert_eq!(fetched.expect("answers"), "HTTP/1.1 /");
        }
        assert_eq!(server.n_accepted(), 10);
    }
}

#[tokio::test]
async fn connections_to_a_server_that_chooses_http_1_are_bounded() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("arithmetic"), HTTP_1, None).await;
    let factory = factory(authority.trusted()).max_http1_connections(3);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let requests = join_all((0..20).map(|_| fetch(&endpoint, get("/"))));
    for fetched in timeout(Duration::from_secs(5), requests).await.expect("in time") {
        assert_eq!(fetched.expect("answers"), "HTTP/1.1 /");
    }
    assert_eq!(server.n_accepted(), 3);
}

#[tokio::test]
async fn protocol_of_ours_is_offered_alone() {
    let authority = Authority::new();
    let identity = authority.issue("arithmetic");
    let server = Server::start(&identity, BOTH, None).await;
    let http1 = factory(authority.trusted()).version(HttpVersion::Http1);
    assert_eq!(outcome(&http1, &server).await.expect("agreed"), "HTTP/1.1 /");
    let http2 = factory(authority.trusted()).version(HttpVersion::Http2);
    outcome(&http2, &server).await.expect("agreed");
    for protocols in [HTTP_1, &[]] {
        let server = Server::start(&identity, protocols, None).await;
        outcome(&http2, &server).await.expect_err("HTTP/1.1 only");
    }
}

#[tokio::test]
async fn server_that_requires_it_sees_our_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    for protocols in [BOTH, HTTP_1] {
        let identity = authority.issue("arithmetic");
        let server = Server::start(&identity, protocols, Some(&clients)).await;
        let us = clients.issue("client");
        let mutual = authority.trusted().with_identity(us.certificate, us.key);
        outcome(&factory(mutual), &server).await.expect("known");
        let sentence = outcome(&factory(authority.trusted()), &server).await.expect_err("unknown");
        assert!(sentence.contains("CertificateRequired"), "{sentence}");
    }
}

#[tokio::test]
async fn configuration_of_the_users_own_is_taken() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("arithmetic"), BOTH, None).await;
    let trusts_nobody = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let tls = TlsClient::from_rustls(Arc::new(trusts_nobody));
    let factory = HttpFactory::new().tls(tls.with_server_name("arithmetic").expect("a name"));
    outcome(&factory, &server).await.expect_err("trusts no authority");
}

#[tokio::test]
async fn server_without_tls_fails_the_connect() {
    let server = PlainServer::polite().await;
    let factory = factory(Authority::new().trusted()).connect_timeout(Duration::from_millis(200));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let error = endpoint.clone().ready().await.map(drop).expect_err("no TLS");
    assert_eq!(error.kind(), HttpErrorKind::Connect);
}

#[tokio::test]
async fn request_for_https_is_not_sent_in_the_clear() {
    let server = PlainServer::polite().await;
    let endpoint = HttpFactory::new().endpoint(&server.instance()).expect("an address");
    let request = Request::get("https://arithmetic/").body(Sent::default());
    let error = fetch(&endpoint, request.expect("a valid request")).await.expect_err("no TLS");
    assert_eq!(error.kind(), HttpErrorKind::TlsRequired);
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
}

#[test]
fn instance_of_another_scheme_is_refused() {
    let instance = |scheme: &str| Instance::new("127.0.0.1", 1).with_scheme(scheme);
    let secured = factory(Authority::new().trusted());
    let plain = HttpFactory::<Sent>::new();
    for (factory, wants, refuses) in [(&secured, "https", "http"), (&plain, "http", "https")] {
        factory.endpoint(&instance(wants)).expect("ours");
        let error = factory.endpoint(&instance(refuses)).expect_err("not ours");
        let wanted = format!("uses {wants}, and the instance requires {refuses}");
        assert!(error.to_string().contains(&wanted), "{error}");
    }
}

/// Files that are replaced reach connections that are always busy, by their age.
#[tokio::test]
async fn rotated_certificates_reach_busy_connections_without_errors() {
    for protocols in [BOTH, HTTP_1] {
        let (authority, clients) = (Authority::new(), Authority::new());
        let server = Server::start(&authority.issue("arithmetic"), protocols, Some(&clients)).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = (folder.path().join("crt.pem"), folder.path().join("key.pem"));
        let rotate = || {
            let us = clients.issue("client");
            std::fs::write(&key, us.key).expect("written");
            std::fs::write(&certificate, us.certificate).expect("written");
        };
        rotate();
        let tls = authority.trusted().with_identity(certificate.as_path(), key.as_path());
        let factory = factory(tls).max_age(Duration::from_millis(500));
        let endpoint = factory.endpoint(&server.instance()).expect("an address");
        let traffic = async |span: Duration| {
            let started = Instant::now();
            while started.elapsed() < span {
                for fetched in join_all((0..4).map(|_| fetch(&endpoint, get("/")))).await {
                    fetched.expect("answers");
                }
            }
        };
        traffic(Duration::from_millis(200)).await;
        rotate();
        // A file is read again a second after it was read, and in use after the age of the last
        // connection before.
        traffic(Duration::from_millis(2000)).await;
        server.certificates();
        traffic(Duration::from_millis(300)).await;
        let seen = server.certificates();
        assert_eq!(seen.len(), 1, "the old one is in use");
    }
}
