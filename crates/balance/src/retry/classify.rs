use std::fmt;

use tower_sd_core::BoxError;

use crate::Outcome;

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
