//! The way of a request's body.
//!
//! Its end frees the connection, and its failure is the caller's.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Buf;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use tower_sd_balance::BoxError;

/// A request body on its way; dropped by hyper when all of it has been read, or when sending it has
/// ended otherwise.
pub(crate) struct Outgoing<B> {
    body: B,
    end: Option<End>,
    /// What `content-length` has announced and is still to come.
    left: Option<u64>,
}

/// A handle of a body that may still be on its way when its response has ended.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_over: bool,
    has_failed: bool,
    is_aborted: bool,
    /// Of a sender that is waited for.
    waiting: Option<Waker>,
    /// Dropped at the end.
    parked: Vec<Box<dyn Send>>,
}

struct End(Upload);

/// What `content-length` announces.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A header that hyper leaves out in HTTP/1.1.
///
/// Servers require the length of an empty body where the method has one (RFC 9110 §8.6). A stream
/// of a method that seldom has one is not sent without its framing.
pub(crate) fn framing(
    method: &Method,
    headers: &HeaderMap,
    body: Option<&impl Body>,
) -> Option<(HeaderName, HeaderValue)> {
    let body = body.filter(|body| !body.is_end_stream());
    let (methods, name, value) = match body {
        None => ([Method::POST, Method::PUT, Method::PATCH].as_slice(), CONTENT_LENGTH, "0"),
        Some(body) if body.size_hint().exact().is_none() => {
            ([Method::GET, Method::HEAD].as_slice(), TRANSFER_ENCODING, "chunked")
        }
        Some(_) => return None,
    };
    let is_missing = methods.contains(method)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(&name);
    is_missing.then(|| (name, HeaderValue::from_static(value)))
}

/// What every request's body is.
pub(crate) trait Payload:
    Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static
{
}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static> Payload for B {}

impl<B: Body> Outgoing<B> {
    /// The body of a request with `headers`. `None`: nothing is to be sent.
    pub(crate) fn new(body: B, headers: &HeaderMap) -> (Self, Option<Upload>) {
        if body.is_end_stream() {
            return (Self { body, end: None, left: None }, None);
        }
        let upload = Upload(Arc::default());
        let end = Some(End(upload.clone()));
        (Self { body, end, left: announced(headers) }, Some(upload))
    }

    pub(crate) fn into_inner(self) -> B {
        self.body
    }

    /// Counts `data`; whether it is more than was announced.
    fn is_exceeded_by(&mut self, data: Option<&B::Data>) -> bool {
        let (Some(left), Some(data)) = (&mut self.left, data) else {
            return false;
        };
        let n = u64::try_from(data.remaining()).unwrap_or(u64::MAX);
        let is_exceeded = n > *left;
        *left = left.saturating_sub(n);
        is_exceeded
    }
}

impl Upload {
    /// Keeps `item` until the body has been sent; drops it now if that is over.
    pub(crate) fn park(&self, item: impl Send + 'static) {
        let mut state = self.lock();
        if state.is_over {
            drop(state);
            drop(item);
        } else {
            state.parked.push(Box::new(item));
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Whether its sender is waited for; a server that does not read is not.
    pub(crate) fn waits(&self) -> bool {
        self.lock().waiting.is_some()
    }

    /// Lets the body fail: its response has been given up.
    pub(crate) fn abort(&self) {
        let mut state = self.lock();
        state.is_aborted = true;
        let waiting = state.waiting.clone();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Whether the body itself has failed: by an error, or by another length than announced.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing inside can be left half-done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        let parked = std::mem::take(&mut state.parked);
        // A connection that goes back to its pool takes other locks.
        drop(state);
        drop(parked);
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let has_failed = match &polled {
            Poll::Ready(Some(Err(_))) => true,
            Poll::Ready(Some(Ok(frame))) => this.is_exceeded_by(frame.data_ref()),
            Poll::Ready(None) | Poll::Pending => false,
        };
        let is_over = matches!(polled, Poll::Ready(None)) || this.body.is_end_stream();
        let is_short = is_over && this.left.is_some_and(|left| left > 0);
        if let Some(End(upload)) = &this.end {
            let mut state = upload.lock();
            if state.is_aborted {
                // hyper resets the stream with the reason that it finds in the error.
                return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
            }
            state.has_failed |= has_failed || is_short;
            state.waiting = polled.is_pending().then(|| cx.waker().clone());
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
