use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::reqwest::{Body, Response, ResponseBuilderExt};
use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tower_sd_balance::{BoxError, InFlight, Outcome};

use crate::{
    HttpError, HttpErrorKind,
    hold::{Unanswered, leased, released},
    pool::Upload,
};

/// Ties the guard and the deadline of its request to the response, or releases it.
pub(super) fn hold(
    result: Result<Response, HttpError>,
    mut held: Unanswered,
    address: &Arc<str>,
) -> Result<Response, HttpError> {
    let response = match result {
        Ok(response) if held.lease.is_some() => response,
        Ok(response) => return Ok(response),
        Err(error) if error.outcome() == Outcome::TimedOut && held.waits() => return Err(error),
        Err(error) => return Err(released(error, held.lease.take())),
    };
    let (guard, upload) = (held.lease.take(), held.upload.take());
    // Only a builder can name the URL again.
    let url = response.url().clone();
    let (parts, body) = http::Response::<Body>::from(response).into_parts();
    let (mut named, ()) = http::Response::builder()
        .url(url)
        .body(())
        .map_or_else(|_| http::Response::new(()).into_parts(), http::Response::into_parts);
    named.status = parts.status;
    named.version = parts.version;
    named.headers = parts.headers;
    named.extensions.extend(parts.extensions);
    let deadline = guard.as_ref().and_then(InFlight::deadline);
    let upload = upload.filter(|upload| !upload.is_over());
    let body = Bounded {
        body: Some(body),
        is_http2: parts.version == Version::HTTP_2,
        upload: upload.clone(),
        deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        address: Arc::clone(address),
    };
    let held = leased(http::Response::from_parts(named, body), guard, upload);
    Ok(Response::from(held.map(Body::wrap)))
}

/// A body that fails at the deadline of its request.
struct Bounded {
    /// `None`: it is over.
    body: Option<Body>,
    is_http2: bool,
    upload: Option<Upload>,
    deadline: Option<Pin<Box<Sleep>>>,
    address: Arc<str>,
}

impl Bounded {
    fn fail(&mut self, kind: HttpErrorKind, error: impl Into<BoxError>) -> HttpError {
        let has_failed = self.upload.as_ref().is_some_and(Upload::has_failed);
        let kind = if has_failed { HttpErrorKind::Request } else { kind };
        self.give_up();
        HttpError::new(kind, &self.address, error)
    }

    /// Over HTTP/2 hyper does not end the stream of a request that is still sent.
    fn give_up(&mut self) {
        let is_early = self.is_http2 && !self.is_end_stream();
        self.body = None;
        if let Some(upload) = self.upload.take().filter(|_| is_early) {
            upload.abort();
        }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut().filter(|body| !body.is_end_stream()) else {
            return Poll::Ready(None);
        };
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(this.fail(HttpErrorKind::BodyTimeout, DEADLINE))));
        }
        let frame = match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Err(error)) => {
                let kind = match error.is_timeout() {
                    true => HttpErrorKind::BodyTimeout,
                    false => HttpErrorKind::Body,
                };
                Some(Err(this.fail(kind, error.without_url())))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            None => {
                this.body = None;
                None
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

const DEADLINE: &str = "no end by the deadline of the request";
