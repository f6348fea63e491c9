use std::fmt;

use tower_sd_core::BoxError;

use crate::{NotSent, Overloaded};

/// The end of one request at one endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The instance did its work; the response may still be an error of the caller's.
    Success,
    /// The instance failed.
    Failed(FailureClass),
    /// Nothing of the request was sent: repeating it is safe, whatever it is.
    NotSent,
    /// The time for the attempt was over before the instance had answered.
    TimedOut,
    /// The caller, or the sender of the request's body, broke it off: no statement about the
    /// instance.
    Cancelled,
}

/// The kind of an instance's failure.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FailureClass {
    /// The exchange broke, or its response was malformed.
    Exchange,
    /// The response reports a failure of the instance: HTTP 5xx, gRPC UNAVAILABLE.
    Response,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Failed(FailureClass::Exchange) => "failed exchange",
            Self::Failed(FailureClass::Response) => "failed response",
            Self::NotSent => "not sent",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Outcome {
    /// The outcome of `error`: not sent, or a failed exchange.
    ///
    /// A [`NotSent`] and an [`Overloaded`] are not sent. The sources are not searched: an endpoint
    /// may have sent requests of its own.
    pub fn of_error(error: &BoxError) -> Self {
        match error.is::<NotSent>() || error.is::<Overloaded>() {
            true => Self::NotSent,
            false => Self::Failed(FailureClass::Exchange),
        }
    }

    /// Its place among the counters; successes have none, they are the rest.
    pub(crate) fn index(self) -> Option<usize> {
        match self {
            Self::Success => None,
            Self::Failed(FailureClass::Exchange) => Some(0),
            Self::Failed(FailureClass::Response) => Some(1),
            Self::NotSent => Some(2),
            Self::TimedOut => Some(3),
            Self::Cancelled => Some(4),
        }
    }
}

pub(crate) const N_COUNTED: usize = 5;
