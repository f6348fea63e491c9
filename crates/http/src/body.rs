use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_sd_balance::BoxError;

use crate::{
    HeadersTooLarge, HttpError, HttpErrorKind,
    pool::{Connection, Settings, Upload},
};

/// A response body that holds its connection.
///
/// Read to its end, the connection is used again. Dropped before, a rest of at most 64 KiB, by its
/// announced length, is read for 100 ms; otherwise, and after an error, the connection is closed. A
/// request body that is still sent at the end is sent to its own end first. In HTTP/2 it holds a
/// place on its connection instead, and an early end concerns this request alone: it is reset, as
/// soon as its body can be.
///
/// The default is empty, for layers that answer in place of the instance.
pub struct ResponseBody<B: Send + 'static> {
    incoming: Option<Incoming>,
    connection: Option<Connection<B>>,
    upload: Option<Upload>,
    max_header_size: u32,
    timers: Option<Box<Timers>>,
}

struct Timers {
    read_timeout: Option<Duration>,
    /// Runs while a frame is waited for.
    patience: Option<Pin<Box<Sleep>>>,
    /// Of the whole request.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B: Send + 'static> ResponseBody<B> {
    pub(crate) fn new(
        incoming: Incoming,
        connection: Connection<B>,
        upload: Option<Upload>,
        settings: &Settings,
        deadline: Option<Instant>,
    ) -> Self {
        let mut body = Self {
            incoming: Some(incoming),
            connection: Some(connection),
            upload,
            max_header_size: settings.max_header_size,
            timers: Timers::new(settings.read_timeout, deadline).map(Box::new),
        };
        body.give_back_at_end();
        body
    }

    /// A reader that has the length does not come back for the end, so this reads ahead.
    fn give_back_at_end(&mut self) {
        if self.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match self.upload.take() {
            Some(upload) => upload.park(connection.into_unused()),
            None => connection.give_back(),
        }
    }

    /// hyper reports a stream that was reset without an error code as ended.
    fn is_broken_off(&self) -> bool {
        let announced = self.connection.as_ref().is_some_and(Connection::is_end_announced);
        announced && !self.is_end_stream()
    }

    fn fail(&mut self, kind: HttpErrorKind, error: impl Into<BoxError>) -> Option<HttpError> {
        let upload = self.upload.take();
        let has_failed = upload.as_ref().is_some_and(Upload::has_failed);
        let kind = if has_failed { HttpErrorKind::Request } else { kind };
        let connection = self.connection.take()?;
        let error = connection.error(kind, error);
        connection.give_up(upload);
        Some(error)
    }

    fn time_out(&mut self, error: impl Into<BoxError>) -> Option<HttpError> {
        self.incoming = None;
        self.fail(HttpErrorKind::BodyTimeout, error)
    }
}

impl Timers {
    fn new(read_timeout: Option<Duration>, deadline: Option<Instant>) -> Option<Self> {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let is_bounded = read_timeout.is_some() || deadline.is_some();
        is_bounded.then_some(Self { read_timeout, patience: None, deadline })
    }

    /// Whether the deadline of the request has passed.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    /// The reason why a frame is not waited for any longer.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let Some(bound) = self.read_timeout else {
            return Poll::Pending;
        };
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(bound)));
        patience.as_mut().poll(cx).map(|()| format!("nothing within {bound:?}"))
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
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        if this.timers.as_mut().is_some_and(|timers| timers.is_over(cx)) {
            return Poll::Ready(this.time_out("no end by the deadline of the request").map(Err));
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            let Some(timers) = &mut this.timers else {
                return Poll::Pending;
            };
            let error = ready!(timers.poll_stalled(cx));
            return Poll::Ready(this.time_out(error).map(Err));
        };
        if let Some(timers) = &mut this.timers {
            timers.patience = None;
        }
        let frame = match frame {
            Some(Ok(frame)) => {
                let limit = this.max_header_size;
                let found = frame.trailers_ref().and_then(|t| HeadersTooLarge::of(None, t, limit));
                if let Some(found) = found {
                    return Poll::Ready(this.fail(HttpErrorKind::Headers, found).map(Err));
                }
                this.give_back_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => this.fail(HttpErrorKind::Body, error).map(Err),
            None if this.is_broken_off() => {
                this.fail(HttpErrorKind::Body, "reset before its end").map(Err)
            }
            None => {
                this.give_back();
                None
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Send + 'static> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        let short = |rest: &Incoming| rest.size_hint().upper().is_some_and(|n| n <= SHORT);
        match (self.incoming.take().filter(short), self.connection.take(), self.upload.take()) {
            (Some(rest), Some(Connection::Http1(exclusive)), None) => exclusive.drain(rest),
            (_, Some(connection), upload) => connection.give_up(upload),
            (_, None, _) => {}
        }
    }
}

/// Of the answer of a server that is busy or refuses: reading it costs less than a handshake.
const SHORT: u64 = 64 << 10;

impl<B: Send + 'static> Default for ResponseBody<B> {
    fn default() -> Self {
        Self {
            incoming: None,
            connection: None,
            upload: None,
            max_header_size: u32::MAX,
            timers: None,
        }
    }
}

impl<B: Send + 'static> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("incoming", &self.incoming)
            .field("ended", &self.connection.is_none())
            .finish_non_exhaustive()
    }
}
