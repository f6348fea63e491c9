use std::{error::Error, fmt};

use tower_sd_core::BoxError;

use crate::{NotSent, Outcome, Overloaded};

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

    /// [`NotSent`](Self::NotSent) when the error or one of its sources is a
    /// [`NotSent`](crate::NotSent) or an [`Overloaded`], else [`Failed`](Self::Failed).
    ///
    /// Below a `Retry`, a [`Balance`](crate::Balance) reports it better: an endpoint may have sent
    /// requests of its own.
    pub fn of_error(error: &BoxError) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
        while let Some(error) = next {
            if error.is::<NotSent>() || error.is::<Overloaded>() {
                return Self::NotSent;
            }
            next = error.source();
        }
        Self::Failed
    }
}
