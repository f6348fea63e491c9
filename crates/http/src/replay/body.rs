use std::{
    error, fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Empty, Full};
use tower_sd_balance::BoxError;

/// A request body that can be sent again from its beginning.
#[diagnostic::on_unimplemented(
    message = "a body of type `{Self}` cannot be sent again",
    note = "`ReplayBody` keeps a bounded copy of any body; `Full`, `Empty`, `Bytes` and `String` need none"
)]
pub trait RepeatableBody: Sized {
    /// The same body from its beginning; `None` when it cannot be had any more.
    fn repeat(&self) -> Option<Self>;

    /// Whether a copy that was made earlier still has its beginning. Defaults to true.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Whether a copy can be sent while the first is still being sent. Defaults to
    /// [`is_repeatable`](Self::is_repeatable).
    fn is_shareable(&self) -> bool {
        self.is_repeatable()
    }
}

/// A request body of any kind that can be sent again.
///
/// It keeps the bytes that pass through, up to a bound and 1024 parts, and streams the rest. Once
/// more than that was sent, it drops what it has kept, and [`repeat`](RepeatableBody::repeat)
/// returns `None`. Without a copy it keeps nothing. Nothing is read ahead.
///
/// The bound defaults to 64 KiB: more than most calls have, and little enough to hold for each
/// request in flight.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::combinators::UnsyncBoxBody;
/// use tower_sd::http::ReplayBody;
///
/// // Above the retry, for example by `ServiceBuilder::map_request`:
/// fn repeatable(
///     request: Request<UnsyncBoxBody<Bytes, std::io::Error>>,
/// ) -> Request<ReplayBody<UnsyncBoxBody<Bytes, std::io::Error>>> {
///     request.map(ReplayBody::new)
/// }
/// ```
pub struct ReplayBody<B: ?Sized> {
    shared: Arc<Mutex<Shared<B>>>,
    attempt: u64,
    n_read: usize,
}

/// The beginning of the body is not there any more.
///
/// It had passed its bound, or had failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NotRepeatable;

struct Shared<B: ?Sized> {
    body: Pin<Box<B>>,
    kept: Vec<Kept>,
    room: usize,
    state: State,
    /// Only the latest copy may read on: the connection of an attempt that was given up may still
    /// be at it.
    latest: u64,
    n_copies: u64,
}

enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    /// All that has passed is kept.
    Repeatable,
    /// All of the body is kept.
    Complete,
    /// More has passed than is kept.
    Spent,
}

impl<B: Body> ReplayBody<B> {
    /// Keeps up to 64 KiB.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, LIMIT)
    }

    /// Keeps up to `limit` bytes.
    pub fn with_limit(body: B, limit: usize) -> Self {
        Self::from_box(Box::pin(body), limit)
    }
}

impl<B: Body + ?Sized> ReplayBody<B> {
    /// Keeps up to 64 KiB of a body that is boxed already.
    pub(crate) fn boxed(body: Pin<Box<B>>) -> Self {
        Self::from_box(body, LIMIT)
    }

    fn from_box(body: Pin<Box<B>>, limit: usize) -> Self {
        let too_large = usize::try_from(body.size_hint().lower()).map_or(true, |n| n > limit);
        let state = match body.is_end_stream() {
            true => State::Complete,
            false if too_large => State::Spent,
            false => State::Repeatable,
        };
        let shared = Shared { body, kept: Vec::new(), room: limit, state, latest: 0, n_copies: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), attempt: 0, n_read: 0 }
    }
}

impl<B: ?Sized> ReplayBody<B> {
    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        // A body that panicked is not polled again.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body + ?Sized> Shared<B>
where
    B::Error: Into<BoxError>,
{
    /// Reads the next frame of the body itself.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        has_copy: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
            Some(Err(error)) => {
                self.spend();
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                if self.state == State::Repeatable {
                    self.state = State::Complete;
                }
                return Poll::Ready(None);
            }
        };
        match has_copy {
            true => self.keep(&frame),
            false => self.spend(),
        }
        if self.state == State::Repeatable && self.body.is_end_stream() {
            self.state = State::Complete;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.state == State::Spent || self.kept.len() == PARTS {
            return self.spend();
        }
        if let Some(data) = frame.data_ref() {
            match self.room.checked_sub(data.len()) {
                Some(room) => {
                    self.room = room;
                    self.kept.push(Kept::Data(data.clone()));
                }
                None => self.spend(),
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
    }

    fn spend(&mut self) {
        self.state = State::Spent;
        self.kept = Vec::new();
    }
}

impl<B: ?Sized> Shared<B> {
    /// Whether that copy can read no more: a later one reads, or its beginning is gone.
    ///
    /// What is complete all may read.
    fn is_lost(&self, attempt: u64) -> bool {
        self.state != State::Complete
            && (attempt < self.latest || (attempt > self.latest && self.state == State::Spent))
    }
}

impl<B: Body + ?Sized> Body for ReplayBody<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut shared = this.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_lost(this.attempt) {
            return Poll::Ready(Some(Err(NotRepeatable.into())));
        }
        shared.latest = shared.latest.max(this.attempt);
        // Besides this one there is a copy that may be sent again.
        let has_copy = Arc::strong_count(&this.shared) > 1;
        let frame = match shared.kept.get(this.n_read) {
            Some(kept) => Some(Ok(kept.frame())),
            None if shared.state == State::Complete => None,
            None => ready!(shared.poll_next(cx, has_copy)),
        };
        this.n_read += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.lock();
        // The rest of the body may be over: a request without a body would be sent.
        !shared.is_lost(self.attempt)
            && self.n_read >= shared.kept.len()
            && (shared.state == State::Complete || shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.lock();
        if shared.is_lost(self.attempt) {
            return SizeHint::new();
        }
        let unread = shared.kept.iter().skip(self.n_read);
        let unread: usize = unread.map(Kept::len).sum();
        let unread = u64::try_from(unread).unwrap_or(u64::MAX);
        let rest = shared.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unread));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unread));
        }
        hint
    }
}

impl<B: Body + ?Sized> RepeatableBody for ReplayBody<B> {
    fn repeat(&self) -> Option<Self> {
        let mut shared = self.lock();
        if shared.state == State::Spent {
            return None;
        }
        shared.n_copies += 1;
        Some(Self { shared: Arc::clone(&self.shared), attempt: shared.n_copies, n_read: 0 })
    }

    fn is_repeatable(&self) -> bool {
        self.lock().state != State::Spent
    }

    /// Once the first has read all of it.
    fn is_shareable(&self) -> bool {
        self.lock().state == State::Complete
    }
}

impl<D: Buf + Clone> RepeatableBody for Full<D> {
    fn repeat(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> RepeatableBody for Empty<D> {
    fn repeat(&self) -> Option<Self> {
        Some(Self::new())
    }
}

impl RepeatableBody for Bytes {
    fn repeat(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl RepeatableBody for String {
    fn repeat(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl Kept {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

impl<B: ?Sized> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("attempt", &self.attempt)
            .field("n_read", &self.n_read)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for NotRepeatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body cannot be sent again: too much of it has passed")
    }
}

impl error::Error for NotRepeatable {}

/// More than most calls carry, and little enough to hold for each request in flight.
const LIMIT: usize = 64 * 1024;
/// Each costs about 100 bytes beside its own.
const PARTS: usize = 1024;

#[cfg(test)]
mod tests;
