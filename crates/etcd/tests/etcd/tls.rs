//! TLS against a real server.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use futures_util::FutureExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tower_sd_core::{Instancer, Registration, TlsConfig};
use tower_sd_etcd::{Etcd, EtcdConfig};
use tower_sd_testkit::{real::Server, wait::shows};

use crate::support::{binaries, custom::place, instance, on_each};

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
        self.sign_for(name, Duration::from_secs(3600))
    }

    /// As [`sign`](Self::sign), valid for so long.
    fn sign_for(&self, name: &str, validity: Duration) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970() + validity;
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        (certificate.pem(), key.serialize_pem())
    }
}

#[expect(clippy::disallowed_types, reason = "certificates are about the time of day")]
fn since_1970() -> Duration {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    epoch.elapsed().expect("the clock is behind 1970")
}

/// A server with a certificate, which requires one.
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

fn client(address: SocketAddr, tls: impl Into<Option<TlsConfig>>) -> Etcd {
    client_for(TTL, address, tls)
}

fn client_for(ttl: Duration, address: SocketAddr, tls: impl Into<Option<TlsConfig>>) -> Etcd {
    let mut config = EtcdConfig::new([address.to_string()]).ttl(ttl);
    config.tls = tls.into();
    Etcd::new(config).expect("good settings")
}

const TTL: Duration = Duration::from_secs(3);
/// Long enough to register within it on a busy machine.
const VALIDITY: Duration = Duration::from_secs(12);

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn rotated_client_certificate_is_used_for_the_next_connection() {
    certificate_is_rotated(TTL, VALIDITY, 3 * TTL).await;
}

mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a real etcd"]
    async fn entry_lives_one_ttl_after_expired_certificate_was_replaced() {
        let ttl = Duration::from_secs(15);
        certificate_is_rotated(ttl, Duration::from_secs(25), ttl).await;
    }
}

/// The connection outlives its certificate; the restart of the server ends it.
async fn certificate_is_rotated(ttl: Duration, validity: Duration, bound: Duration) {
    on_each(binaries(), async |binary| {
        let authority = Authority::new();
        let folder = TempDir::new().expect("a folder");
        let (server, address) = server(&authority, &binary.path, &folder).await;
        let own = TempDir::new().expect("a folder");
        let path = |file: &str| own.path().join(file);
        let write = |validity| {
            let (certificate, key) = authority.sign_for("client", validity);
            std::fs::write(path("cert"), certificate).expect("our folder");
            std::fs::write(path("key"), key).expect("our folder");
        };
        std::fs::write(path("ca"), &authority.pem).expect("our folder");
        let expired_at = Instant::now() + validity;
        write(validity);
        let tls = TlsConfig::new().with_root(path("ca")).with_identity(path("cert"), path("key"));
        let rotating = client_for(ttl, address, tls.clone());
        let one = Registration::new("rotated", instance("a", 8080));
        let _handle = rotating.clone().register(one).await.expect("registers");
        let late = Instant::now() + Duration::from_secs(2);
        sleep_until(expired_at.max(late) + Duration::from_secs(1)).await;
        // The alert of an old Go is "bad certificate", that of a newer one "expired certificate".
        let error = client(address, tls).check().await.expect_err("has expired");
        assert!(error.to_string().contains("refused the client certificate"), "{error}");
        write(Duration::from_secs(3600));
        server.restart().await.expect("it starts again");
        let restarted_at = Instant::now();
        let (certificate, key) = authority.sign("operator");
        let operator = TlsConfig::new().with_root(authority.pem.clone());
        let operator = client(address, operator.with_identity(certificate, key));
        let instancer = operator.instancer("rotated");
        let mut subscription = instancer.subscribe();
        sleep_until(restarted_at + bound).await;
        shows(&mut subscription, &["a"], Duration::from_secs(1)).await;
        // A lease begins anew when its server does: only a renewal outlasts that.
        let left = async {
            while subscription.snapshot().instances().len() == 1 {
                subscription.changed().await.expect("the loop lives");
            }
        };
        timeout(2 * ttl, left).await.expect_err("it stays registered");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real etcd"]
async fn client_certificates_let_in_and_nothing_else_does() {
    on_each(binaries(), async |binary| {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let folder = TempDir::new().expect("a folder");
        let (_server, address) = server(&authority, &binary.path, &folder).await;
        let mutual = |trusted: &Authority, signer: &Authority| {
            let (certificate, key) = signer.sign("client");
            let tls = TlsConfig::new().with_root(trusted.pem.clone());
            client(address, tls.with_identity(certificate, key))
        };
        let good = mutual(&authority, &authority);
        good.check().await.expect("both sides trust each other");
        let one = Registration::new("secure", instance("a", 8080));
        let handle = good.clone().register(one).await.expect("registers");
        let instancer = good.instancer("secure");
        let mut subscription = instancer.subscribe();
        shows(&mut subscription, &["a"], Duration::from_secs(5)).await;
        handle.deregister().await.expect("deregisters");

        let wrong = [
            (client(address, None), "cannot be reached, or closed the connection"),
            (client(address, TlsConfig::new()), "the server's certificate is not accepted"),
            (
                client(address, TlsConfig::new().with_root(authority.pem.clone())),
                "client certificate",
            ),
            (mutual(&stranger, &authority), "the server's certificate is not accepted"),
            (mutual(&authority, &stranger), "refused the client certificate"),
        ];
        for (client, words) in wrong {
            let error = client.check().await.expect_err("not let in");
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
    })
    .await;
}
