use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tonic::Status;
use tower_sd_http::{InFlightBody, ResponseBody};

use crate::{code, deadline::Deadline};

/// The body of an answer: the messages, and the trailers with the status.
///
/// The default is empty: what an interceptor's refusal is made of.
#[derive(Default)]
pub struct GrpcBody {
    /// Read before the caller polled.
    ahead: VecDeque<Frame<Bytes>>,
    rest: Option<InFlightBody<ResponseBody<tonic::body::Body>>>,
    deadline: Option<(Deadline, Pin<Box<Sleep>>)>,
}

impl GrpcBody {
    pub(crate) fn new(
        rest: InFlightBody<ResponseBody<tonic::body::Body>>,
        deadline: Option<Deadline>,
    ) -> Self {
        let deadline = deadline.map(|deadline| (deadline, Box::pin(sleep_until(deadline.at()))));
        Self { ahead: VecDeque::new(), rest: Some(rest), deadline }
    }

    /// Reads the answer to its end, and returns the trailers, which may be missing; of an answer
    /// that is longer than [`AHEAD`], only so much.
    pub(crate) async fn read_ahead(&mut self) -> Result<Option<HeaderMap>, Status> {
        let mut n_read = 0;
        while n_read <= AHEAD {
            let Some(frame) = poll_fn(|cx| self.poll_rest(cx)).await else {
                return Ok(Some(HeaderMap::new()));
            };
            let frame = frame?;
            n_read += frame.data_ref().map_or(0, Bytes::len);
            let trailers = frame.trailers_ref().cloned();
            self.ahead.push_back(frame);
            if trailers.is_some() {
                return Ok(trailers);
            }
        }
        Ok(None)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let Some((deadline, timer)) = &mut self.deadline else {
            return Pin::new(rest).poll_frame(cx).map_err(code::of_exchange);
        };
        // First: a server that is faster than the reader has a frame ready each time.
        if timer.as_mut().poll(cx).is_pending() {
            let frame = ready!(Pin::new(rest).poll_frame(cx).map_err(code::of_exchange));
            let code = match &frame {
                Some(Ok(frame)) => frame.trailers_ref().and_then(code::code),
                Some(Err(status)) => Some(status.code()),
                None => None,
            };
            if !deadline.explains(code) {
                return Poll::Ready(frame);
            }
        }
        let status = deadline.status();
        // Frees its place on the connection, though the answer may be kept.
        self.rest = None;
        Poll::Ready(Some(Err(status)))
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => this.poll_rest(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

impl fmt::Debug for GrpcBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcBody")
            .field("ahead", &self.ahead.len())
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

/// More than most answers, and little enough to hold for each call in flight.
const AHEAD: usize = 64 * 1024;
