use std::{fmt, time::Duration};

use tower_sd_core::BoxError;

use crate::Outcome;

/// What the requests, responses and errors of a protocol mean: to the statistics of endpoints, and
/// to a [`Retry`](crate::Retry).
///
/// The HTTP crate has one for methods, bodies and statuses; for every other request that is `Clone`
/// there is [`CloneRequest`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no protocol for requests of type `{Req}`",
    note = "`CloneRequest` repeats every request that is `Clone`; for HTTP requests there is `HttpProtocol` of tower-sd-http"
)]
pub trait Protocol<Req, Res> {
    /// A copy of `request`, made before the first is sent. `None`: this one cannot be repeated.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Whether `copy` can still be sent; called immediately before that. Defaults to yes.
    ///
    /// A body that is streamed is kept up to a bound: it may have passed it since the copy was
    /// made.
    fn is_repeatable(&self, _copy: &Req) -> bool {
        true
    }

    /// Whether `copy` can be sent while the first is still in flight; called immediately before.
    ///
    /// Defaults to [`is_repeatable`](Self::is_repeatable). A body that is still being read by the
    /// first cannot.
    fn is_shareable(&self, copy: &Req) -> bool {
        self.is_repeatable(copy)
    }

    /// Whether sending `request` twice has the effect of sending it once. Defaults to no, because
    /// it is not known.
    ///
    /// A request that was never sent is repeated all the same.
    fn is_idempotent(&self, _request: &Req) -> bool {
        false
    }

    /// Whose failure the result is, if it is one. Defaults to [`Outcome::of_error`] for errors;
    /// responses are successes.
    fn outcome(&self, result: Result<&Res, &BoxError>) -> Outcome {
        result.map_or_else(Outcome::of_error, |_| Outcome::Success)
    }

    /// Whether another attempt may mend it. Defaults to [`Verdict::of`] the outcome.
    fn verdict(&self, result: Result<&Res, &BoxError>) -> Verdict {
        match (self.outcome(result), result) {
            // Whatever it means to the statistics, an error leaves the caller without a response.
            (Outcome::Cancelled, Err(error)) => Verdict::of_error(error),
            (outcome, _) => Verdict::of(outcome),
        }
    }

    /// Whether the response rejects the request because there are too many. Defaults to no.
    ///
    /// It is no failure of the instance, and pays for no retries.
    fn is_rejection(&self, _response: &Res) -> bool {
        false
    }

    /// The wait that the peer requires before another attempt. Defaults to `None`: the policy's
    /// backoff applies.
    fn pause(&self, _response: &Res) -> Option<Duration> {
        None
    }
}

/// Repeats by `Clone`; every error is a failure, and every response a success.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CloneRequest;

impl<Req: Clone, Res> Protocol<Req, Res> for CloneRequest {
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Whether another attempt may mend an outcome.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The caller gets it: a success, or a failure that repeating cannot mend.
    Final,
    /// It failed before anything was sent: repeating is always safe.
    NotSent,
    /// It failed, and the peer may have acted on it: repeated only when that does no harm.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Final => "final",
            Self::NotSent => "not sent",
            Self::Failed => "failed",
        })
    }
}

impl Verdict {
    /// [`Final`](Self::Final) for successes and what the caller has broken off.
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Cancelled => Self::Final,
            Outcome::NotSent => Self::NotSent,
            Outcome::Failed(_) | Outcome::TimedOut => Self::Failed,
        }
    }

    /// [`NotSent`](Self::NotSent) when the error is a [`NotSent`](crate::NotSent) or an
    /// [`Overloaded`](crate::Overloaded), else [`Failed`](Self::Failed).
    ///
    /// Its sources are not searched: what failed may have sent requests of its own. Below a
    /// `Retry`, a [`Balance`](crate::Balance) reports the same whatever wraps the error.
    pub fn of_error(error: &BoxError) -> Self {
        Self::of(Outcome::of_error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Once;

    impl Protocol<(), ()> for Once {
        fn copy(&self, (): &()) -> Option<()> {
            Some(())
        }

        fn is_repeatable(&self, (): &()) -> bool {
            false
        }
    }

    #[test]
    fn what_cannot_be_repeated_is_not_shared() {
        assert!(!Once.is_shareable(&()));
        assert!(Protocol::<(), ()>::is_shareable(&CloneRequest, &()));
    }

    #[test]
    fn verdicts_are_named() {
        let verdicts = [Verdict::Final, Verdict::NotSent, Verdict::Failed];
        assert_eq!(verdicts.map(|verdict| verdict.to_string()), ["final", "not sent", "failed"]);
    }
}
