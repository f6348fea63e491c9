use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project::pin_project;
use tokio::time::{Sleep, sleep};
use tower_sd_core::BoxError;
use tower_service::Service;

use super::{Elapsed, Protocol, Verdict, error::End, story::Story};

/// The response of a [`Retry`](super::Retry).
#[pin_project]
pub struct RetryFuture<S: Service<Req>, R, Req> {
    inner: S,
    /// What the next attempt sends.
    spare: Option<Req>,
    deadline: Option<Timer>,
    story: Story<R>,
    #[pin]
    state: State<S::Future>,
}

#[pin_project(project = StateProjection)]
enum State<F> {
    Calling {
        #[pin]
        future: F,
        /// Runs from the moment on at which an endpoint has the request.
        timer: Option<Timer>,
    },
    Pausing(Timer),
    Readying,
    /// The time is over, or the response was returned: nothing is sent any more.
    Over,
}

type Timer = Pin<Box<Sleep>>;

impl<S: Service<Req>, R, Req> RetryFuture<S, R, Req> {
    /// The first attempt is `future`, unless there is no time for it.
    pub(super) fn new(
        inner: S,
        story: Story<R>,
        spare: Option<Req>,
        future: Option<S::Future>,
    ) -> Self {
        Self {
            inner,
            spare,
            deadline: story.bound.map(|bound| Box::pin(sleep(bound))),
            state: future.map_or(State::Over, |future| State::Calling { future, timer: None }),
            story,
        }
    }
}

impl<S, R, Req> Future for RetryFuture<S, R, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
    R: Protocol<Req, S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (story, deadline) = (this.story, this.deadline);
        loop {
            let end = match this.state.as_mut().project() {
                StateProjection::Calling { future, timer } => {
                    // A response that is there counts, whatever timer fires at the same time.
                    match story.scope.enter(|| future.poll(cx)).map_err(Into::into) {
                        Poll::Ready(Ok(response)) if story.is_final::<_, Req>(&response) => {
                            story.deposit::<_, Req>(&response);
                            this.state.set(State::Over);
                            return Poll::Ready(Ok(response));
                        }
                        Poll::Ready(result) => story.classify::<_, Req>(result),
                        Poll::Pending => match ready!(poll_time(story, deadline, timer, cx)) {
                            Time::OfAll(bound) => {
                                let drop = || this.state.set(State::Over);
                                return Poll::Ready(Err(story.time_out_all(bound, drop)));
                            }
                            Time::OfAttempt(bound) => {
                                story.time_out(|| this.state.set(State::Readying));
                                (Err(Elapsed(bound).into()), Verdict::Failed)
                            }
                        },
                    }
                }
                StateProjection::Pausing(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    this.state.set(State::Readying);
                    continue;
                }
                StateProjection::Readying => {
                    // First: nothing is sent after the deadline.
                    if poll_deadline(deadline, cx).is_ready() {
                        this.state.set(State::Over);
                        continue;
                    }
                    match ready!(story.scope.enter(|| this.inner.poll_ready(cx))) {
                        Ok(()) => {
                            let Some(request) = story.next::<S::Response, _>(this.spare) else {
                                this.state.set(State::Over);
                                return Poll::Ready(Err(story.fail(None, End::Failure)));
                            };
                            let future = story.scope.enter(|| this.inner.call(request));
                            this.state.set(State::Calling { future, timer: None });
                            continue;
                        }
                        Err(error) => story.unready(error.into()),
                    }
                }
                StateProjection::Over => return Poll::Ready(Err(story.late())),
            };
            let until = deadline.as_ref().map(|timer| timer.deadline());
            match story.step(end, this.spare.as_ref(), until) {
                // Drops the attempt: one that hangs is cancelled before the next one starts.
                ControlFlow::Continue(pause) => {
                    this.state.set(State::Pausing(Box::pin(sleep(pause))));
                }
                ControlFlow::Break(result) => {
                    this.state.set(State::Over);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// Which time is over, and how long it was.
enum Time {
    OfAll(Duration),
    OfAttempt(Duration),
}

fn poll_time<R>(
    story: &Story<R>,
    deadline: &mut Option<Timer>,
    timer: &mut Option<Timer>,
    cx: &mut Context<'_>,
) -> Poll<Time> {
    if let Some(bound) = story.bound
        && poll_deadline(deadline, cx).is_ready()
    {
        return Poll::Ready(Time::OfAll(bound));
    }
    let Some(per_try) = story.per_try() else {
        return Poll::Pending;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(per_try)));
    timer.as_mut().poll(cx).map(|()| Time::OfAttempt(per_try))
}

fn poll_deadline(deadline: &mut Option<Timer>, cx: &mut Context<'_>) -> Poll<()> {
    deadline.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
}

impl<S: Service<Req>, R, Req> fmt::Debug for RetryFuture<S, R, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempts", &self.story.attempts)
            .finish_non_exhaustive()
    }
}
