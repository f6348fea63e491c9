use std::{mem, ops::ControlFlow, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;
use tower_sd_core::{BoxError, InstanceId, causes, chain};

use super::{
    Attempt, Elapsed, Protocol, RetryDecision, RetryError, RetryPolicy, Verdict, Withdrawal,
    error::End,
};
use crate::{
    NoInstances, Outcome, Overloaded, RequestScope,
    endpointer::{InFlight, observer::Event},
    scope,
};

/// What has happened, and the decisions of the policy.
pub(super) struct Story<R> {
    pub(super) policy: Arc<RetryPolicy<R>>,
    idempotent: bool,
    pub(super) scope: RequestScope,
    /// The time for all attempts, by the policy or by the scope.
    pub(super) bound: Option<Duration>,
    /// It is what the caller of this server has left.
    pub(super) is_callers_bound: bool,
    pub(super) attempts: Vec<Attempt>,
    /// How many of them were not sent.
    n_unsent: u32,
    started: Instant,
    /// How long the record was when the attempt in flight began.
    n_tried: usize,
    rng: Option<Rng>,
    /// An instance had the request, and has refused it.
    was_refused: bool,
    /// For the attempt that follows a pause.
    paid: Option<Withdrawal>,
}

/// How an attempt has ended.
pub(super) type Ended<T> = (Result<T, BoxError>, Verdict);

impl<R> Story<R> {
    /// Begins now, with the first attempt.
    pub(super) fn new(policy: Arc<RetryPolicy<R>>, idempotent: bool) -> Self {
        let started = Instant::now();
        let (scope, (bound, is_callers_bound)) = policy.scope(started);
        // Of an outer retry or hedge, whose attempts are not this one's.
        let n_tried = if scope::is_entered() { scope.n_tried() } else { 0 };
        Self {
            policy,
            idempotent,
            scope,
            bound,
            is_callers_bound,
            attempts: Vec::new(),
            n_unsent: 0,
            started,
            n_tried,
            rng: None,
            was_refused: false,
            paid: None,
        }
    }

    /// The request of the next attempt, which begins; `None` when it can no longer be repeated.
    pub(super) fn next<T, Req>(&mut self, spare: &mut Option<Req>) -> Option<Req>
    where
        R: Protocol<Req, T>,
    {
        // Again: its body may have been read further during the pause.
        let request = spare.take().filter(|copy| self.policy.protocol.is_repeatable(copy))?;
        *spare = self.policy.protocol.copy(&request);
        if let Some(paid) = self.paid.take() {
            paid.spend();
        }
        self.begin();
        Some(request)
    }

    /// The next attempt has no service to go to.
    pub(super) fn unready<T>(&mut self, error: BoxError) -> Ended<T> {
        self.begin();
        (Err(error), Verdict::Final)
    }

    fn begin(&mut self) {
        self.started = Instant::now();
        self.n_tried = self.scope.n_tried();
        // That of the attempt before.
        self.scope.give_up();
    }

    /// Whether that response is the caller's.
    pub(super) fn is_final<T, Req>(&self, response: &T) -> bool
    where
        R: Protocol<Req, T>,
    {
        self.policy.protocol.verdict(Ok(response)) == Verdict::Final
    }

    /// A success pays for retries.
    pub(super) fn deposit<T, Req>(&self, response: &T)
    where
        R: Protocol<Req, T>,
    {
        if let Some(budget) = self.policy.paying()
            && self.policy.protocol.outcome(Ok(response)) == Outcome::Success
            && !self.policy.protocol.is_rejection(response)
        {
            budget.deposit(Instant::now());
        }
    }

    pub(super) fn classify<T, Req>(&self, result: Result<T, BoxError>) -> Ended<T>
    where
        R: Protocol<Req, T>,
    {
        let verdict = self.policy.protocol.verdict(result.as_ref());
        let Err(error) = &result else {
            return (result, verdict);
        };
        let verdict = match self.no_instances(error) {
            // Waiting as long again is of no use.
            Some(none) if none.has_waited() => Verdict::Final,
            Some(_) => Verdict::NotSent,
            None if !self.has_endpoint() => match self.scope.give_up() {
                // A timeout above the balancer has dropped the search: nothing was sent.
                Some(none) => return (Err(none.into()), Verdict::NotSent),
                // More requests are what a limit is against.
                None if error.is::<Overloaded>() => Verdict::Final,
                None => verdict,
            },
            // The endpoint below has reported it itself.
            None if verdict != Verdict::Final => match self.scope.was_sent_since(self.n_tried) {
                true => Verdict::Failed,
                false => Verdict::NotSent,
            },
            None => verdict,
        };
        (result, verdict)
    }

    /// The error of the balancer below that found no instance for this request; not that of a
    /// balancer inside an endpoint.
    fn no_instances<'e>(&self, error: &'e BoxError) -> Option<&'e NoInstances> {
        let mut none = causes(&**error).filter_map(|error| error.downcast_ref::<NoInstances>());
        none.find(|none| none.is_of(self.scope.id()))
    }

    /// Whether a balancer below has given the attempt in flight to an endpoint.
    fn has_endpoint(&self) -> bool {
        self.scope.n_tried() > self.n_tried
    }

    /// Drops the attempt in flight: the time is over for its endpoint.
    pub(super) fn time_out<T>(&self, drop: impl FnOnce() -> T) -> T {
        // A hedge beside it had less time.
        let first = self.scope.nth(self.n_tried);
        InFlight::time_out(first.map(|(key, _)| key), drop)
    }

    /// The same when the time for all attempts is over; returns the error.
    pub(super) fn time_out_all(&mut self, bound: Duration, drop: impl FnOnce()) -> BoxError {
        // The caller's haste is no fault of the endpoint.
        match self.is_callers_bound {
            true => drop(),
            false => self.time_out(drop),
        }
        let none = self.scope.give_up().filter(|_| !self.has_endpoint());
        self.ended(none.map_or_else(|| Elapsed(bound).into(), BoxError::from));
        self.fail(None, End::Deadline(bound))
    }

    /// The bound of the attempt in flight, once an endpoint has it.
    pub(super) fn per_try(&self) -> Option<Duration> {
        self.policy.per_try().filter(|_| self.has_endpoint() || !self.scope.is_searching())
    }

    /// Goes on with the next attempt, which sends `spare`, after a pause that ends by `until`,
    /// or ends.
    pub(super) fn step<T, Req>(
        &mut self,
        (result, verdict): Ended<T>,
        spare: Option<&Req>,
        until: Option<Instant>,
    ) -> ControlFlow<Result<T, BoxError>, Duration>
    where
        R: Protocol<Req, T>,
    {
        let (response, error) = match result {
            Ok(response) => (Some(response), BoxError::from(REJECTED)),
            Err(error) => (None, error),
        };
        self.ended(error);
        let number = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        self.n_unsent += u32::from(verdict == Verdict::NotSent);
        // What reaches no instance leaves the retries to what does.
        let n = match verdict {
            Verdict::Final => None,
            Verdict::NotSent => Some(self.n_unsent),
            Verdict::Failed => self.idempotent.then(|| number - self.n_unsent),
        };
        let is_left = n.is_some_and(|n| n < self.policy.attempts)
            && spare.is_some_and(|copy| self.policy.protocol.is_repeatable(copy));
        let pause = is_left.then(|| {
            let asked = response.as_ref().and_then(|it| self.policy.protocol.pause(it));
            asked.unwrap_or_else(|| self.pause(number))
        });
        let pause = pause.filter(|pause| {
            until.is_none_or(|until| until.duration_since(Instant::now()) >= *pause)
        });
        let next = match (&self.policy.on_failure, self.attempts.last()) {
            (Some(on_failure), Some(attempt)) => on_failure(number, attempt),
            _ => RetryDecision::Retry,
        };
        match (next, response, pause) {
            (RetryDecision::Retry, response, Some(pause)) => {
                if let Err(end) = self.withdraw(verdict, number) {
                    let fail = || Err(self.fail(None, end));
                    return ControlFlow::Break(response.map_or_else(fail, Ok));
                }
                self.observe(number, Some(pause));
                ControlFlow::Continue(pause)
            }
            (RetryDecision::Fail(error), ..) => {
                ControlFlow::Break(Err(self.fail(Some(error), End::Failure)))
            }
            // The last response is the caller's, however it is judged.
            (RetryDecision::Retry | RetryDecision::Stop, Some(response), _) => {
                ControlFlow::Break(Ok(response))
            }
            (RetryDecision::Retry | RetryDecision::Stop, None, _) => {
                ControlFlow::Break(Err(self.fail(None, End::Failure)))
            }
        }
    }

    /// The request is repeated after a pause; `None`: its budget is exhausted.
    fn observe(&self, attempt: u32, pause: Option<Duration>) {
        let Some(last) = self.attempts.last() else {
            return;
        };
        let (instance, error) = (last.instance(), &**last.error());
        let (shown, chain) = (instance.map(InstanceId::as_str), chain(error));
        self.policy.observers.on(&match pause {
            Some(pause) => {
                tracing::debug!(attempt, instance = shown, error = %chain, ?pause, "request is repeated");
                Event::Retried { attempt, instance, error, pause }
            }
            None => {
                tracing::debug!(attempt, instance = shown, error = %chain, "retry budget exhausted");
                Event::BudgetExhausted { attempt, instance, error }
            }
        });
    }

    /// Another attempt is paid, or free because nothing was sent, and the limits admit it.
    ///
    /// What an instance has refused is free once: refusing costs it work (gRFC A6).
    fn withdraw(&mut self, verdict: Verdict, attempt: u32) -> Result<(), End> {
        let is_free = verdict == Verdict::NotSent
            && (!self.has_endpoint() || !mem::replace(&mut self.was_refused, true));
        if let Some(budget) = self.policy.paying().filter(|_| !is_free) {
            self.paid = budget.withdraw(Instant::now());
            if self.paid.is_none() {
                self.observe(attempt, None);
                return Err(End::Budget);
            }
        }
        self.scope.admit_retry().map_err(|refused| {
            self.paid = None;
            End::Limit(refused)
        })
    }

    /// The attempt in flight is over.
    fn ended(&mut self, error: BoxError) {
        let instance = self.scope.last_since(self.n_tried);
        let elapsed = self.started.elapsed();
        self.attempts.push(Attempt { instance, error, elapsed });
    }

    fn pause(&mut self, n: u32) -> Duration {
        let seed = self.policy.seed;
        let rng = self.rng.get_or_insert_with(|| seed.map_or_else(Rng::new, Rng::with_seed));
        self.policy.pause(n, rng)
    }

    /// The time for all attempts is over.
    pub(super) fn late(&mut self) -> BoxError {
        let end = self.bound.map_or(End::Failure, End::Deadline);
        self.fail(None, end)
    }

    pub(super) fn fail(&mut self, replacement: Option<BoxError>, end: End) -> BoxError {
        self.paid = None;
        drop(self.scope.admitted());
        let attempts = mem::take(&mut self.attempts);
        RetryError { attempts, replacement, end }.into()
    }
}

impl<R> Drop for Story<R> {
    fn drop(&mut self) {
        // The caller may keep the scope.
        if !self.attempts.is_empty() {
            drop(self.scope.admitted());
        }
    }
}

const REJECTED: &str = "the response is one of failure";
