use std::{fmt, io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tower_sd_core::async_trait;

use crate::{Io, Target};

/// The network below a [`Dialer`](crate::Dialer): resolution and sockets.
///
/// Defaults to the operating system's. Another one stands for a simulated network, a proxy, a
/// resolver. A proxy returns its own address from `resolve`, and requests `target` in `connect`.
/// TLS is used over the stream that `connect` returns.
///
/// # Cancel safety
///
/// Futures of both methods are dropped when another address has won, or at the connect timeout.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Returns the addresses of a host, the preferred ones first.
    ///
    /// Defaults to the operating system's resolver.
    ///
    /// # Errors
    ///
    /// The host has no addresses, or none could be found out.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }

    /// Connects to one address of `target`.
    ///
    /// # Errors
    ///
    /// No connection could be made.
    async fn connect(&self, target: &Target, address: SocketAddr) -> io::Result<Io>;
}

/// TCP by the operating system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
}

#[async_trait]
impl Connector for Tcp {
    async fn connect(&self, _target: &Target, address: SocketAddr) -> io::Result<Io> {
        let stream = TcpStream::connect(address).await?;
        if let Err(error) = self.tune(&stream) {
            // Some systems lack an option, and a peer may be gone already: no reason to fail.
            tracing::debug!(%address, %error, "socket option not set");
        }
        Ok(Io::Tcp(stream))
    }
}

impl Tcp {
    fn tune(self, stream: &TcpStream) -> io::Result<()> {
        // A request is written in one piece; waiting for more would only delay it.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(interval) = self.keepalive {
            let keepalive = TcpKeepalive::new().with_time(interval);
            #[cfg(not(any(target_os = "openbsd", target_os = "haiku", target_os = "vita")))]
            let keepalive = keepalive.with_interval(interval);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        Ok(())
    }
}
