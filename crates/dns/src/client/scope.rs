//! Sockets with the scope of an IPv6 name server, which hickory's addresses lack.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use tokio::net::UdpSocket;

/// Tokio's sockets, whose packets leave through the interface with the number `scope`.
#[derive(Clone, Default)]
pub(super) struct ScopedRuntime {
    tokio: TokioRuntimeProvider,
    scope: u32,
}

pub(super) struct ScopedSocket {
    socket: UdpSocket,
    scope: u32,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl ScopedRuntime {
    pub(super) fn to(server: SocketAddr) -> Self {
        let scope = match server {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(server) => server.scope_id(),
        };
        Self { tokio: TokioRuntimeProvider::default(), scope }
    }
}

impl RuntimeProvider for ScopedRuntime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = ScopedSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> BoxFuture<Self::Tcp> {
        self.tokio.connect_tcp(scoped(server, self.scope), bind, timeout)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> BoxFuture<Self::Udp> {
        let (bound, scope) = (self.tokio.bind_udp(local, server), self.scope);
        Box::pin(async move { Ok(ScopedSocket { socket: bound.await?, scope }) })
    }
}

impl DnsUdpSocket for ScopedSocket {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        packet: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, packet, scoped(target, self.scope))
    }
}

fn scoped(mut address: SocketAddr, scope: u32) -> SocketAddr {
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(scope);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_that_of_the_server() {
        let server: SocketAddr = "[fe80::1%7]:53".parse().expect("an address");
        let runtime = ScopedRuntime::to(server);
        let of_hickory = SocketAddr::new(server.ip(), server.port());
        assert_ne!(of_hickory, server, "it has no scope");
        assert_eq!(scoped(of_hickory, runtime.scope), server);
        let server = SocketAddr::from(([10, 0, 0, 1], 53));
        assert_eq!(scoped(server, ScopedRuntime::to(server).scope), server);
    }
}
