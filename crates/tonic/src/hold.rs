use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower_sd::{Hold, Lease};

use crate::code;

/// The request ends with its status: in the headers, in the trailers, or because the answer failed or was dropped.
///
/// A stream is load for as long as it is open. A status that says that the instance is in trouble (UNAVAILABLE, INTERNAL,
/// UNKNOWN, DATA_LOSS, DEADLINE_EXCEEDED) counts as a failure of it; one that is the caller's does not.
#[derive(Debug)]
#[non_exhaustive]
pub enum ToTrailers {}

/// An answer's body that keeps its endpoint busy until its status is known.
#[pin_project]
#[derive(Debug)]
pub struct Leased<B> {
    #[pin]
    body: B,
    lease: Option<Lease>,
}

impl<B: Body> Hold<Response<B>> for ToTrailers {
    type Held = Response<Leased<B>>;

    fn hold(response: Response<B>, lease: Lease) -> Self::Held {
        if code::known_code(&response).is_some_and(code::is_failure) {
            lease.failed();
            return response.map(|body| Leased { body, lease: None });
        }
        response.map(|body| Leased { lease: (!body.is_end_stream()).then_some(lease), body })
    }
}

impl<B: Body> Body for Leased<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let (over, failed) = match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => (true, code::code(trailers).is_some_and(code::is_failure)),
                None => (this.body.is_end_stream(), false),
            },
            Some(Err(_)) => (true, true),
            None => (true, false),
        };
        if over
            && let Some(lease) = this.lease.take()
            && failed
        {
            lease.failed();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for Leased<B> {
    /// A body that holds nothing: what an interceptor's refusal is made of.
    fn default() -> Self {
        Self { body: B::default(), lease: None }
    }
}
