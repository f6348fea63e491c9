use std::{
    error::Error,
    fmt,
    future::Future,
    iter::successors,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use fastrand::Rng;
use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_sd_core::{BoxError, InstanceId, chain};
use tower_service::Service;

use super::{Attempt, Elapsed, Protocol, RetryDecision, RetryError, RetryPolicy, Verdict};
use crate::{
    NoInstances, RequestScope,
    endpointer::{InFlight, observer::Event},
};

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
}

type Timer = Pin<Box<Sleep>>;

/// What has happened, and the decisions of the policy.
struct Story<R> {
    policy: Arc<RetryPolicy<R>>,
    idempotent: bool,
    scope: RequestScope,
    /// The time for all attempts, by the policy or by the scope.
    bound: Option<Duration>,
    attempts: Vec<Attempt>,
    started: Instant,
    /// How long the record was when the attempt in flight began.
    n_tried: usize,
    rng: Option<Rng>,
}

/// How an attempt has ended.
enum End<T> {
    Response(T, Verdict),
    Error(BoxError, Verdict),
    Late(Late),
}

/// What has taken too long.
enum Late {
    Attempt(Duration),
    All(Duration),
}

/// What becomes of it.
enum Step<T> {
    Pause(Duration),
    Done(Result<T, BoxError>),
}

impl<S: Service<Req>, R, Req> RetryFuture<S, R, Req> {
    pub(super) fn new(
        inner: S,
        policy: Arc<RetryPolicy<R>>,
        spare: Option<Req>,
        idempotent: bool,
        scope: RequestScope,
        future: S::Future,
    ) -> Self {
        let started = Instant::now();
        // That of an outer layer, such as a `ScopeLayer`.
        let of_scope = scope.deadline().map(|at| at.saturating_duration_since(started));
        let bound = policy.deadline.into_iter().chain(of_scope).min();
        Self {
            inner,
            spare,
            deadline: bound.map(|bound| Box::pin(sleep(bound))),
            state: State::Calling { future, timer: None },
            story: Story {
                policy,
                idempotent,
                scope,
                bound,
                attempts: Vec::new(),
                started,
                n_tried: 0,
                rng: None,
            },
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
                    let result = story.scope.enter(|| future.poll(cx));
                    match result.map_err(Into::into) {
                        Poll::Ready(result) => story.classify::<_, Req>(result),
                        Poll::Pending => match story.late_since_sent(deadline, timer, cx) {
                            Some(late) => {
                                story.time_out(|| this.state.set(State::Readying));
                                End::Late(late)
                            }
                            None => return Poll::Pending,
                        },
                    }
                }
                StateProjection::Pausing(pause) => {
                    if pause.as_mut().poll(cx).is_ready() {
                        this.state.set(State::Readying);
                        continue;
                    }
                    ready!(poll_deadline(deadline, cx));
                    return Poll::Ready(Err(story.fail(None, story.bound)));
                }
                StateProjection::Readying => {
                    match story.scope.enter(|| this.inner.poll_ready(cx)) {
                        Poll::Pending => {
                            ready!(poll_deadline(deadline, cx));
                            return Poll::Ready(Err(story.fail(None, story.bound)));
                        }
                        Poll::Ready(Ok(())) => {
                            // Again: its body may have been read further during the pause.
                            if !story.is_repeatable::<S::Response, _>(this.spare.as_ref()) {
                                return Poll::Ready(Err(story.fail(None, None)));
                            }
                            let request =
                                this.spare.take().expect("a pause is followed by a spare request");
                            if story.attempts_left() > 1 {
                                *this.spare = story.policy.protocol.copy(&request);
                            }
                            story.begin();
                            let future = story.scope.enter(|| this.inner.call(request));
                            this.state.set(State::Calling { future, timer: None });
                            continue;
                        }
                        Poll::Ready(Err(error)) => End::Error(error.into(), Verdict::Final),
                    }
                }
            };
            let repeatable = story.is_repeatable::<S::Response, _>(this.spare.as_ref());
            match story.step::<_, Req>(end, repeatable) {
                // Drops the attempt: one that hangs is cancelled before the next one starts.
                Step::Pause(pause) => this.state.set(State::Pausing(Box::pin(sleep(pause)))),
                Step::Done(result) => return Poll::Ready(result),
            }
        }
    }
}

impl<R> Story<R> {
    /// Whether there is a copy that can still be sent.
    fn is_repeatable<T, Req>(&self, spare: Option<&Req>) -> bool
    where
        R: Protocol<Req, T>,
    {
        spare.is_some_and(|copy| self.policy.protocol.is_repeatable(copy))
    }

    /// An attempt begins.
    fn begin(&mut self) {
        self.started = Instant::now();
        self.n_tried = self.scope.n_tried();
    }

    fn classify<T, Req>(&self, result: Result<T, BoxError>) -> End<T>
    where
        R: Protocol<Req, T>,
    {
        match result {
            Ok(response) => {
                let verdict = self.policy.protocol.verdict(Ok(&response));
                End::Response(response, verdict)
            }
            Err(error) => {
                let verdict = match self.no_instances(&error) {
                    // Waiting as long again is of no use.
                    Some(none) if none.has_waited() => Verdict::Final,
                    Some(_) => Verdict::NotSent,
                    None => match self.policy.protocol.verdict(Err(&error)) {
                        // The endpoint below has reported it itself.
                        Verdict::Failed | Verdict::NotSent if self.has_endpoint() => {
                            match self.scope.was_sent() {
                                true => Verdict::Failed,
                                false => Verdict::NotSent,
                            }
                        }
                        verdict => verdict,
                    },
                };
                End::Error(error, verdict)
            }
        }
    }

    /// The error of the balancer below that found no instance for this request; not that of a
    /// balancer inside an endpoint.
    fn no_instances<'e>(&self, error: &'e BoxError) -> Option<&'e NoInstances> {
        let first: &(dyn Error + 'static) = &**error;
        let mut chain = successors(Some(first), |error| (*error).source());
        chain.find_map(|error| {
            error.downcast_ref::<NoInstances>().filter(|none| none.is_of(self.scope.id()))
        })
    }

    /// Whether a balancer below has given the attempt in flight to an endpoint.
    fn has_endpoint(&self) -> bool {
        self.scope.n_tried() > self.n_tried
    }

    /// Drops the attempt in flight: the time is over for its endpoint.
    fn time_out<T>(&self, drop: impl FnOnce() -> T) -> T {
        let last = self.scope.last_since(self.n_tried);
        InFlight::time_out(last.map(|(key, _)| key), drop)
    }

    fn late_since_sent(
        &self,
        deadline: &mut Option<Timer>,
        timer: &mut Option<Timer>,
        cx: &mut Context<'_>,
    ) -> Option<Late> {
        if poll_deadline(deadline, cx).is_ready() {
            return self.bound.map(Late::All);
        }
        let per_try = self.policy.per_try.filter(|_| !self.scope.is_searching())?;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(per_try)));
        timer.as_mut().poll(cx).is_ready().then_some(Late::Attempt(per_try))
    }

    fn step<T, Req>(&mut self, end: End<T>, repeatable: bool) -> Step<T>
    where
        R: Protocol<Req, T>,
    {
        let (response, error, verdict) = match end {
            End::Response(response, Verdict::Final) => return Step::Done(Ok(response)),
            End::Response(response, verdict) => (Some(response), BoxError::from(REJECTED), verdict),
            End::Error(error, verdict) => (None, error, verdict),
            End::Late(Late::Attempt(bound)) => (None, Elapsed(bound).into(), Verdict::Failed),
            End::Late(Late::All(bound)) => {
                let none = self.scope.give_up().map(BoxError::from);
                self.ended(none.unwrap_or_else(|| Elapsed(bound).into()));
                return Step::Done(Err(self.fail(None, Some(bound))));
            }
        };
        self.ended(error);
        let safe = match verdict {
            Verdict::Final => false,
            Verdict::NotSent => true,
            Verdict::Failed => self.idempotent,
        };
        let left = repeatable && safe && self.attempts_left() > 0;
        let number = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        let next = match (&self.policy.on_failure, self.attempts.last()) {
            (Some(on_failure), Some(attempt)) => on_failure(number, attempt),
            _ => RetryDecision::Retry,
        };
        match (next, response) {
            (RetryDecision::Retry, response) if left => {
                let asked = response.and_then(|response| self.policy.protocol.pause(&response));
                let pause = asked.unwrap_or_else(|| self.pause(number));
                self.observe(number, pause);
                Step::Pause(pause)
            }
            (RetryDecision::Fail(error), _) => Step::Done(Err(self.fail(Some(error), None))),
            // The last response is the caller's, however it is judged.
            (RetryDecision::Retry | RetryDecision::Stop, Some(response)) => {
                Step::Done(Ok(response))
            }
            (RetryDecision::Retry | RetryDecision::Stop, None) => {
                Step::Done(Err(self.fail(None, None)))
            }
        }
    }

    /// Another attempt follows the last one.
    fn observe(&self, attempt: u32, pause: Duration) {
        let Some(last) = self.attempts.last() else {
            return;
        };
        let (instance, error) = (last.instance(), &**last.error());
        let shown = instance.map(InstanceId::as_str);
        tracing::debug!(attempt, instance = shown, error = %chain(error), ?pause, "request is repeated");
        self.policy.observers.on(&Event::Retried { attempt, instance, error, pause });
    }

    /// The attempt in flight is over.
    fn ended(&mut self, error: BoxError) {
        let instance = self.scope.last_since(self.n_tried).map(|(_, id)| id);
        let elapsed = self.started.elapsed();
        self.attempts.push(Attempt::new(instance, error, elapsed));
    }

    /// How many attempts there may be, the one in flight included.
    fn attempts_left(&self) -> u32 {
        let over = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        self.policy.attempts.saturating_sub(over)
    }

    fn pause(&mut self, n: u32) -> Duration {
        let seed = self.policy.seed;
        let rng = self.rng.get_or_insert_with(|| seed.map_or_else(Rng::new, Rng::with_seed));
        self.policy.pause(n, rng)
    }

    fn fail(&mut self, replacement: Option<BoxError>, deadline: Option<Duration>) -> BoxError {
        let attempts = std::mem::take(&mut self.attempts);
        RetryError::new(attempts, replacement, deadline).into()
    }
}

/// Ready when the time for all attempts is over.
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

const REJECTED: &str = "the response is one of failure";
