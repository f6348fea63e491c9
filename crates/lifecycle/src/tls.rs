//! TLS on accepted connections: the handshake runs with the first read or write.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_sd_net::TlsServer;

use crate::connection::{Duplex, Stream};

/// A connection with TLS, or in its handshake.
pub(crate) struct TlsStream {
    state: State,
    peer: Option<SocketAddr>,
}

enum State {
    Handshake(BoxFuture<'static, io::Result<Stream>>),
    Open(Stream),
    Failed,
}

impl TlsStream {
    pub(crate) fn new(
        stream: Stream,
        tls: &TlsServer,
        alpn: &Arc<[Vec<u8>]>,
        peer: Option<SocketAddr>,
    ) -> Self {
        let (tls, alpn) = (tls.clone(), Arc::clone(alpn));
        let handshake = async move {
            let alpn = alpn.iter().map(Vec::as_slice).collect::<Vec<_>>();
            let accepted = tls.accept(stream, &alpn).await?;
            Ok(Box::pin(accepted) as Stream)
        };
        Self { state: State::Handshake(handshake.boxed()), peer }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Duplex>>> {
        if let State::Handshake(handshake) = &mut self.state {
            self.state = match ready!(handshake.as_mut().poll(context)) {
                Ok(stream) => State::Open(stream),
                Err(error) => {
                    tracing::debug!(peer = ?self.peer, %error, "TLS handshake failed");
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(stream.as_mut()),
            State::Handshake(_) | State::Failed => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.get_mut().poll_open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.get_mut().poll_open(context))?.poll_write(context, bytes)
    }

    /// Nothing is written before the end of the handshake, which must not delay that of a server.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            State::Open(stream) => stream.as_mut().poll_flush(context),
            State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    /// A handshake is given up.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            State::Open(stream) => stream.as_mut().poll_shutdown(context),
            state @ (State::Handshake(_) | State::Failed) => {
                *state = State::Failed;
                Poll::Ready(Ok(()))
            }
        }
    }
}
