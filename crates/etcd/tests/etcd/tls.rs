//! TLS against a real server.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use futures_util::FutureExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tower_sd_core::{Instancer, Registrar, Registration, Secret};
use tower_sd_etcd::{EtcdClient, EtcdConfig, EtcdInstancer, EtcdRegistrar, Tls};
use tower_sd_testkit::real::Server;
use tower_sd_testkit::wait::shows;

use crate::support::{binaries, custom::place, instance, note};

/// An authority, and what it has signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signs").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of `name`, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server with a certificate, which asks for one.
async fn server(authority: &Authority, binary: &Path, folder: &TempDir) -> (Server, SocketAddr) {
    let (client, peer) = place();
    let (certificate, key) = authority.sign(&client.ip().to_string());
    for (file, text) in [("ca", &authority.pem), ("cert", &certificate), ("key", &key)] {
        std::fs::write(folder.path().join(file), text).expect("can be written");
    }
    let (binary, files) = (binary.to_owned(), folder.path().to_owned());
    let command = move |data: &Path| {
        let (client, peer) = (format!("https://{client}"), format!("http://{peer}"));
        let mut command = Command::new(&binary);
        command.args(["--name", "node", "--unsafe-no-fsync", "--client-cert-auth"]);
        command.arg("--data-dir").arg(data.join("etcd"));
        command.arg("--trusted-ca-file").arg(files.join("ca"));
        command.arg("--cert-file").arg(files.join("cert"));
        command.arg("--key-file").arg(files.join("key"));
        command
            .args(["--heartbeat-interval", "50", "--election-timeout", "250"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("node={peer}")]);
        command
    };
    let ready = move || async move { TcpStream::connect(client).await.is_ok() }.boxed();
    (Server::start(command, ready).await.expect("etcd starts"), client)
}

fn client(address: SocketAddr, tls: Tls) -> EtcdClient {
    let config = EtcdConfig::new([address.to_string()]).ttl(Duration::from_secs(2)).tls(tls);
    EtcdClient::new(config).expect("good settings")
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn client_certificates_let_in_and_nothing_else_does() {
    for binary in binaries() {
        note(&format!("using etcd v{}", binary.version));
        let (authority, stranger) = (Authority::new(), Authority::new());
        let folder = TempDir::new().expect("a folder");
        let (_server, address) = server(&authority, &binary.path, &folder).await;
        let mutual = |trusted: &Authority, signer: &Authority| {
            let (certificate, key) = signer.sign("client");
            let (authority, key) = (trusted.pem.clone(), Secret::new(key));
            client(address, Tls::Mutual { authority, certificate, key })
        };
        let good = mutual(&authority, &authority);
        good.check().await.expect("both sides trust each other");
        let one = Registration::new("secure", instance("a", 8080));
        let handle = EtcdRegistrar::new(&good).register(one).await.expect("registers");
        let instancer = EtcdInstancer::new(&good, "secure");
        let mut subscription = instancer.subscribe();
        shows(&mut subscription, &["a"], Duration::from_secs(5)).await;
        handle.deregister().await.expect("deregisters");

        let wrong = [
            client(address, Tls::Off),
            client(address, Tls::SystemRoots),
            client(address, Tls::Authority(authority.pem.clone())),
            mutual(&stranger, &authority),
            mutual(&authority, &stranger),
        ];
        for client in wrong {
            client.check().await.expect_err("not let in");
        }
    }
}
