use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use pin_project::pin_project;
use tower_sd_core::BoxError;
use tower_service::Service;

use crate::{
    RequestScope,
    endpointer::{Counted, EndpointStats, InFlight, Started},
    outcome::{FailureClass, Outcome},
    scope,
};

/// The response of a [`Balance`](super::Balance).
//
// Small, because it is moved.
#[pin_project]
pub struct ResponseFuture<S: Service<Req>, Req> {
    /// The endpoint's, once it has the request.
    #[pin]
    future: Option<S::Future>,
    state: State<S, Req>,
}

enum State<S, Req> {
    /// Its end is a count.
    Plain(Counted),
    /// Its end is more than that.
    Watched(Watched),
    /// It has no endpoint yet, and is kept until there is one.
    Obtaining(Box<Obtaining<S, Req>>),
    Over,
}

struct Obtaining<S, Req> {
    obtain: Obtain<S>,
    request: Option<Req>,
    scope: Option<RequestScope>,
}

pub(super) type Obtain<S> = BoxFuture<'static, Result<(S, InFlight), BoxError>>;

struct Watched {
    scope: Option<RequestScope>,
    key: u64,
    /// `None`: the endpoint has it.
    guard: Option<InFlight>,
    was_taken: bool,
    /// The call has found that the request cannot be sent.
    not_sent: bool,
}

impl<S: Service<Req>, Req> ResponseFuture<S, Req> {
    #[inline(always)]
    pub(super) fn plain(
        mut service: S,
        request: Req,
        stats: Arc<EndpointStats>,
        started: Option<Started>,
    ) -> Self {
        let state = State::Plain(Counted::begin(stats, started));
        Self { future: Some(service.call(request)), state }
    }

    pub(super) fn watched(
        service: S,
        request: Req,
        guard: InFlight,
        scope: Option<RequestScope>,
    ) -> Self {
        let (future, watched) = Watched::call(service, request, guard, scope);
        Self { future: Some(future), state: State::Watched(watched) }
    }

    pub(super) fn obtaining(obtain: Obtain<S>, request: Req, scope: Option<RequestScope>) -> Self {
        let obtaining = Obtaining { obtain, request: Some(request), scope };
        Self { future: None, state: State::Obtaining(Box::new(obtaining)) }
    }
}

impl<S, Req> Future for ResponseFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let (Some(future), State::Plain(counted)) = (this.future.as_pin_mut(), this.state) else {
            return self.poll_watched(cx);
        };
        Poll::Ready(match ready!(future.poll(cx)) {
            Ok(response) => {
                counted.done(Outcome::Success);
                Ok(response)
            }
            Err(error) => {
                let error = error.into();
                counted.done(Outcome::of_error(&error));
                Err(error)
            }
        })
    }
}

impl<S, Req> ResponseFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    fn poll_watched(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, BoxError>> {
        let mut this = self.project();
        if let State::Obtaining(obtaining) = this.state {
            let Obtaining { obtain, request, scope } = &mut **obtaining;
            let (service, guard) = ready!(obtain.as_mut().poll(cx))?;
            let request = request.take().expect("the request is sent once");
            let (future, watched) = Watched::call(service, request, guard, scope.take());
            this.future.set(Some(future));
            *this.state = State::Watched(watched);
        }
        let (Some(future), State::Watched(watched)) =
            (this.future.as_mut().as_pin_mut(), &mut *this.state)
        else {
            panic!("a future is not polled after its end");
        };
        let result = ready!(watched.poll(future, cx)).map_err(Into::into);
        watched.end(result.as_ref().err(), || this.future.set(None));
        *this.state = State::Over;
        Poll::Ready(result)
    }
}

impl Watched {
    fn call<S: Service<Req>, Req>(
        mut service: S,
        request: Req,
        guard: InFlight,
        scope: Option<RequestScope>,
    ) -> (S::Future, Self) {
        let (key, is_offered) = (guard.stats().key, guard.stats().takes_guards);
        // A mark that another request has left is not this one's.
        let _stale = InFlight::was_not_sent(key);
        let call = || scope::leave(|| service.call(request));
        let (future, guard) = match is_offered {
            true => guard.offer(call),
            false => (call(), Some(guard)),
        };
        let (was_taken, not_sent) = (guard.is_none(), InFlight::was_not_sent(key));
        (future, Self { scope, key, guard, was_taken, not_sent })
    }

    /// Only a mark of the last poll, or of a call with one poll, belongs to the result.
    fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _stale = InFlight::was_not_sent(self.key);
        let poll = || scope::leave(|| future.poll(cx));
        let polled = match self.guard {
            Some(_) => poll(),
            None => {
                let (polled, returned) = InFlight::watch(self.key, poll);
                self.guard = returned;
                polled
            }
        };
        self.not_sent &= polled.is_ready();
        polled
    }

    /// The endpoint has responded; `drop` drops its future.
    fn end(&mut self, error: Option<&BoxError>, drop: impl FnOnce()) {
        let mut guard = self.guard.take();
        if self.was_taken {
            let ((), dropped) = InFlight::watch(self.key, drop);
            guard = guard.or(dropped);
        }
        if let Some(guard) = guard {
            guard.done(match error {
                Some(error) => Outcome::of_error(error),
                // A layer of the endpoint has broken off its exchange, and responds itself.
                None if self.was_taken => Outcome::Failed(FailureClass::Exchange),
                None => Outcome::Success,
            });
        }
        let not_sent = InFlight::was_not_sent(self.key) || self.not_sent;
        if error.is_some()
            && not_sent
            && let Some(scope) = &self.scope
        {
            scope.not_sent(self.key);
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ResponseFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
