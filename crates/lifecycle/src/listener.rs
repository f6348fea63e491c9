use std::{future::pending, io, net::SocketAddr, path::PathBuf, time::Duration};

use futures_core::Stream as Incoming;
use futures_util::stream::unfold;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    time::{sleep, timeout},
};
use tokio_util::sync::DropGuard;

use crate::{
    Connection,
    connection::{Addresses, Connections, Stream},
};

/// A TCP port or a unix socket, whose connections are counted and can be aborted.
///
/// Servers spawn a task per connection and keep no handle of it. Without this type, a request that
/// never ends would live as long as the process. A socket file belongs to the program, which
/// removes it.
#[derive(Debug)]
#[must_use = "a listener that is dropped is closed"]
pub struct Listener {
    /// `None` when it accepts no more.
    socket: Option<Socket>,
    #[cfg(feature = "tls")]
    tls: Option<tower_sd_net::TlsServer>,
    #[cfg(feature = "tls")]
    alpn: std::sync::Arc<[Vec<u8>]>,
    connections: Connections,
    _closed_on_drop: DropGuard,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Listens on `address`.
    ///
    /// Up to 4 096 connections wait to be accepted, or fewer by a limit of the system
    /// (`net.core.somaxconn`).
    ///
    /// # Errors
    ///
    /// The system's, for example of a port in use.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        // A system that cannot change it keeps tokio's 1 024.
        let _kept = SockRef::from(&listener).listen(BACKLOG);
        Ok(listener.into())
    }

    fn new(socket: Socket) -> Self {
        let connections = Connections::new();
        let _closed_on_drop = connections.closed.clone().drop_guard();
        Self {
            socket: Some(socket),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            alpn: [b"h2".to_vec(), b"http/1.1".to_vec()].into(),
            connections,
            _closed_on_drop,
        }
    }

    /// Requires TLS of every connection, with the certificate of `config`.
    ///
    /// The identity of `config` is the server's. Its authorities, if any, are those of the clients,
    /// which must then present a certificate. Files that are replaced are used for new connections;
    /// see [`TlsServer`](tower_sd_net::TlsServer). A handshake delays no other connection.
    ///
    /// # Errors
    ///
    /// `Config` without an identity, and for files that cannot be used.
    #[cfg(feature = "tls")]
    pub fn tls(self, config: tower_sd_core::TlsConfig) -> tower_sd_core::Result<Self> {
        Ok(Self { tls: Some(tower_sd_net::TlsServer::new(config)?), ..self })
    }

    /// Sets the protocols that TLS agrees to (ALPN, RFC 7301); the first is preferred.
    ///
    /// Defaults to `h2` and `http/1.1`, for servers of both, such as `serve_axum`. A client that
    /// offers none of them is refused; one without ALPN is accepted.
    #[cfg(feature = "tls")]
    pub fn alpn(self, protocols: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self { alpn: protocols.into_iter().map(Into::into).collect(), ..self }
    }

    /// Returns the local address.
    ///
    /// # Errors
    ///
    /// The system's, `Unsupported` for a unix socket, and `NotConnected` after the listener was
    /// closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Some(Socket::Tcp(listener)) => listener.local_addr(),
            #[cfg(unix)]
            Some(Socket::Unix(_)) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no IP address: the listener has a unix socket",
            )),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The absolute path of a unix socket.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self.socket.as_ref()? {
            Socket::Tcp(_) => None,
            #[cfg(unix)]
            Socket::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                std::path::absolute(address.as_pathname()?).ok()
            }
        }
    }

    pub(crate) fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Waits for the next connection; without bound after the end of accepting.
    ///
    /// The address is the peer's; a peer at a unix socket has none. The error of one connection is
    /// skipped. Without a free descriptor the listener waits for a second: another connection must
    /// end first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn accept(&mut self) -> (Connection, Option<SocketAddr>) {
        while let Some(socket) = &self.socket {
            let closing = &self.connections.closing;
            let accepted = if closing.is_cancelled() {
                // Connections that the system has accepted would be reset by the listener's end.
                let Ok(accepted) = timeout(LAST_COMES, socket.accept()).await else {
                    self.socket = None;
                    self.connections.closed.cancel();
                    break;
                };
                accepted
            } else {
                tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = closing.cancelled() => continue,
                }
            };
            match accepted {
                Ok((stream, addresses)) => {
                    let stream = self.secured(stream, addresses);
                    return (self.connections.add(stream, addresses), addresses.peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "connection not accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        pending().await
    }

    /// Returns the connections as an endless stream.
    ///
    /// `serve_with_incoming_shutdown` of tonic takes it.
    pub fn incoming(self) -> impl Incoming<Item = io::Result<Connection>> + Send {
        unfold(self, |mut listener| async move {
            let (connection, _peer) = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }

    #[cfg_attr(
        not(feature = "tls"),
        expect(
            clippy::unused_self,
            unused_variables,
            reason = "without TLS there are no settings"
        )
    )]
    fn secured(&self, stream: Stream, addresses: Addresses) -> Stream {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Box::pin(crate::tls::TlsStream::new(stream, tls, &self.alpn, addresses.peer));
        }
        stream
    }
}

impl Socket {
    /// Cancel safe.
    async fn accept(&self) -> io::Result<(Stream, Addresses)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%error, "socket option not set");
                }
                let addresses = Addresses { peer: Some(peer), local: stream.local_addr().ok() };
                Ok((Box::pin(stream), addresses))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((Box::pin(stream), Addresses { peer: None, local: None }))
            }
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Responses are small and complete: otherwise each waits for the last one's acknowledgement.
    stream.set_nodelay(true)?;
    // Connections of clients that are gone would pile up. No user timeout: Linux ends by it those
    // of clients that live and read nothing for so long, too.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let keepalive = keepalive.with_interval(KEEPALIVE).with_retries(N_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::new(Socket::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixListener> for Listener {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self::new(Socket::Unix(listener))
    }
}

/// The peer was gone before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Long enough for a poll of the system; shorter than the gaps between a busy server's connections,
/// which would never let the accepting end.
const LAST_COMES: Duration = Duration::from_millis(1);
/// Linux's own limit since 5.4. A connection that finds no place is established for its client, and
/// reset with its request when the listener is closed.
const BACKLOG: i32 = 4_096;
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// Firewalls forget connections that are silent for minutes.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// So many without an answer end an idle connection, after 45 s in all.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const N_PROBES: u32 = 2;

#[cfg(test)]
mod tests;
