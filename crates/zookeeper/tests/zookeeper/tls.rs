//! TLS, with certificates of clients.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tempfile::TempDir;
use tower_sd_core::{Instancer, Registration, TlsConfig};
use tower_sd_testkit::{
    loopback::{free_ports, own_address},
    real,
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

use crate::support::{TTL, binaries, instance};

/// In TLS 1.3 the refusal arrives behind the client's half of the handshake.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn client_certificate_lets_in_and_a_strange_one_is_named() {
    // TLS came with 3.5.
    for binary in binaries().into_iter().filter(|binary| !binary.version.starts_with("3.4")) {
        let authority = real::Authority::new().expect("an authority");
        let stranger = real::Authority::new().expect("another one");
        let folder = TempDir::new().expect("a folder");
        let ip = own_address();
        let [port] = free_ports(ip).expect("a free port");
        let address = SocketAddr::from((ip, port));
        let config = real::ZooKeeperConfig::new(binary).netty();
        let config = config.lines(secure(&authority, folder.path(), address));
        let _server = real::ZooKeeper::start(config).await.expect("it starts");
        let client = |signer: &real::Authority| {
            let (certificate, key) = signer.sign("client", ["client"]).expect("a certificate");
            let tls = TlsConfig::new().with_root(pem(authority.pem()));
            let tls = tls.with_identity(pem(&certificate), pem(&key));
            let config = ZooKeeperConfig::new([address.to_string()]).session_timeout(TTL);
            ZooKeeper::new(config.tls(tls)).expect("good settings")
        };
        let zookeeper = client(&authority);
        let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
        let _handle = handle.map_err(|error| error.chain().to_string()).expect("it registers");
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
        let error = client(&stranger).check().await.expect_err("it is not trusted");
        let text = error.chain().to_string();
        assert!(text.contains("refused the client certificate"), "{text}");
    }
}

fn secure(authority: &real::Authority, folder: &Path, address: SocketAddr) -> Vec<String> {
    let (ip, port) = (address.ip().to_string(), address.port());
    let (certificate, key) = authority.sign("server", [ip.as_str()]).expect("a certificate");
    let [keys, trusted] = ["server.pem", "trusted.pem"].map(|name| folder.join(name));
    fs::write(&keys, key + &certificate).expect("our folder");
    fs::write(&trusted, authority.pem()).expect("our folder");
    vec![
        format!("secureClientPort={port}"),
        format!("secureClientPortAddress={ip}"),
        format!("ssl.keyStore.location={}", keys.display()),
        format!("ssl.trustStore.location={}", trusted.display()),
        "ssl.protocol=TLSv1.3".to_owned(),
        "ssl.enabledProtocols=TLSv1.3".to_owned(),
        "ssl.ciphersuites=TLS_AES_128_GCM_SHA256".to_owned(),
    ]
}

fn pem(text: &str) -> tower_sd_core::Pem {
    tower_sd_core::Pem::Text(text.into())
}

const BOUND: Duration = Duration::from_secs(20);
