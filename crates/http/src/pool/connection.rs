use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_sd_balance::BoxError;

use super::{Settings, Target, Upload, framing, http1::Exclusive, http2::Stream};
use crate::{
    HttpError, HttpErrorKind,
    host::{to_http1, to_http2},
};

/// The right to send one request. Dropped, it is given up; [`give_back`](Self::give_back) keeps
/// what it holds for the next request.
pub(crate) enum Connection<B: Send + 'static> {
    /// A connection that no other request uses.
    Http1(Box<Exclusive<B>>),
    /// A place on a connection that many requests use.
    Http2(Stream<B>),
}

/// A connection that carries no request of its owner. Dropped, it is given back.
pub(crate) struct Unused<B: Send + 'static>(Option<Connection<B>>);

/// The outcome of waiting for a connection.
pub(crate) type Obtained<B> = Result<Unused<B>, HttpError>;

impl<B: Send + 'static> Unused<B> {
    pub(super) fn new(connection: Connection<B>) -> Self {
        Self(Some(connection))
    }

    /// The connection; `None` is impossible before the drop.
    pub(crate) fn take(mut self) -> Option<Connection<B>> {
        self.0.take()
    }

    pub(super) fn as_mut(&mut self) -> Option<&mut Connection<B>> {
        self.0.as_mut()
    }

    /// Whether it takes no request any more: it is closed, or was idle for too long.
    pub(super) fn is_over(&self, settings: &Settings) -> bool {
        self.0.as_ref().is_none_or(|connection| match connection {
            Connection::Http1(exclusive) => {
                let now = Instant::now();
                // A new one has to serve a request first.
                let is_old = exclusive.reused && exclusive.expires(now, settings) <= now;
                is_old || exclusive.sender.is_closed()
            }
            Connection::Http2(stream) => stream.sender.is_closed(),
        })
    }
}

impl<B: Send + 'static> Drop for Unused<B> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.give_back();
        }
    }
}

impl<B: Send + 'static> Connection<B> {
    /// Whether it has carried a request before: then the server may be closing it at this moment.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(exclusive) => exclusive.reused,
            Self::Http2(stream) => stream.reused,
        }
    }

    /// Whether a body can end without its end having been announced: HTTP/2 has a reset that means
    /// "no more of the request is needed" (RFC 9113 §8.1), and hyper takes it for the end of the
    /// response.
    pub(crate) fn is_end_announced(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Reads what the server announces about the connection.
    pub(crate) fn observe<T>(&mut self, response: &Response<T>) {
        if let Self::Http1(exclusive) = self {
            exclusive.observe(response.headers());
        }
    }

    /// Gives the request the form of the connection's protocol.
    pub(crate) fn adapt(&self, request: &mut Request<impl Body>) {
        match self {
            Self::Http1(_) => {
                to_http1(request);
                let body = Some(request.body());
                if let Some((name, value)) = framing(request.method(), request.headers(), body) {
                    request.headers_mut().insert(name, value);
                }
            }
            Self::Http2(stream) => to_http2(request, stream.target().scheme()),
        }
    }

    pub(crate) fn error(&self, kind: HttpErrorKind, source: impl Into<BoxError>) -> HttpError {
        HttpError::new(kind, &self.target().address, source)
    }

    pub(crate) fn into_unused(self) -> Unused<B> {
        Unused::new(self)
    }

    pub(crate) fn give_back(self) {
        match self {
            Self::Http1(exclusive) => exclusive.give_back(),
            Self::Http2(stream) => drop(stream),
        }
    }

    /// Gives it up with its response. Over HTTP/2 the server learns of that when the request's body
    /// has ended, too, and only then the place is free.
    pub(crate) fn give_up(self, upload: Option<Upload>) {
        if let (Self::Http2(stream), Some(upload)) = (self, upload) {
            upload.abort();
            upload.park(stream);
        }
    }

    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Http1(exclusive) => &exclusive.target,
            Self::Http2(stream) => stream.target(),
        }
    }
}
