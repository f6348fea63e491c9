use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, uri::Authority};
use pin_project::pin_project;
use tower_sd_balance::{Balance, RetryFuture};

use super::{Body, ClientError, LayeredFuture, RequestBody};
use crate::{HttpEndpoint, HttpProtocol};

/// The future response of a [`Client`](super::Client).
///
/// # Cancel safety
///
/// Dropped, the attempt in flight is cancelled. The server may have received the request.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ClientFuture {
    service: Option<Authority>,
    #[pin]
    state: State,
}

type DirectFuture =
    RetryFuture<Balance<HttpEndpoint<RequestBody>>, HttpProtocol, Request<RequestBody>>;

#[pin_project(project = StateProjection)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and costs no allocation"
)]
enum State {
    Direct(#[pin] DirectFuture),
    Layered(LayeredFuture),
}

impl ClientFuture {
    pub(super) fn direct(service: Option<Authority>, future: DirectFuture) -> Self {
        Self { service, state: State::Direct(future) }
    }

    pub(super) fn layered(service: Option<Authority>, future: LayeredFuture) -> Self {
        Self { service, state: State::Layered(future) }
    }
}

impl Future for ClientFuture {
    type Output = Result<Response<Body>, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state.project() {
            StateProjection::Direct(future) => {
                ready!(future.poll(cx)).map(|response| response.map(Body::direct))
            }
            StateProjection::Layered(future) => ready!(future.as_mut().poll(cx)),
        };
        Poll::Ready(result.map_err(|error| ClientError::new(this.service.take(), error)))
    }
}

impl fmt::Debug for ClientFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}
