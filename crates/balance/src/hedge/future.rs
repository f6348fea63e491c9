use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_sd_core::BoxError;
use tower_service::Service;

use super::shared::Shared;
use crate::{Outcome, Protocol, RequestScope, Withdrawal, endpointer::observer::Event};

/// The response of a [`Hedge`](super::Hedge).
#[pin_project]
pub struct HedgeFuture<S: Service<Req>, R, Req> {
    inner: S,
    #[pin]
    first: Option<S::Future>,
    #[pin]
    second: Option<S::Future>,
    /// What the second attempt sends, until it is sent or given up.
    spare: Option<Req>,
    /// What came first, and was not good.
    kept: Option<Result<S::Response, BoxError>>,
    story: Story<R>,
}

struct Story<R> {
    shared: Arc<Shared<R>>,
    scope: RequestScope,
    /// How long its record was when the first attempt began.
    n_tried: usize,
    delay: Duration,
    /// Runs from the moment on at which an endpoint has the request.
    timer: Option<Pin<Box<Sleep>>>,
    /// `None`: its latency is that of another kind of request.
    started: Option<Instant>,
    /// For the second attempt, until that is sent.
    paid: Vec<Withdrawal>,
}

impl<S: Service<Req>, R, Req> HedgeFuture<S, R, Req> {
    pub(super) fn new(
        inner: S,
        first: S::Future,
        spare: Option<(Duration, Req)>,
        (scope, n_tried): (RequestScope, usize),
        (shared, started): (Arc<Shared<R>>, Option<Instant>),
    ) -> Self {
        let (delay, spare) = spare.unzip();
        let (delay, timer, paid) = (delay.unwrap_or_default(), None, Vec::new());
        let story = Story { shared, scope, n_tried, delay, timer, started, paid };
        Self { inner, first: Some(first), second: None, spare, kept: None, story }
    }
}

impl<S, R, Req> Future for HedgeFuture<S, R, Req>
where
    S: Service<Req, Error: Into<BoxError>>,
    R: Protocol<Req, S::Response>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let story = this.story;
        if let Some(first) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = story.scope.enter(|| first.poll(cx))
        {
            this.first.set(None);
            let result = result.map_err(Into::into);
            let is_good = story.is_good::<_, Req>(&result);
            if is_good {
                story.answered();
            }
            if is_good || this.second.is_none() {
                // The other one is dropped here, and not with this future.
                this.second.set(None);
                *this.spare = None;
                return Poll::Ready(story.better(false, result, this.kept.take()));
            }
            *this.kept = Some(result);
        }
        if this.spare.is_some() && story.is_due(cx) {
            let polled = story.scope.hedge().enter(|| this.inner.poll_ready(cx));
            match polled {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => *this.spare = None,
                Poll::Ready(Ok(())) => {
                    if let Some(request) = story.pay::<S::Response, _>(this.spare) {
                        let second = story.scope.hedge().enter(|| this.inner.call(request));
                        story.observe();
                        this.second.set(Some(second));
                    }
                }
            }
        }
        let Some(second) = this.second.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = story.scope.hedge().enter(|| second.poll(cx));
        story.observe();
        let Poll::Ready(result) = polled else {
            return Poll::Pending;
        };
        this.second.set(None);
        if !story.is_sent() {
            // There is no other instance.
            story.paid.clear();
            return this.kept.take().map_or(Poll::Pending, Poll::Ready);
        }
        let result = result.map_err(Into::into);
        let is_good = story.is_good::<_, Req>(&result);
        if is_good && this.first.is_some() {
            // What it has taken so far is above the delay, as all of it is.
            story.answered();
            this.first.set(None);
        }
        match is_good || this.first.is_none() {
            true => Poll::Ready(story.better(true, result, this.kept.take())),
            false => {
                *this.kept = Some(result);
                Poll::Pending
            }
        }
    }
}

impl<R> Story<R> {
    /// Whether the first attempt has taken too long since an endpoint has it.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.scope.n_tried() <= self.n_tried {
            return false;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.delay)));
        // Polled after its end while the service is not ready.
        timer.is_elapsed() || timer.as_mut().poll(cx).is_ready()
    }

    /// The request of the second attempt, paid. `None`: there is none.
    fn pay<T, Req>(&mut self, spare: &mut Option<Req>) -> Option<Req>
    where
        R: Protocol<Req, T>,
    {
        let Shared { policy, load, .. } = &*self.shared;
        let request = spare.take().filter(|copy| policy.protocol.is_shareable(copy))?;
        let now = Instant::now();
        self.paid.push(load.withdraw(now)?);
        if let Some(budget) = &policy.budget {
            let Some(paid) = budget.withdraw(now) else {
                self.paid.clear();
                return None;
            };
            self.paid.push(paid);
        }
        Some(request)
    }

    /// Whether an endpoint has the second attempt.
    fn is_sent(&self) -> bool {
        self.scope.n_tried() > self.n_tried + 1
    }

    /// Spends what was withdrawn, when an endpoint has the second attempt.
    fn observe(&mut self) {
        if self.paid.is_empty() || !self.is_sent() {
            return;
        }
        self.paid.drain(..).for_each(Withdrawal::spend);
        if let Some((_, instance)) = self.scope.nth(self.n_tried) {
            let (instance, delay) = (&instance, self.delay);
            tracing::debug!(%instance, ?delay, "request is hedged");
            self.shared.policy.observers.on(&Event::Hedged { instance, delay });
        }
    }

    /// The request has a good answer.
    fn answered(&self) {
        if let Some(started) = self.started {
            self.shared.answered(started.elapsed());
        }
        if let Some(budget) = self.shared.policy.budget.as_ref().filter(|_| self.shared.policy.pays)
        {
            budget.deposit(Instant::now());
        }
    }

    fn is_good<T, Req>(&self, result: &Result<T, BoxError>) -> bool
    where
        R: Protocol<Req, T>,
    {
        let protocol = &self.shared.policy.protocol;
        result.as_ref().is_ok_and(|response| {
            protocol.outcome(Ok(response)) == Outcome::Success && !protocol.is_rejection(response)
        })
    }

    /// The result of one attempt, unless it is an error and the other one, which was kept, has a
    /// response.
    fn better<T>(
        &self,
        is_second: bool,
        result: Result<T, BoxError>,
        kept: Option<Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let (result, is_second) = match (result, kept) {
            (Err(_), Some(Ok(response))) => (Ok(response), !is_second),
            (result, _) => (result, is_second),
        };
        if !is_second && self.is_sent() {
            self.scope.result_of(self.n_tried);
        }
        result
    }
}

impl<S: Service<Req>, R, Req> fmt::Debug for HedgeFuture<S, R, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture").field("delay", &self.story.delay).finish_non_exhaustive()
    }
}
