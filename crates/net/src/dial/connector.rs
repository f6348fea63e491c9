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
    /// Defaults to the operating system's resolver, on a thread of the runtime: a lookup that hangs
    /// goes on after its caller's timeout, and the end of the runtime waits for it. End a runtime
    /// by `shutdown_timeout` where that matters.
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
        if is_itself(&stream) {
            // Frees the port of the server, which may be about to listen again.
            let _is_gone = stream.set_zero_linger();
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.tune(&stream, address);
        Ok(Io::Tcp(stream))
    }
}

/// The system has taken the address of a server of this machine that does not listen for the own
/// one (RFC 9293 §3.5, simultaneous open).
fn is_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(peer)) if own == peer)
}

impl Tcp {
    /// Some systems lack an option, and a peer may be gone already: no reason to fail, nor to leave
    /// out the others.
    fn tune(self, stream: &TcpStream, address: SocketAddr) {
        let log = |option: &str, set: io::Result<()>| {
            if let Err(error) = set {
                tracing::debug!(%address, option, %error, "socket option not set");
            }
        };
        // A request is written in one piece; waiting for more would only delay it.
        log("no delay", stream.set_nodelay(true));
        let socket = SockRef::from(stream);
        if let Some(interval) = self.keepalive {
            // The kernel counts in whole seconds, and refuses 0 and more than 15 bits.
            let interval = interval.clamp(Duration::from_secs(1), MAX_KEEPALIVE);
            let keepalive = TcpKeepalive::new().with_time(interval);
            #[cfg(not(any(target_os = "openbsd", target_os = "haiku", target_os = "vita")))]
            let keepalive = keepalive.with_interval(interval);
            log("keepalive", socket.set_tcp_keepalive(&keepalive));
        }
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        {
            // The kernel counts in milliseconds, of which 0 is its own default.
            let user_timeout =
                self.user_timeout.map(|it| it.clamp(Duration::from_millis(1), MAX_USER_TIMEOUT));
            log("user timeout", socket.set_tcp_user_timeout(user_timeout));
        }
    }
}

const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn keepalive_of_any_length_loses_no_option() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let user_timeout = Some(Duration::from_secs(30));
        for (keepalive, set) in [(0, 1), (500, 1), (5_000, 5), (u64::MAX, 32_767)]
            .map(|(ms, s)| (Duration::from_millis(ms), Duration::from_secs(s)))
        {
            let stream = TcpStream::connect(address).await.expect("connects");
            Tcp { keepalive: Some(keepalive), user_timeout }.tune(&stream, address);
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_keepalive_time().expect("set"), set, "{keepalive:?}");
            assert_eq!(socket.tcp_user_timeout().expect("set"), user_timeout);
        }
        for (timeout, set) in [(Duration::ZERO, 1), (Duration::MAX, 2_147_483_647)] {
            let stream = TcpStream::connect(address).await.expect("connects");
            Tcp { keepalive: None, user_timeout: Some(timeout) }.tune(&stream, address);
            let expected = Some(Duration::from_millis(set));
            assert_eq!(SockRef::from(&stream).tcp_user_timeout().expect("set"), expected);
        }
    }

    #[tokio::test]
    async fn connection_of_a_socket_to_itself_is_known() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
        let address = socket.local_addr().expect("bound");
        let stream = socket.connect(address).await.expect("a simultaneous open");
        assert!(is_itself(&stream));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        assert!(!is_itself(&TcpStream::connect(address).await.expect("connects")));
    }
}
