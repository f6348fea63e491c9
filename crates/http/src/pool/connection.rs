use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::sync::OwnedSemaphorePermit;
use tower_sd::BoxError;

use super::{Target, http1::Exclusive, http2::Stream};
use crate::{
    HttpError, HttpErrorKind,
    host::{to_http1, to_http2},
};

/// The right to send one request. Dropped, it is given up; [`give_back`](Self::give_back) keeps what it holds for the
/// next request.
pub(crate) enum Connection<B: Send + 'static> {
    /// A connection that nobody else uses.
    Http1(Exclusive<B>),
    /// A place on a connection that many use.
    Http2(Stream<B>),
}

/// What comes of waiting for a connection. `None`: the server has chosen HTTP/1.1, which is waited for elsewhere.
pub(crate) type Dialled<B> = Result<Option<Connection<B>>, HttpError>;

impl<B: Send + 'static> Connection<B> {
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(exclusive) => exclusive.sender.is_closed(),
            Self::Http2(stream) => stream.sender.is_closed(),
        }
    }

    /// Whether it has already carried a request: then the server may be closing it just now.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(exclusive) => exclusive.reused,
            Self::Http2(stream) => stream.reused,
        }
    }

    /// Whether a body can end without its end having been announced: HTTP/2 has a reset that means "I need no more of
    /// your request" (RFC 9113 §8.1), and hyper takes it for the end of the response.
    pub(crate) fn is_end_announced(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    pub(crate) fn error(&self, kind: HttpErrorKind, source: impl Into<BoxError>) -> HttpError {
        HttpError::new(kind, &self.target().address, source)
    }

    pub(crate) fn give_back(self) {
        match self {
            Self::Http1(exclusive) => exclusive.give_back(),
            Self::Http2(stream) => drop(stream),
        }
    }

    /// Ends it, and hands on its place among those of HTTP/1.1.
    pub(crate) fn leave(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Http1(exclusive) => exclusive.place,
            Self::Http2(_) => None,
        }
    }

    fn target(&self) -> &Target {
        match self {
            Self::Http1(exclusive) => &exclusive.target,
            Self::Http2(stream) => stream.target(),
        }
    }
}

impl<B: Body + Send + 'static> Connection<B> {
    pub(crate) async fn send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match self {
            Self::Http1(exclusive) => {
                to_http1(&mut request);
                exclusive.sender.try_send_request(request).await
            }
            Self::Http2(stream) => {
                to_http2(&mut request, stream.target().scheme());
                stream.sender.try_send_request(request).await
            }
        }
    }
}
