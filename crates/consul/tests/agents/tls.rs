//! An agent with TLS, a certificate of our own authority, and a request for ours.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_core::{ErrorKind, Instancer, RegistrationHandle, Result, TlsConfig};
use tower_sd_testkit::{
    loopback::{free_ports, own_address},
    real,
    servers::ServerBinary,
};

use crate::support::{BOUND, TTL, get, listed, on_every_version, say, sees, web};

/// The name that Consul gives to the certificates of servers.
const NAME: &str = "server.dc1.consul";
const CLIENT: &str = "client.dc1.consul";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Files of PEM.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(TempDir::new().expect("a folder"));
        files.rotate();
        files
    }

    /// Replaces all of them, the authority included.
    fn rotate(&self) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.write("ca", &params.self_signed(&key).expect("signs").pem());
        let issuer = Issuer::new(params, key);
        self.sign(&issuer, "agent", NAME, DAY);
        self.sign(&issuer, "client", CLIENT, DAY);
        issuer
    }

    /// Replaces a certificate and its key.
    fn sign(&self, issuer: &Issuer<'_, KeyPair>, file: &str, name: &str, validity: Duration) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970() + validity;
        let certificate = params.signed_by(&key, issuer).expect("signs");
        self.write(file, &certificate.pem());
        self.write(&format!("{file}-key"), &key.serialize_pem());
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("our folder");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Settings that trust the authority and present no certificate.
    fn trusting(&self) -> TlsConfig {
        TlsConfig::new().with_root(self.path("ca"))
    }

    fn with_certificate(&self, tls: TlsConfig) -> TlsConfig {
        tls.with_identity(self.path("client"), self.path("client-key"))
    }
}

/// An agent, and its address for TLS.
pub(crate) async fn start(binary: ServerBinary, files: &Files) -> (real::Consul, SocketAddr) {
    let [port] = free_ports(own_address()).expect("a free port");
    let config = json!({
        "ports": {"https": port}, "verify_incoming_https": true, "ca_file": files.path("ca"),
        "cert_file": files.path("agent"), "key_file": files.path("agent-key"),
    });
    let config = real::ConsulConfig::dev(binary).config(config.to_string());
    let agent = real::Consul::start(config).await.expect("the agent starts");
    let address = SocketAddr::new(agent.address().ip(), port);
    (agent, address)
}

/// A client that presents its certificate, and trusts the agent's.
pub(crate) fn trusted(address: SocketAddr, files: &Files) -> Consul {
    trusted_for(address, files, TTL)
}

fn trusted_for(address: SocketAddr, files: &Files, ttl: Duration) -> Consul {
    let tls = files.with_certificate(files.trusting()).with_server_name(NAME);
    let config = ConsulConfig::new(format!("https://{address}")).tls(tls).ttl(ttl);
    Consul::new(config).expect("all is given")
}

#[expect(clippy::disallowed_types, reason = "certificates are about the time of day")]
fn since_1970() -> Duration {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    epoch.elapsed().expect("the clock is behind 1970")
}

async fn request(address: SocketAddr, tls: TlsConfig) -> Result<()> {
    let config = ConsulConfig::new(format!("http://{address}")).tls(tls);
    Consul::new(config)?.services().await.map(|_| ())
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn agent_that_requires_certificates_is_used_for_everything() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (agent, address) = start(binary, &files).await;
        let client = trusted(address, &files);
        let handle = client.clone().register(web("a", 80)).await.expect("registered");
        let instancer = client.instancer(Query::new("web"));
        sees(&mut instancer.subscribe(), "it", listed(1)).await;
        assert_ne!(get(agent.address(), "/v1/health/service/web").await, Value::Null);
        handle.deregister().await.expect("gone");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn untrusted_peers_are_refused_with_the_reason() {
    on_every_version(async |binary| {
        let (files, strangers) = (Files::new(), Files::new());
        let (_agent, address) = start(binary, &files).await;
        let with = |tls: TlsConfig| files.with_certificate(tls);
        let named = |tls: TlsConfig| tls.with_server_name(NAME);
        request(address, named(with(files.trusting()))).await.expect("the right name");
        let unverified = with(files.trusting()).danger_accept_invalid_certificates();
        request(address, unverified).await.expect("accepted");
        let client_refused = "the server refused the client certificate";
        for (tls, reason) in [
            (with(files.trusting()), "it is for another name"),
            (named(files.trusting()), client_refused),
            (named(strangers.with_certificate(files.trusting())), client_refused),
            (named(with(strangers.trusting())), "the server's certificate is not accepted"),
        ] {
            let error = request(address, tls).await.expect_err(reason);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{reason}: {error:?}");
            let chain = error.chain().to_string();
            assert!(chain.contains(reason), "{chain}");
        }
        let missing = TlsConfig::new().with_root(files.path("nothing"));
        let error = request(address, missing).await.expect_err("no such file");
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    })
    .await;
}

/// The agent is restarted with another authority: the old certificate is worth nothing.
#[tokio::test]
#[ignore = "needs a real consul"]
async fn rotated_certificates_and_authority_keep_the_registration() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (agent, address) = start(binary, &files).await;
        let registrar = trusted(address, &files);
        let handle = registrar.register(web("a", 80)).await.expect("registered");
        files.rotate();
        agent.restart().await.expect("the agent starts");
        passes_within(BOUND, &agent, &handle).await;
        handle.deregister().await.expect("gone");
    })
    .await;
}

async fn passes_within(bound: Duration, agent: &real::Consul, handle: &RegistrationHandle) {
    let start = Instant::now();
    loop {
        let passing = get(agent.address(), "/v1/health/service/web?passing").await;
        if passing.as_array().is_some_and(|entries| entries.len() == 1) {
            return say(&format!("passes {:?} after the restart", start.elapsed()));
        }
        assert!(start.elapsed() < bound, "registered again: {:?}", handle.state());
        sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) mod slow {
    use tokio::time::sleep_until;

    use super::*;

    /// The connection outlives its certificate; the restart of the agent ends it.
    #[tokio::test]
    #[ignore = "needs a real consul"]
    async fn entry_passes_one_ttl_after_expired_certificate_was_replaced() {
        const TTL: Duration = Duration::from_secs(15);
        const VALIDITY: Duration = Duration::from_secs(25);
        on_every_version(async |binary| {
            let files = Files::new();
            let issuer = files.rotate();
            let (agent, address) = start(binary, &files).await;
            let expired_at = Instant::now() + VALIDITY;
            files.sign(&issuer, "client", CLIENT, VALIDITY);
            let registrar = trusted_for(address, &files, TTL);
            let handle = registrar.register(web("a", 80)).await.expect("registered");
            sleep_until(expired_at + Duration::from_secs(2)).await;
            let tls = files.with_certificate(files.trusting()).with_server_name(NAME);
            request(address, tls).await.expect_err("the certificate has expired");
            files.sign(&issuer, "client", CLIENT, DAY);
            agent.restart().await.expect("the agent starts");
            passes_within(TTL, &agent, &handle).await;
        })
        .await;
    }
}
