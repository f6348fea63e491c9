use std::{error::Error, iter::successors, mem, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;
use tower_sd_core::{BoxError, InstanceId, chain};

use super::{
    Attempt, Elapsed, Protocol, RetryDecision, RetryError, RetryPolicy, Verdict, Withdrawal,
    error::End as RetryEnd,
};
use crate::{
    NoInstances, Outcome, Overloaded, RequestScope,
    endpointer::{InFlight, observer::Event},
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
pub(super) enum End<T> {
    Response(T, Verdict),
    Error(BoxError, Verdict),
    Late(Late),
}

/// What has taken too long.
pub(super) enum Late {
    Attempt(Duration),
    All(Duration),
}

/// What becomes of it.
pub(super) enum Step<T> {
    Pause(Duration),
    Done(Result<T, BoxError>),
}

impl<R> Story<R> {
    pub(super) fn new(
        policy: Arc<RetryPolicy<R>>,
        idempotent: bool,
        (scope, n_tried): (RequestScope, usize),
        (bound, is_callers_bound): (Option<Duration>, bool),
        started: Instant,
    ) -> Self {
        Self {
            policy,
            idempotent,
            scope,
            bound,
            is_callers_bound,
            attempts: Vec::new(),
            started,
            n_tried,
            rng: None,
            was_refused: false,
            paid: None,
        }
    }

    /// Whether there is a copy, which the last attempt leaves none of, and it can still be sent.
    pub(super) fn is_repeatable<T, Req>(&self, spare: Option<&Req>) -> bool
    where
        R: Protocol<Req, T>,
    {
        spare.is_some_and(|copy| self.policy.protocol.is_repeatable(copy))
    }

    /// The request of the next attempt, which begins; `None` when it can no longer be repeated.
    pub(super) fn next<T, Req>(&mut self, spare: &mut Option<Req>) -> Option<Req>
    where
        R: Protocol<Req, T>,
    {
        // Again: its body may have been read further during the pause.
        let request = spare.take().filter(|copy| self.policy.protocol.is_repeatable(copy))?;
        if self.attempts_left() > 1 {
            *spare = self.policy.protocol.copy(&request);
        }
        if let Some(paid) = self.paid.take() {
            paid.spend();
        }
        self.begin();
        Some(request)
    }

    /// The next attempt has no service to go to.
    pub(super) fn unready<T>(&mut self, error: BoxError) -> End<T> {
        self.begin();
        End::Error(error, Verdict::Final)
    }

    fn begin(&mut self) {
        self.started = Instant::now();
        self.n_tried = self.scope.n_tried();
        // That of the attempt before.
        self.scope.give_up();
    }

    pub(super) fn classify<T, Req>(&self, result: Result<T, BoxError>) -> End<T>
    where
        R: Protocol<Req, T>,
    {
        match result {
            Ok(response) => {
                let verdict = self.policy.protocol.verdict(Ok(&response));
                End::Response(response, verdict)
            }
            Err(error) => {
                let none = self.no_instances(&error);
                // A timeout above the balancer has dropped the search: nothing was sent.
                if none.is_none()
                    && !self.has_endpoint()
                    && let Some(none) = self.scope.give_up()
                {
                    return End::Error(none.into(), Verdict::NotSent);
                }
                let verdict = match none {
                    // Waiting as long again is of no use.
                    Some(none) if none.has_waited() => Verdict::Final,
                    Some(_) => Verdict::NotSent,
                    // More requests are what a limit is against.
                    None if error.is::<Overloaded>() && !self.has_endpoint() => Verdict::Final,
                    None => match self.policy.protocol.verdict(Err(&error)) {
                        // The endpoint below has reported it itself.
                        Verdict::Failed | Verdict::NotSent if self.has_endpoint() => {
                            match self.scope.was_sent_since(self.n_tried) {
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
    pub(super) fn time_out<T>(&self, late: &Late, drop: impl FnOnce() -> T) -> T {
        // The caller's haste is no fault of the endpoint.
        if matches!(late, Late::All(_)) && self.is_callers_bound {
            return drop();
        }
        // A hedge beside it had less time.
        let first = self.scope.nth(self.n_tried);
        InFlight::time_out(first.map(|(key, _)| key), drop)
    }

    /// The bound of the attempt in flight, once an endpoint has it.
    pub(super) fn per_try(&self) -> Option<Duration> {
        self.policy.per_try().filter(|_| self.has_endpoint() || !self.scope.is_searching())
    }

    pub(super) fn step<T, Req>(&mut self, end: End<T>, repeatable: bool) -> Step<T>
    where
        R: Protocol<Req, T>,
    {
        let (response, error, verdict) = match end {
            End::Response(response, Verdict::Final) => {
                self.deposit::<_, Req>(&response);
                return Step::Done(Ok(response));
            }
            End::Response(response, verdict) => (Some(response), BoxError::from(REJECTED), verdict),
            End::Error(error, verdict) => (None, error, verdict),
            End::Late(Late::Attempt(bound)) => (None, Elapsed(bound).into(), Verdict::Failed),
            End::Late(Late::All(bound)) => {
                let none = self.scope.give_up().filter(|_| !self.has_endpoint());
                let none = none.map(BoxError::from);
                self.ended(none.unwrap_or_else(|| Elapsed(bound).into()));
                return Step::Done(Err(self.fail(None, RetryEnd::Deadline(bound))));
            }
        };
        self.ended(error);
        let safe = match verdict {
            Verdict::Final => false,
            Verdict::NotSent => true,
            Verdict::Failed => self.idempotent,
        };
        let left = repeatable && safe;
        let number = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        let next = match (&self.policy.on_failure, self.attempts.last()) {
            (Some(on_failure), Some(attempt)) => on_failure(number, attempt),
            _ => RetryDecision::Retry,
        };
        match (next, response) {
            (RetryDecision::Retry, response) if left => {
                if let Err(end) = self.withdraw(verdict, number) {
                    let fail = || Err(self.fail(None, end));
                    return Step::Done(response.map_or_else(fail, Ok));
                }
                let asked = response.and_then(|response| self.policy.protocol.pause(&response));
                let pause = asked.unwrap_or_else(|| self.pause(number));
                self.observe(number, pause);
                Step::Pause(pause)
            }
            (RetryDecision::Fail(error), _) => {
                Step::Done(Err(self.fail(Some(error), RetryEnd::Failure)))
            }
            // The last response is the caller's, however it is judged.
            (RetryDecision::Retry | RetryDecision::Stop, Some(response)) => {
                Step::Done(Ok(response))
            }
            (RetryDecision::Retry | RetryDecision::Stop, None) => {
                Step::Done(Err(self.fail(None, RetryEnd::Failure)))
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

    /// The attempt that would follow the last one is not paid.
    fn observe_exhausted(&self, attempt: u32) {
        let Some(last) = self.attempts.last() else {
            return;
        };
        let (instance, error) = (last.instance(), &**last.error());
        let shown = instance.map(InstanceId::as_str);
        tracing::debug!(attempt, instance = shown, error = %chain(error), "retry budget exhausted");
        self.policy.observers.on(&Event::BudgetExhausted { attempt, instance, error });
    }

    /// A success pays for retries.
    fn deposit<T, Req>(&self, response: &T)
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

    /// Another attempt is paid, or free because nothing was sent, and the limits admit it.
    ///
    /// What an instance has refused is free once: refusing costs it work (gRFC A6).
    fn withdraw(&mut self, verdict: Verdict, attempt: u32) -> Result<(), RetryEnd> {
        let is_free = verdict == Verdict::NotSent
            && (!self.has_endpoint() || !mem::replace(&mut self.was_refused, true));
        if let Some(budget) = self.policy.paying().filter(|_| !is_free) {
            self.paid = budget.withdraw(Instant::now());
            if self.paid.is_none() {
                self.observe_exhausted(attempt);
                return Err(RetryEnd::Budget);
            }
        }
        self.scope.admit_retry().map_err(|refused| {
            self.paid = None;
            RetryEnd::Limit(refused)
        })
    }

    /// The attempt in flight is over.
    fn ended(&mut self, error: BoxError) {
        let instance = self.scope.last_since(self.n_tried);
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

    /// The time for all attempts is over.
    pub(super) fn late(&mut self) -> BoxError {
        let end = self.bound.map_or(RetryEnd::Failure, RetryEnd::Deadline);
        self.fail(None, end)
    }

    pub(super) fn fail(&mut self, replacement: Option<BoxError>, end: RetryEnd) -> BoxError {
        self.paid = None;
        let attempts = mem::take(&mut self.attempts);
        RetryError::new(attempts, replacement, end).into()
    }
}

const REJECTED: &str = "the response is one of failure";
