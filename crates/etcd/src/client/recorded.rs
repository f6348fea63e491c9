use std::{
    io::Result,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_sd_net::{Io, TlsFailure};

use crate::error::NO_ETCD;

/// The reason for the end of a connection, in words, where its stream shows one.
///
/// In TLS 1.3 a server refuses a client certificate after the client's half of the handshake. The
/// refusal is read by the task of the connection; its requests only observe that it is gone.
#[derive(Clone, Default)]
pub(super) struct EndReason(Arc<OnceLock<String>>);

/// A byte stream that records the reason for its end.
pub(super) struct Recorded {
    io: Io,
    has_read: bool,
    reason: EndReason,
}

impl EndReason {
    pub(super) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn set(&self, reason: impl Into<String>) {
        self.0.set(reason.into()).ok();
    }
}

impl Recorded {
    pub(super) fn new(io: Io, reason: EndReason) -> Self {
        Self { io, has_read: false, reason }
    }

    fn recorded<T>(&self, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(failure) = TlsFailure::find(error)
        {
            self.reason.set(failure.to_string());
        }
        result
    }

    /// Reads the first bytes of the other side.
    fn look(&mut self, bytes: &[u8]) {
        if !self.has_read && bytes.starts_with(b"HTTP/1.") {
            self.reason.set(NO_ETCD);
        }
        self.has_read |= !bytes.is_empty();
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let n_before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.look(&buffer.filled()[n_before..]);
        self.recorded(result)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        if matches!(result, Poll::Ready(Err(_))) {
            // The last bytes of the other side have not been read yet. They, or the error of the
            // connection, are there as soon as the runtime has noticed.
            let mut last = [0; 16];
            let mut last = ReadBuf::new(&mut last);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut last));
            self.look(last.filled());
            let _its_end = self.recorded(Poll::Ready(read));
        }
        self.recorded(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.recorded(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
