//! The glue between the dialer and hyper-util's pool.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tower_sd_core::Tasks;
use tower_service::Service;

use super::client::HttpVersions;
use crate::{DialError, Dialer, Io, Target, TlsClient};

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

/// A connection, and whether it speaks HTTP/2.
pub(super) struct Stream {
    io: TokioIo<Io>,
    is_http2: bool,
}

/// Runs the connections' tasks, which end with their client.
#[derive(Clone, Debug)]
pub(super) struct Owned(pub(super) Tasks);

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
            let Settings { dialer, target, tls, versions } = &*settings;
            let connection = dialer.dial(target, tls.as_ref(), versions.alpn()).await?;
            let is_http2 = connection.alpn.as_deref() == Some(HTTP_2);
            Ok(Stream { io: TokioIo::new(connection.io), is_http2 })
        })
    }
}

impl HttpVersions {
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[HTTP_1],
            Self::Http2OrHttp1 => &[HTTP_2, HTTP_1],
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.is_http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
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

/// Their names in ALPN (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";
