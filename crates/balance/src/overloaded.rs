use std::{error, fmt};

/// One of the [`Limits`](crate::Limits) of a whole service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::max_requests`](crate::Limits::max_requests).
    Requests,
    /// [`Limits::max_pending`](crate::Limits::max_pending).
    Pending,
    /// [`Limits::max_retries`](crate::Limits::max_retries).
    Retries,
}

/// A request was not sent, because too many are in flight.
///
/// Repeating it is safe, and would add to the overload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Overloaded {
    limit: Limit,
    max: usize,
}

impl Overloaded {
    pub(crate) fn new(limit: Limit, max: usize) -> Self {
        Self { limit, max }
    }

    /// The limit that it would have exceeded.
    pub fn limit(&self) -> Limit {
        self.limit
    }
}

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            Limit::Requests => "requests are in flight",
            Limit::Pending => "requests wait for an instance",
            Limit::Retries => "retries are in flight",
        };
        write!(f, "overloaded: {} {what}", self.max)
    }
}

impl error::Error for Overloaded {}
