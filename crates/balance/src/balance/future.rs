use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use pin_project::pin_project;
use tower_sd_core::BoxError;
use tower_service::Service;

use crate::{
    attempt,
    endpointer::{FailureClass, InFlight, Outcome},
};

/// The response of a [`Balance`](super::Balance).
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    #[pin]
    state: State<S, S::Future, Req>,
    /// Whether it is below a `Retry`.
    is_scoped: bool,
}

#[pin_project(project = StateProjection)]
enum State<S, F, Req> {
    Calling {
        #[pin]
        future: F,
        lease: Held,
    },
    Obtaining {
        /// A service that is ready. The request is kept until there is one.
        obtain: BoxFuture<'static, Result<(S, InFlight), BoxError>>,
        request: Option<Req>,
    },
    Over,
}

/// Who releases the lease.
enum Held {
    /// The response does.
    Here(InFlight),
    /// The endpoint with this key has taken it.
    Taken(u64),
}

impl<S: Service<Req>, Req> State<S, S::Future, Req> {
    #[inline(always)]
    fn calling(mut service: S, request: Req, mut lease: InFlight, is_scoped: bool) -> Self {
        let key = lease.stats().key;
        lease.begin();
        let call = || attempt::cleared(is_scoped, || service.call(request));
        let (future, lease) = lease.offer(call);
        Self::Calling { future, lease: lease.map_or(Held::Taken(key), Held::Here) }
    }
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    #[inline(always)]
    pub(super) fn calling(service: S, request: Req, lease: InFlight, is_scoped: bool) -> Self {
        Self { state: State::calling(service, request, lease, is_scoped), is_scoped }
    }

    pub(super) fn obtaining(
        obtain: BoxFuture<'static, Result<(S, InFlight), BoxError>>,
        request: Req,
        is_scoped: bool,
    ) -> Self {
        Self { state: State::Obtaining { obtain, request: Some(request) }, is_scoped }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let is_scoped = *this.is_scoped;
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { future, lease } => {
                    let key = match lease {
                        Held::Here(lease) => lease.stats().key,
                        Held::Taken(key) => *key,
                    };
                    let poll = || attempt::cleared(is_scoped, || future.poll(cx));
                    let (polled, returned) = match lease {
                        Held::Here(_) => (poll(), None),
                        Held::Taken(_) => InFlight::watch(key, poll),
                    };
                    let Poll::Ready(result) = polled else {
                        if let Some(returned) = returned {
                            *lease = Held::Here(returned);
                        }
                        return Poll::Pending;
                    };
                    let (lease, of_response) = match mem::replace(lease, Held::Taken(key)) {
                        Held::Here(lease) => (Some(lease), Outcome::Success),
                        // A layer of the endpoint may have broken off its exchange, and answer itself.
                        Held::Taken(_) => {
                            let ((), dropped) =
                                InFlight::watch(key, || this.state.set(State::Over));
                            (returned.or(dropped), BROKEN_OFF)
                        }
                    };
                    return Poll::Ready(match result {
                        Ok(response) => {
                            if let Some(lease) = lease {
                                lease.done(of_response);
                            }
                            Ok(response)
                        }
                        Err(error) => Err(failed(error.into(), lease, key, is_scoped)),
                    });
                }
                StateProjection::Over => panic!("polled after its end"),
                StateProjection::Obtaining { obtain, request } => {
                    let (service, lease) = ready!(obtain.as_mut().poll(cx))?;
                    let request = request.take().expect("the request is sent once");
                    this.state.set(State::calling(service, request, lease, is_scoped));
                }
            }
        }
    }
}

/// The endpoint has failed; the balancer releases the lease if it has it, and the attempt learns that nothing was sent.
#[cold]
fn failed(error: BoxError, lease: Option<InFlight>, key: u64, is_scoped: bool) -> BoxError {
    if let Some(lease) = lease {
        lease.done(Outcome::of_error(&error));
    }
    if InFlight::was_not_sent(key)
        && let Some(record) = attempt::current().filter(|_| is_scoped)
    {
        record.not_sent();
    }
    error
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

const BROKEN_OFF: Outcome = Outcome::Failed(FailureClass::Exchange);
