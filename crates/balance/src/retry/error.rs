use std::{error, fmt, time::Duration};

use tower_sd_core::{BoxError, InstanceId};

use crate::Overloaded;

/// A request has failed for good: what was tried, where, and what came of it.
///
/// `source()` is the last attempt's error, or the one that the policy's callback put in its place.
#[derive(Debug)]
pub struct RetryError {
    pub(super) attempts: Vec<Attempt>,
    pub(super) replacement: Option<BoxError>,
    pub(super) end: End,
}

/// What has put an end to the attempts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The last failure is final.
    Failure,
    /// The time for all attempts is over.
    Deadline(Duration),
    /// The retry budget is exhausted.
    Budget,
    /// A limit has refused another attempt.
    Limit(Overloaded),
}

/// One attempt of a [`RetryError`].
#[derive(Debug)]
pub struct Attempt {
    pub(super) instance: Option<InstanceId>,
    pub(super) error: BoxError,
    pub(super) elapsed: Duration,
}

/// There was no response within the bound of an attempt, or of all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Elapsed(pub(super) Duration);

impl RetryError {
    /// The attempts, in order; none when the deadline was over before the first.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Whether it was the deadline that put an end to it.
    pub fn is_deadline(&self) -> bool {
        matches!(self.end, End::Deadline(_))
    }

    /// Whether the [`RetryBudget`](crate::RetryBudget) had no retry left.
    pub fn is_budget_exhausted(&self) -> bool {
        self.end == End::Budget
    }

    /// The limit that has refused another attempt, if one has.
    ///
    /// It is [`Limits::max_retries`](crate::Limits::max_retries).
    pub fn refused_retry(&self) -> Option<&Overloaded> {
        match &self.end {
            End::Limit(refused) => Some(refused),
            _ => None,
        }
    }
}

impl Attempt {
    /// The instance that the request went to.
    ///
    /// `None` if no instance was chosen, or if a `Buffer` or a spawned task is between the `Retry`
    /// and the `Balance`.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// What went wrong.
    pub fn error(&self) -> &BoxError {
        &self.error
    }

    /// How long the attempt took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Failure => write!(f, "request failed")?,
            End::Deadline(bound) => write!(f, "request failed: no response within {bound:?}")?,
            End::Budget => write!(f, "request failed: retry budget exhausted")?,
            End::Limit(refused) => write!(f, "request failed: {refused}")?,
        }
        for (n, attempt) in self.attempts.iter().enumerate() {
            let separator = if n == 0 { " after" } else { "," };
            write!(f, "{separator} attempt {}{attempt}", n + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = &self.instance {
            write!(f, " at {instance}")?;
        }
        write!(f, " ({}, {:.1?})", self.error, self.elapsed)
    }
}

impl error::Error for RetryError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let last = self.attempts.last().map(|attempt| &attempt.error);
        self.replacement.as_ref().or(last).map(|error| {
            let error: &(dyn error::Error + 'static) = &**error;
            error
        })
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no response within {:?}", self.0)
    }
}

impl error::Error for Elapsed {}
