use std::{
    any::Any,
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use pin_project::pin_project;
use tower_sd_balance::BoxError;

use crate::{InFlightBody, RepeatableBody, ReplayBody, ResponseBody};

/// A request body of any kind, as a [`Client`](super::Client) sends it.
///
/// - An empty body, a [`Full<Bytes>`](Full) and a `String` are kept whole: they can be sent again
///   without bound, and cost no allocation.
/// - Any other body streams. Of the part that was sent 64 KiB are kept, see [`ReplayBody`]; a
///   request that has sent more is not repeated. It costs two allocations: one for the body, one
///   for the part that is kept.
pub struct RequestBody(Sent);

/// The response body of a [`Client`](super::Client).
///
/// It keeps the connection, and counts as a request in flight of its instance, until it has been
/// read to its end or dropped. An early drop closes an HTTP/1.1 connection.
#[pin_project]
pub struct Body(#[pin] Received);

enum Sent {
    Whole(Full<Bytes>),
    Streamed(ReplayBody<DynBody>),
}

type DynBody = dyn HttpBody<Data = Bytes, Error = BoxError> + Send;

#[pin_project(project = ReceivedProjection)]
#[allow(
    clippy::large_enum_variant,
    reason = "large by some features; the usual one, without a box"
)]
enum Received {
    Direct(#[pin] InFlightBody<ResponseBody<RequestBody>>),
    Layered(#[pin] UnsyncBoxBody<Bytes, BoxError>),
}

impl RequestBody {
    /// Takes `body` as it is; a `RequestBody` stays itself.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        let body = match cast::<B, Self>(body) {
            Ok(same) => return same,
            Err(body) => body,
        };
        if body.is_end_stream() {
            return Self::default();
        }
        let body = match cast::<B, Full<Bytes>>(body) {
            Ok(full) => return Self(Sent::Whole(full)),
            Err(body) => body,
        };
        let body = match cast::<B, String>(body) {
            Ok(text) => return text.into(),
            Err(body) => body,
        };
        let body: Pin<Box<DynBody>> = Box::pin(InBytes(body));
        Self(Sent::Streamed(ReplayBody::boxed(body)))
    }
}

impl Body {
    pub(super) fn direct(body: InFlightBody<ResponseBody<RequestBody>>) -> Self {
        Self(Received::Direct(body))
    }

    pub(super) fn layered<B>(body: B) -> Self
    where
        B: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        match cast::<B, Self>(body) {
            Ok(same) => same,
            Err(body) => Self(Received::Layered(InBytes(body).boxed_unsync())),
        }
    }
}

/// `value` as the type that it has.
pub(super) fn cast<T: 'static, U: 'static>(value: T) -> Result<U, T> {
    let mut slot = Some(value);
    let any: &mut dyn Any = &mut slot;
    match any.downcast_mut::<Option<U>>().and_then(Option::take) {
        Some(cast) => Ok(cast),
        None => Err(slot.expect("taken as a value of another type only")),
    }
}

/// A body of any type with the data and the error of ours. Its length stays known.
#[pin_project]
struct InBytes<B>(#[pin] B);

impl<B> HttpBody for InBytes<B>
where
    B: HttpBody<Data: Buf, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.project().0.poll_frame(cx));
        let in_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(in_bytes)),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Sent::Whole(body) => {
                Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {})
            }
            Sent::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Sent::Whole(body) => body.is_end_stream(),
            Sent::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Sent::Whole(body) => body.size_hint(),
            Sent::Streamed(body) => body.size_hint(),
        }
    }
}

impl RepeatableBody for RequestBody {
    fn repeat(&self) -> Option<Self> {
        match &self.0 {
            Sent::Whole(body) => Some(Self(Sent::Whole(body.clone()))),
            Sent::Streamed(body) => body.repeat().map(|body| Self(Sent::Streamed(body))),
        }
    }

    fn is_repeatable(&self) -> bool {
        match &self.0 {
            Sent::Whole(_) => true,
            Sent::Streamed(body) => body.is_repeatable(),
        }
    }

    fn is_shareable(&self) -> bool {
        match &self.0 {
            Sent::Whole(_) => true,
            Sent::Streamed(body) => body.is_shareable(),
        }
    }
}

impl Default for RequestBody {
    /// An empty body.
    fn default() -> Self {
        Self(Sent::Whole(Full::default()))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Sent::Whole(Full::new(bytes)))
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("size", &self.size_hint().exact())
            .finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().0.project() {
            ReceivedProjection::Direct(body) => body.poll_frame(cx).map_err(Into::into),
            ReceivedProjection::Layered(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Received::Direct(body) => body.is_end_stream(),
            Received::Layered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Received::Direct(body) => body.size_hint(),
            Received::Layered(body) => body.size_hint(),
        }
    }
}

impl Default for Body {
    /// An empty body, for layers that answer in place of the instance.
    fn default() -> Self {
        Self::direct(InFlightBody::default())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint().exact()).finish_non_exhaustive()
    }
}
