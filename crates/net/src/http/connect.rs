//! The glue between the dialer and hyper-util's pool.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{Extensions, Uri};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, ReadBuf};
use tower_sd_core::TaskGroup;
use tower_service::Service;

use super::versions::{HTTP_2, HttpVersions};
use crate::{DialError, Dialer, Io, Target, TlsClient, TlsFailure};

/// Connects to one target, whatever the URI.
#[derive(Clone, Debug)]
pub(super) struct Connect(pub(super) Arc<Settings>);

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) dialer: Dialer,
    pub(super) target: Target,
    pub(super) tls: Option<TlsClient>,
    pub(super) versions: HttpVersions,
}

/// The TLS failure that ended a connection: hyper reports it to no request.
///
/// Part of the connection's metadata, which errors and responses carry.
#[derive(Clone, Debug, Default)]
pub(super) struct EndedBy(Arc<Mutex<Option<TlsFailure>>>);

/// A connection of HTTP/1.1 or HTTP/2.
pub(super) struct Stream {
    ended_by: EndedBy,
    io: TokioIo<Io>,
    is_http2: bool,
    /// The error of a write whose reason is being read.
    failed_write: Option<io::Error>,
}

/// Runs the connections' tasks, which end with their client.
#[derive(Clone, Debug)]
pub(super) struct Owned(pub(super) TaskGroup);

impl Service<Uri> for Connect {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let settings = Arc::clone(&self.0);
        Box::pin(async move {
            let Settings { dialer, target, tls, versions, .. } = &*settings;
            let connection = dialer.dial(target, tls.as_ref(), versions.alpn()).await?;
            let is_http2 = connection.alpn.as_deref() == Some(HTTP_2);
            let (ended_by, io) = (EndedBy::default(), TokioIo::new(connection.io));
            Ok(Stream { ended_by, io, is_http2, failed_write: None })
        })
    }
}

impl EndedBy {
    /// The failure of the connection that a request has used.
    pub(super) fn of(connection: Option<&Connected>) -> Option<TlsFailure> {
        let mut extensions = Extensions::new();
        connection?.get_extras(&mut extensions);
        Self::found_in(&extensions)
    }

    /// The failure of the connection of a response.
    pub(super) fn found_in(extensions: &Extensions) -> Option<TlsFailure> {
        let Self(failure) = extensions.get()?;
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().and_then(|failure| TlsFailure::find(failure))
    }

    fn set(&self, failure: TlsFailure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.ended_by.clone());
        if self.is_http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Stream {
    /// Keeps the reason of a failed read.
    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(failure) = TlsFailure::find(error)
        {
            self.ended_by.set(failure);
        }
        polled
    }

    /// Reads the reason of a failed write.
    ///
    /// A server that refuses a client sends an alert before it closes. A socket whose write has
    /// failed is at its end, so that the read ends too.
    fn explained<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let failed = match (self.failed_write.take(), polled) {
            (Some(failed), _) | (None, Poll::Ready(Err(failed))) => failed,
            (None, polled) => return polled,
        };
        let mut rest = [0; 64];
        let read = Pin::new(self.io.inner_mut()).poll_read(cx, &mut ReadBuf::new(&mut rest));
        match self.noted(read) {
            Poll::Ready(_) => Poll::Ready(Err(failed)),
            Poll::Pending => {
                self.failed_write = Some(failed);
                Poll::Pending
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.noted(read)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.explained(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.explained(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.explained(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Owned {
    fn execute(&self, future: F) {
        self.0.spawn(|stop| async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = future => {}
            }
        });
    }
}
