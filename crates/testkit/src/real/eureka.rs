use std::{io, net::SocketAddr, ops::Deref, path::Path, process::Command};

use futures_util::FutureExt;

use super::Server;
use crate::{
    loopback::{free_ports, own_address},
    proxy::Proxy,
    servers::ServerBinary,
    wire::request,
};

/// A Eureka server of Spring Cloud's, with or without peers.
///
/// It keeps nothing on disk: every restart is empty, unless a peer has the entries.
#[derive(Debug)]
pub struct Eureka {
    server: Server,
    address: SocketAddr,
}

/// How to start a [`Eureka`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EurekaConfig {
    binary: ServerBinary,
    options: Vec<String>,
}

/// Two servers, each other's peers.
#[derive(Debug)]
#[non_exhaustive]
pub struct EurekaPair {
    /// The servers.
    pub servers: [Eureka; 2],
    /// The link by which the other server reaches that of the same index.
    pub links: [Proxy; 2],
}

/// A Spring Cloud application, registered with a server.
///
/// It shows by HTTP what it finds: `GET /found/{service}`, `GET /statuses/{service}`.
#[derive(Debug)]
pub struct SpringClient {
    server: Server,
    address: SocketAddr,
}

impl Eureka {
    /// Starts a server without peers.
    ///
    /// It is ready in some five seconds.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(config: EurekaConfig) -> io::Result<Self> {
        let ip = own_address();
        let [port] = free_ports(ip)?;
        Self::listen(config, (ip, port).into(), None).await
    }

    async fn listen(
        config: EurekaConfig,
        address: SocketAddr,
        peer: Option<&Proxy>,
    ) -> io::Result<Self> {
        // Spring's default is another server. Its own URL is no peer, and shows that there are.
        let urls = [Some(address), peer.map(Proxy::address)].into_iter().flatten().map(url);
        let peers = urls.collect::<Vec<_>>().join(",");
        let server = Server::start(
            move |data| config.command(data, address, &peers),
            move || is_ready(address).boxed(),
        );
        Ok(Self { server: server.await?, address })
    }

    /// Where its REST interface is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `http://127.1.2.3:20000/eureka`.
    pub fn url(&self) -> String {
        url(self.address)
    }
}

/// Stop, kill, suspend, restart.
impl Deref for Eureka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl EurekaPair {
    /// Starts two servers, each other's peers.
    ///
    /// # Errors
    ///
    /// One of them does not become ready; with its output.
    pub async fn start(config: EurekaConfig) -> io::Result<Self> {
        let (a, b) = (own_address(), own_address());
        let ([port_a], [port_b]) = (free_ports(a)?, free_ports(b)?);
        let [a, b] = [SocketAddr::from((a, port_a)), SocketAddr::from((b, port_b))];
        let links = [Proxy::start(a).await?, Proxy::start(b).await?];
        let (a, b) = tokio::join!(
            Eureka::listen(config.clone(), a, Some(&links[1])),
            Eureka::listen(config, b, Some(&links[0]))
        );
        Ok(Self { servers: [a?, b?], links })
    }
}

impl EurekaConfig {
    /// Creates the server's defaults.
    ///
    /// Its response cache is refreshed every 30 s, and self-preservation is on.
    pub fn new(binary: ServerBinary) -> Self {
        Self { binary, options: Vec::new() }
    }

    /// Creates the settings of a server that answers without a delay.
    ///
    /// It reads past the cache that is refreshed every 30 s, and the one below keeps nothing for
    /// longer than a second. Leases are evicted every 500 ms, all that have ended, whatever the
    /// number of renewals.
    pub fn quick(binary: ServerBinary) -> Self {
        Self::new(binary)
            .option("eureka.server.use-read-only-response-cache", "false")
            // A read that meets a write may store what was before it, for 3 min by default.
            .option("eureka.server.response-cache-auto-expiration-in-seconds", "1")
            .option("eureka.server.eviction-interval-timer-in-ms", "500")
            .option("eureka.server.renewal-percent-threshold", "0")
            .option("eureka.server.enable-self-preservation", "false")
            .option("eureka.server.max-time-for-replication", "1000")
    }

    /// Sets an option of Spring's: `eureka.server.enable-self-preservation`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push(format!("--{name}={value}"));
        self
    }

    fn command(&self, data: &Path, address: SocketAddr, peers: &str) -> Command {
        let mut command = Command::new(&self.binary.path);
        command
            .arg("server")
            .arg(format!("--server.address={}", address.ip()))
            .arg(format!("--server.port={}", address.port()))
            .arg(format!("--eureka.instance.hostname={}", address.ip()))
            .arg("--eureka.client.register-with-eureka=false")
            .arg(format!("--eureka.client.fetch-registry={}", peers.contains(',')))
            .arg(format!("--eureka.client.service-url.defaultZone={peers}"))
            .arg(NO_JERSEY)
            .arg("--server.tomcat.threads.max=50")
            .args(&self.options)
            .current_dir(data);
        command
    }
}

impl SpringClient {
    /// Starts an application of this name, with metadata `language=java`.
    ///
    /// # Errors
    ///
    /// It does not become ready; with its output.
    pub async fn start(binary: ServerBinary, eureka: &Eureka, name: &str) -> io::Result<Self> {
        let ip = own_address();
        let [port] = free_ports(ip)?;
        let (address, name, url) = (SocketAddr::from((ip, port)), name.to_owned(), eureka.url());
        let server = Server::start(
            move |data| {
                let mut command = Command::new(&binary.path);
                command
                    .arg("client")
                    .arg(format!("--server.address={ip}"))
                    .arg(format!("--server.port={port}"))
                    .arg(format!("--spring.application.name={name}"))
                    .arg(format!("--eureka.instance.hostname={ip}"))
                    .arg(format!("--eureka.instance.ip-address={ip}"))
                    .arg(NO_JERSEY)
                    .arg("--eureka.instance.metadata-map.language=java")
                    .arg("--eureka.instance.metadata-map.zone=eu-1a")
                    .arg("--eureka.instance.lease-renewal-interval-in-seconds=1")
                    .arg("--eureka.client.registry-fetch-interval-seconds=1")
                    .arg("--eureka.client.initial-instance-info-replication-interval-seconds=0")
                    .arg(format!("--eureka.client.service-url.defaultZone={url}"))
                    .current_dir(data);
                command
            },
            move || answers(address, "/found/nothing").boxed(),
        );
        Ok(Self { server: server.await?, address })
    }

    /// Where its HTTP is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Stop, kill, suspend, restart.
impl Deref for SpringClient {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/eureka")
}

async fn is_ready(address: SocketAddr) -> bool {
    // The registry, and not the page beside it; 403 is the answer of one that waits for peers.
    match request(address, "GET", "/eureka/apps", "").await {
        Ok(answer) => matches!(answer.status, 200 | 403),
        Err(_) => false,
    }
}

async fn answers(address: SocketAddr, target: &str) -> bool {
    request(address, "GET", target, "").await.is_ok_and(|answer| answer.status == 200)
}

/// The server's starter brings Jersey, which a client prefers to Spring's own HTTP client, but not
/// what a client needs of it.
const NO_JERSEY: &str = "--eureka.client.jersey.enabled=false";
