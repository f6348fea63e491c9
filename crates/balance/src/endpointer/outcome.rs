use tower_sd_core::BoxError;

use crate::NotSent;

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
    /// The caller, or the sender of the request's body, broke it off: no statement about the instance.
    Cancelled,
}

/// The kind of an instance's failure.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FailureClass {
    /// The exchange broke, or its answer was malformed.
    Exchange,
    /// The response reports a failure of the instance: HTTP 5xx, gRPC UNAVAILABLE.
    Response,
}

impl Outcome {
    /// [`NotSent`](Self::NotSent) when the error itself is a [`NotSent`], else a failed exchange.
    ///
    /// Its sources are not searched: an endpoint may have sent requests of its own.
    #[must_use]
    pub fn of_error(error: &BoxError) -> Self {
        match error.is::<NotSent>() {
            true => Self::NotSent,
            false => Self::Failed(FailureClass::Exchange),
        }
    }

    /// Its place among the counters; successes have none, they are the rest.
    pub(super) fn index(self) -> Option<usize> {
        usize::from(self.code()).checked_sub(1)
    }

    #[inline]
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed(FailureClass::Exchange) => 1,
            Self::Failed(FailureClass::Response) => 2,
            Self::NotSent => 3,
            Self::TimedOut => 4,
            Self::Cancelled => 5,
        }
    }

    #[inline]
    pub(super) fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::Failed(FailureClass::Exchange),
            2 => Self::Failed(FailureClass::Response),
            3 => Self::NotSent,
            4 => Self::TimedOut,
            _ => Self::Cancelled,
        }
    }
}

pub(super) const N_COUNTED: usize = 5;
