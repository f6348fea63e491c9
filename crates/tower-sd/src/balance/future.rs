use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use pin_project::pin_project;
use tower_sd_core::BoxError;
use tower_service::Service;

use crate::{
    attempt,
    endpointer::{Hold, Lease},
};

/// The response of a [`Balance`](super::Balance).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, H, Req> {
    #[pin]
    state: State<S, S::Future, Req>,
    /// Whether it is below a `Retry`.
    is_scoped: bool,
    hold: PhantomData<fn() -> H>,
}

#[pin_project(project = StateProjection)]
enum State<S, F, Req> {
    Calling {
        #[pin]
        future: F,
        lease: Option<Lease>,
    },
    Obtaining {
        /// A service that is ready. The request is kept until there is one.
        obtain: BoxFuture<'static, Result<(S, Lease), BoxError>>,
        request: Option<Req>,
    },
}

impl<S: Service<Req>, H, Req> ResponseFuture<S, H, Req> {
    #[inline]
    pub(super) fn calling(future: S::Future, lease: Lease, is_scoped: bool) -> Self {
        let state = State::Calling { future, lease: Some(lease) };
        Self { state, is_scoped, hold: PhantomData }
    }

    pub(super) fn obtaining(
        obtain: BoxFuture<'static, Result<(S, Lease), BoxError>>,
        request: Req,
        is_scoped: bool,
    ) -> Self {
        let state = State::Obtaining { obtain, request: Some(request) };
        Self { state, is_scoped, hold: PhantomData }
    }
}

impl<S, H, Req> Future for ResponseFuture<S, H, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
    H: Hold<S::Response>,
{
    type Output = Result<H::Held, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { future, lease } => {
                    let result = ready!(attempt::cleared(*this.is_scoped, || future.poll(cx)));
                    let lease = lease.take().expect("a future is not polled after it has ended");
                    return Poll::Ready(match result {
                        Ok(response) => Ok(H::hold(response, lease)),
                        Err(error) => {
                            lease.failed();
                            Err(error.into())
                        }
                    });
                }
                StateProjection::Obtaining { obtain, request } => {
                    let (mut service, lease) = ready!(obtain.as_mut().poll(cx))?;
                    let request = request.take().expect("the request is sent once");
                    lease.stats().picked();
                    let future = attempt::cleared(*this.is_scoped, || service.call(request));
                    this.state.set(State::Calling { future, lease: Some(lease) });
                }
            }
        }
    }
}

impl<S: Service<Req>, H, Req> fmt::Debug for ResponseFuture<S, H, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
