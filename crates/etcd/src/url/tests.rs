use std::{fs, time::Duration};

use tempfile::TempDir;
use tower_sd_core::{ErrorKind, Pem, TlsConfig};

use super::*;

fn parsed(url: &str) -> EtcdConfig {
    EtcdConfig::from_url(url).expect(url)
}

/// What is wrong with a URL, in a sentence.
fn complaint(url: &str) -> String {
    let error = EtcdConfig::from_url(url).expect_err(url);
    assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    error.to_string()
}

#[test]
fn several_hosts_have_ports_of_their_own() {
    let endpoints = |url| parsed(url).endpoints;
    assert_eq!(endpoints("etcd://a"), ["a:2379"]);
    assert_eq!(
        endpoints("etcd://a:1,b,[::1],[::1]:2/"),
        ["a:1", "b:2379", "[::1]:2379", "[::1]:2"]
    );
}

#[test]
fn path_is_the_prefix() {
    for (path, prefix) in [
        ("", "tower-sd"),
        ("/", "tower-sd"),
        ("/shop", "shop"),
        ("/shop/", "shop"),
        ("/shop/eu?ttl=5s", "shop/eu"),
        ("//shop", "/shop"),
        ("/gr%C3%BC%C3%9Fe%2Fwelt", "grüße/welt"),
    ] {
        assert_eq!(parsed(&format!("etcd://a{path}")).prefix, prefix, "{path}");
    }
}

#[test]
fn times_are_settings_with_a_unit() {
    let url = "etcd://a?ttl=1500ms&request-timeout=3s&connect-timeout=4s&ping-interval=2m";
    let config = parsed(url);
    assert_eq!(config.registry.ttl, Some(Duration::from_millis(1500)));
    assert_eq!(config.request_timeout, Duration::from_secs(3));
    assert_eq!(config.connect_timeout, Duration::from_secs(4));
    assert_eq!(config.ping_interval, Duration::from_secs(120));
}

#[test]
fn files_are_options() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("can be written");
        path.display().to_string()
    };
    let (ca, cert) = (file("ca", CERTIFICATE), file("cert", CERTIFICATE));
    let key = file("key", KEY);
    let tls = |options: &str| parsed(&format!("etcd://a?{options}")).tls;
    let pem = |path: &str| Pem::File(path.into());
    assert_eq!(tls("tls=false"), None);
    assert_eq!(tls("tls=true"), Some(TlsConfig::new()));
    let trusting = TlsConfig::new().with_root(pem(&ca));
    assert_eq!(tls(&format!("ca-file={ca}")), Some(trusting.clone()));
    let mutual = tls(&format!("tls=true&ca-file={ca}&cert-file={cert}&key-file={key}"));
    assert_eq!(mutual, Some(trusting.with_identity(pem(&cert), pem(&key))));
    let public = tls(&format!("cert-file={cert}&key-file={key}"));
    assert_eq!(public, Some(TlsConfig::new().with_identity(pem(&cert), pem(&key))));

    let password = file("password", "hunter2\n");
    let config = parsed(&format!("etcd://a?user=svc&password-file={password}"));
    let user = config.user.expect("has one");
    assert_eq!((user.name.as_str(), user.password().expect("reads").expose()), ("svc", "hunter2"));
    file("password", "hunter3\n");
    assert_eq!(user.password().expect("reads").expose(), "hunter3", "it was rotated");

    // In go-kit half of it is no TLS at all.
    for (half, why) in [
        (format!("cert-file={cert}"), "given without key-file"),
        (format!("key-file={key}"), "given without cert-file"),
        (format!("ca-file={ca}&cert-file={cert}"), "given without key-file"),
        (format!("ca-file={ca}&key-file={key}"), "given without cert-file"),
        (format!("ca-file={key}"), "has no PEM block"),
        (format!("tls=false&ca-file={ca}"), "other options set up TLS"),
        ("ca-file=/nowhere".to_owned(), "cannot read"),
        ("user=svc".to_owned(), "user and password-file"),
        (format!("password-file={password}"), "user and password-file"),
    ] {
        let complaint = complaint(&format!("etcd://a?{half}"));
        assert!(complaint.contains(why), "{half}: {complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----hunter2";

#[test]
fn what_is_no_url_of_etcd_is_refused() {
    for url in [
        "",
        "a:1",
        "http://a",
        "etcd:a",
        "etcd://",
        "etcd:///p",
        "etcd://a,,b",
        "etcd://a:b",
        "etcd://a/%FF",
        "etcd://a?ttl=5",
        "etcd://a?ttl=",
        "etcd://a?ttl=s",
        "etcd://a?tls=maybe",
        "etcd://a?ttl=0s",
        "etcd://a?ping-interval=5s",
    ] {
        complaint(url);
    }
}

#[test]
fn secrets_in_a_url_are_refused_with_the_remedy_only() {
    for url in
        ["etcd://root:hunter2@a:1/x", "etcd://b,root:hunter2@a:1/x", "etcd://a?password=hunter2"]
    {
        let complaint = complaint(url);
        assert!(complaint.contains("in a URL gets logged"), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}
