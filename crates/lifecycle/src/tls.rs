//! TLS on accepted connections: the handshake runs with the first read or write.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_sd_net::{Io, TlsServer};

use crate::socket::{Socket, no_address};

/// A connection with TLS, or in its handshake.
pub(crate) struct TlsSocket {
    state: State,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

enum State {
    Handshake(BoxFuture<'static, io::Result<Io>>),
    Open(Io),
    Failed,
}

impl TlsSocket {
    pub(crate) fn new(socket: Socket, tls: &TlsServer) -> Self {
        let (peer, local) = (socket.peer_addr().ok(), socket.local_addr().ok());
        let tls = tls.clone();
        let handshake =
            async move { tls.accept(socket, &[b"h2", b"http/1.1"]).await.map(Io::boxed) };
        Self { state: State::Handshake(handshake.boxed()), peer, local }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.peer.ok_or_else(no_address)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local.ok_or_else(no_address)
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Io>>> {
        if let State::Handshake(handshake) = &mut self.state {
            self.state = match ready!(handshake.as_mut().poll(context)) {
                Ok(io) => State::Open(io),
                Err(error) => {
                    tracing::debug!(%error, peer = ?self.peer, "TLS handshake failed");
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match &mut self.state {
            State::Open(io) => Ok(Pin::new(io)),
            State::Handshake(_) | State::Failed => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.get_mut().poll_open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.get_mut().poll_open(context))?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.get_mut().poll_open(context))?.poll_flush(context)
    }

    /// A handshake is given up.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            State::Open(io) => Pin::new(io).poll_shutdown(context),
            State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("peer", &self.peer).finish_non_exhaustive()
    }
}
