//! An agent that speaks TLS, with a certificate of our own authority, and asks for ours.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_sd_consul::{ConsulClient, ConsulConfig, ConsulInstancer, ConsulRegistrar, Query};
use tower_sd_core::{ErrorKind, Instancer, Registrar, Result};
use tower_sd_testkit::{
    loopback::{free_ports, own_address},
    real,
    servers::ServerBinary,
};

use crate::support::{get, listed, on_every_version, sees, web};

/// The name that Consul gives to the certificates of servers.
const NAME: &str = "server.dc1.consul";

/// Files of PEM.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(TempDir::new().expect("a folder"));
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        files.write("ca", &params.self_signed(&key).expect("signs").pem());
        let issuer = Issuer::new(params, key);
        for (file, name) in [("agent", NAME), ("client", "client.dc1.consul")] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new([name.to_owned()]).expect("a name");
            let certificate = params.signed_by(&key, &issuer).expect("signs");
            files.write(file, &certificate.pem());
            files.write(&format!("{file}-key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).expect("our folder");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
}

/// An agent, and where it speaks TLS.
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

fn config(address: SocketAddr, ca: &Path) -> ConsulConfig {
    let mut config = ConsulConfig::new(format!("https://{address}"));
    config.tls.ca_file = Some(ca.to_owned());
    config
}

fn with_certificate(mut config: ConsulConfig, files: &Files) -> ConsulConfig {
    config.tls.client_cert = Some(files.path("client"));
    config.tls.client_key = Some(files.path("client-key"));
    config
}

/// A client that shows its certificate, and knows whom to trust.
pub(crate) fn trusted(address: SocketAddr, files: &Files) -> ConsulClient {
    let mut config = with_certificate(config(address, &files.path("ca")), files);
    config.tls.server_name = Some(NAME.into());
    ConsulClient::new(config).expect("all is given")
}

async fn asks(config: ConsulConfig) -> Result<()> {
    ConsulClient::new(config)?.services().await.map(|_| ())
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn an_agent_that_asks_for_certificates_is_registered_with_and_followed() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (agent, address) = start(binary, &files).await;
        let client = trusted(address, &files);
        let handle =
            ConsulRegistrar::new(&client).register(web("a", 80)).await.expect("registered");
        let instancer = ConsulInstancer::new(&client, Query::service("web"));
        sees(&mut instancer.subscribe(), "it", listed(1)).await;
        assert_ne!(get(agent.address(), "/v1/health/service/web").await, Value::Null);
        handle.deregister().await.expect("gone");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real consul"]
async fn who_is_not_trusted_is_not_talked_to() {
    on_every_version(async |binary| {
        let files = Files::new();
        let (_agent, address) = start(binary, &files).await;
        let ca = files.path("ca");
        let named = |mut config: ConsulConfig| {
            config.tls.server_name = Some(NAME.into());
            config
        };
        let unverified = |mut config: ConsulConfig| {
            config.tls.skip_verify = true;
            config
        };
        asks(named(with_certificate(config(address, &ca), &files))).await.expect("the right name");
        asks(unverified(with_certificate(config(address, &ca), &files))).await.expect("believed");
        let strangers = Files::new();
        for (why, config) in [
            ("the certificate is of another name", with_certificate(config(address, &ca), &files)),
            ("we show none", named(config(address, &ca))),
            (
                "ours is of another authority",
                named(with_certificate(config(address, &ca), &strangers)),
            ),
            (
                "theirs is of another authority",
                named(with_certificate(config(address, &strangers.path("ca")), &files)),
            ),
        ] {
            let error = asks(config).await.expect_err(why);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{why}: {error:?}");
        }
        let mut plain = ConsulConfig::new(format!("http://{address}"));
        plain.tls.ca_file = Some(files.path("nothing"));
        plain.tls.enabled = true;
        let error = asks(plain).await.expect_err("no such file");
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    })
    .await;
}
