use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower_sd::BoxError;

use crate::{HttpError, HttpErrorKind, pool::Connection};

/// A response body that holds its connection.
///
/// Read to its end, the connection is used again; dropped before, or after an error, the connection is closed. In HTTP/2
/// it holds a place on its connection instead, and what ends early is this response alone.
pub struct ResponseBody<B: Send + 'static> {
    incoming: Incoming,
    connection: Option<Connection<B>>,
}

impl<B: Send + 'static> ResponseBody<B> {
    pub(crate) fn new(incoming: Incoming, connection: Connection<B>) -> Self {
        let mut body = Self { incoming, connection: Some(connection) };
        body.give_back_at_end();
        body
    }

    /// A reader that knows the length does not come back for the end, so this looks ahead.
    fn give_back_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }

    /// hyper reports a stream that was reset without an error code as ended.
    fn is_broken_off(&self) -> bool {
        let announced = self.connection.as_ref().is_some_and(Connection::is_end_announced);
        announced && !self.incoming.is_end_stream()
    }

    fn cut_short(&mut self, error: impl Into<BoxError>) -> Option<HttpError> {
        let connection = self.connection.take()?;
        Some(connection.error(HttpErrorKind::Body, error))
    }
}

impl<B: Send + 'static> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let frame = match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.give_back_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => this.cut_short(error).map(Err),
            None if this.is_broken_off() => this.cut_short("reset before its end").map(Err),
            None => {
                this.give_back();
                None
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B: Send + 'static> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("incoming", &self.incoming)
            .field("ended", &self.connection.is_none())
            .finish()
    }
}
