//! The way of a request's body.
//!
//! Its end frees the connection, and its failure is the caller's.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};

/// A request body on its way; dropped by hyper when all of it has been read, or when sending it has
/// ended otherwise.
pub(crate) struct Outgoing<B> {
    body: B,
    end: Option<End>,
}

/// A handle of a body that may still be on its way when its response has ended.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_over: bool,
    has_failed: bool,
    /// Dropped at the end.
    parked: Vec<Box<dyn Send>>,
}

struct End(Upload);

impl<B: Body> Outgoing<B> {
    /// `None`: nothing is to be sent.
    pub(crate) fn new(body: B) -> (Self, Option<Upload>) {
        if body.is_end_stream() {
            return (Self { body, end: None }, None);
        }
        let upload = Upload(Arc::default());
        (Self { body, end: Some(End(upload.clone())) }, Some(upload))
    }

    pub(crate) fn into_inner(self) -> B {
        self.body
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

    /// Whether the body itself has failed.
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

impl<B: Body + Unpin> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Ready(Some(Err(_))), Some(End(upload))) = (&frame, &this.end) {
            upload.lock().has_failed = true;
        }
        frame
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
