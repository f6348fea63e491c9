use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::reqwest::{Body, Response, ResponseBuilderExt};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tower_sd_balance::InFlight;

use crate::{
    HttpError, HttpErrorKind,
    hold::{leased, released},
};

/// Ties the guard and the deadline of its request to the response, or releases it.
pub(super) fn hold(
    result: Result<Response, HttpError>,
    guard: Option<InFlight>,
    address: &Arc<str>,
) -> Result<Response, HttpError> {
    let response = match result {
        Ok(response) if guard.is_some() => response,
        Ok(response) => return Ok(response),
        Err(error) => return Err(released(error, guard)),
    };
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
    let body = Bounded {
        body,
        deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        address: Arc::clone(address),
    };
    let held = leased(http::Response::from_parts(named, body), guard, None);
    Ok(Response::from(held.map(Body::wrap)))
}

/// A body that fails at the deadline of its request.
struct Bounded {
    body: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    address: Arc<str>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let error = HttpError::new(HttpErrorKind::BodyTimeout, &this.address, DEADLINE);
            return Poll::Ready(Some(Err(error)));
        }
        let fail = |error| HttpError::new(HttpErrorKind::Body, &this.address, error);
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(fail)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const DEADLINE: &str = "no end by the deadline of the request";
