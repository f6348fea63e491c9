use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::timer::{Counters, Timer};

/// The body of a response below a [`DeadlineLayer`](super::DeadlineLayer).
///
/// That of a gRPC call ends with the call's deadline, in DEADLINE_EXCEEDED; any other is passed on
/// as it is.
#[pin_project]
#[derive(Debug)]
pub struct DeadlineBody<B> {
    /// `None`: its time is over.
    #[pin]
    inner: Option<B>,
    bound: Option<(Timer, Arc<Counters>)>,
}

impl<B> DeadlineBody<B> {
    /// Without a bound.
    pub(super) fn new(inner: B) -> Self {
        Self { inner: Some(inner), bound: None }
    }

    pub(super) fn bounded(inner: B, timer: Timer, counters: Arc<Counters>) -> Self {
        Self { inner: Some(inner), bound: Some((timer, counters)) }
    }

    /// That of a response that comes too late.
    pub(super) fn empty() -> Self {
        Self { inner: None, bound: None }
    }
}

/// DEADLINE_EXCEEDED.
pub(super) fn write_status(headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from_static("4"));
    headers.insert("grpc-message", HeaderValue::from_static("the deadline of the call is over"));
}

impl<B: Body> Body for DeadlineBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some((timer, counters)) = this.bound else {
            return inner.poll_frame(cx);
        };
        // First: a stream that is always ready must not outrun it.
        if timer.poll(cx).is_pending() {
            return timer.deadline().enter(|| inner.poll_frame(cx));
        }
        // Drops what works on it.
        this.inner.set(None);
        counters.cancelled();
        let mut trailers = HeaderMap::new();
        write_status(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
