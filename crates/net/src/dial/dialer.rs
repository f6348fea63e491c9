use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower_sd_core::AddressPolicy;

use super::{
    connector::{Connector, Tcp},
    error::{DialError, DialErrorKind, Failure},
    race::{interleaved, race},
};
use crate::{Io, Target, TlsClient};

/// Connects to a [`Target`], over TLS or in the clear.
///
/// All addresses of a name are raced as RFC 8305 describes: families alternate, the next attempt
/// starts 250 ms after the last one or when that has failed, and the first connection wins, TLS
/// handshake included.
#[derive(Clone, Debug)]
#[must_use]
pub struct Dialer {
    connect_timeout: Duration,
    attempt_delay: Duration,
    tcp: Tcp,
    connector: Option<Arc<dyn Connector>>,
    addresses: AddressPolicy,
}

/// A new connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The byte stream.
    pub io: Io,
    /// The protocol that TLS has agreed on (ALPN, RFC 7301), such as `h2`.
    pub alpn: Option<Vec<u8>>,
}

impl Dialer {
    /// Creates a dialer with the defaults that its setters name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds connecting: resolution, all attempts, TLS handshakes. Defaults to 5 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets the time between two attempts at addresses of one name.
    ///
    /// Shortened where a name has so many addresses that some would not be attempted within the
    /// connect timeout. Defaults to 250 ms, as RFC 8305 recommends.
    pub fn attempt_delay(self, delay: Duration) -> Self {
        Self { attempt_delay: delay, ..self }
    }

    /// Sets the idle time after which TCP probes its peer, and the time between probes.
    ///
    /// Defaults to 15 s; `None` disables probes. Firewalls forget connections that are silent
    /// for minutes.
    pub fn keepalive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.tcp.keepalive = interval.into();
        self
    }

    /// Bounds the time for which sent data or probes may stay unacknowledged (Linux).
    ///
    /// It bounds the time for which a peer may read nothing of an upload, too.
    /// The connection then fails, and with it what waits on it. Defaults to 30 s, and is 1 ms at
    /// least; `None` leaves it to the system, which usually waits for a quarter of an hour.
    pub fn user_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.tcp.user_timeout = timeout.into();
        self
    }

    /// Denies addresses that names resolve to.
    ///
    /// IP addresses that are given as such are not checked here: a `Publisher` has checked them.
    /// Defaults to [`AddressPolicy::any`].
    pub fn addresses(self, policy: AddressPolicy) -> Self {
        Self { addresses: policy, ..self }
    }

    /// Replaces the operating system's resolver and sockets.
    ///
    /// Keep-alive and user timeout are then the connector's affair. Unix sockets stay the
    /// operating system's.
    pub fn connector(self, connector: impl Connector) -> Self {
        Self { connector: Some(Arc::new(connector)), ..self }
    }

    /// Connects to `target`, over TLS if settings are given.
    ///
    /// The protocols of `alpn` are offered over TLS, the preferred ones first.
    ///
    /// # Errors
    ///
    /// No connection could be made; see [`DialErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropped early, all attempts end.
    pub async fn dial(
        &self,
        target: &Target,
        tls: Option<&TlsClient>,
        alpn: &[&[u8]],
    ) -> Result<Connection, DialError> {
        let mut failures = Vec::new();
        let dialling = self.dial_unbounded(target, Secured { tls, alpn, target }, &mut failures);
        match timeout(self.connect_timeout, dialling).await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(DialError::of(target, failures)),
            Err(_) => Err(DialError::timeout(target, self.connect_timeout, failures)),
        }
    }

    async fn dial_unbounded(
        &self,
        target: &Target,
        secured: Secured<'_>,
        failures: &mut Vec<Failure>,
    ) -> Option<Connection> {
        let (host, port) = match target {
            Target::Host { host, port } => (host, *port),
            Target::Unix(path) => {
                let connected = match connect_unix(path).await {
                    Ok(io) => secured.secure(io, None).await,
                    Err(cause) => Err(Failure::connect(None, cause)),
                };
                return connected.map_err(|failure| failures.push(failure)).ok();
            }
        };
        let network: &dyn Connector = match &self.connector {
            Some(connector) => &**connector,
            None => &self.tcp,
        };
        let addresses = match self.resolve(network, host, port).await {
            Ok(addresses) => addresses,
            Err(failure) => {
                failures.push(failure);
                return None;
            }
        };
        let delay = self.delay(addresses.len());
        let attempt = |address| async move {
            match network.connect(target, address).await {
                Ok(io) => secured.secure(io, Some(address)).await,
                Err(cause) => Err(Failure::connect(Some(address), cause)),
            }
        };
        race(addresses, delay, failures, attempt).await
    }

    /// The addresses in the order of their attempts; an IP address is its own.
    async fn resolve(
        &self,
        network: &dyn Connector,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let failed = |kind, cause| Failure { address: None, kind, cause };
        if self.connector.is_none()
            && let Ok(ip) = host.parse::<IpAddr>()
        {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let resolved = network.resolve(host, port).await;
        let mut addresses =
            resolved.map_err(|cause| failed(DialErrorKind::Resolve, cause.into()))?;
        let mut denied = None;
        if host.parse::<IpAddr>().is_err() {
            addresses.retain(|address| match self.addresses.allows(address.ip()) {
                Ok(()) => true,
                Err(reason) => {
                    denied = Some(format!("{}: {reason}", address.ip()));
                    false
                }
            });
        }
        match (addresses.is_empty(), denied) {
            (false, _) => Ok(interleaved(addresses)),
            (true, Some(reason)) => Err(failed(DialErrorKind::Denied, reason.into())),
            (true, None) => Err(failed(DialErrorKind::Resolve, "it has no address".into())),
        }
    }

    fn delay(&self, n_addresses: usize) -> Duration {
        let n = u32::try_from(n_addresses).unwrap_or(u32::MAX).saturating_add(1);
        self.attempt_delay.min(self.connect_timeout / n).max(MIN_DELAY)
    }
}

/// The half of an attempt that follows the transport.
#[derive(Clone, Copy)]
struct Secured<'a> {
    tls: Option<&'a TlsClient>,
    alpn: &'a [&'a [u8]],
    target: &'a Target,
}

impl Secured<'_> {
    async fn secure(self, io: Io, address: Option<SocketAddr>) -> Result<Connection, Failure> {
        let Some(tls) = self.tls else {
            return Ok(Connection { io, alpn: None });
        };
        match tls.handshake(self.target, self.alpn, io).await {
            Ok((io, alpn)) => Ok(Connection { io, alpn }),
            Err(cause) => Err(Failure { address, kind: DialErrorKind::Tls, cause }),
        }
    }
}

impl Failure {
    fn connect(address: Option<SocketAddr>, cause: std::io::Error) -> Self {
        Self { address, kind: DialErrorKind::Connect, cause: cause.into() }
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            attempt_delay: Duration::from_millis(250),
            tcp: Tcp {
                keepalive: Some(Duration::from_secs(15)),
                user_timeout: Some(Duration::from_secs(30)),
            },
            connector: None,
            addresses: AddressPolicy::any(),
        }
    }
}

/// Within the connect timeout of the dialer.
#[cfg(unix)]
async fn connect_unix(path: &Path) -> std::io::Result<Io> {
    loop {
        match tokio::net::UnixStream::connect(path).await {
            // Its backlog is full. Over TCP the system itself tries again.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sleep(UNIX_AGAIN).await;
            }
            connected => return Ok(Io::boxed(connected?)),
        }
    }
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "elsewhere it waits for the connection")]
async fn connect_unix(_path: &Path) -> std::io::Result<Io> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "no unix sockets on this system"))
}

#[cfg(unix)]
const UNIX_AGAIN: Duration = Duration::from_millis(10);
/// RFC 8305, section 5: never below.
const MIN_DELAY: Duration = Duration::from_millis(10);
