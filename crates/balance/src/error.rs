use std::{error, fmt, sync::Arc};

use tower_sd_core::{BoxError, chain};

/// There is no instance to send a request to.
///
/// Nothing was sent: repeating is safe. A [`Retry`](crate::Retry) does so, after its pauses, unless
/// the request has waited for an instance already. `source()` is the cause: the registry's error,
/// the factory's, or the last connection's.
#[derive(Debug)]
pub struct NoInstances {
    reason: NoInstancesReason,
    source: Option<BoxError>,
    waited: bool,
    /// The request that found none, see [`RequestScope::id`](crate::RequestScope).
    request: Option<u64>,
}

/// One failure that several requests, and a report, share.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Arc<BoxError>);

/// Why there is no instance.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NoInstancesReason {
    /// All are busy: they take no more requests at the moment.
    Busy,
    /// The endpointer was closed. Reported immediately.
    Closed,
    /// The registry lists none. Reported immediately.
    Empty,
    /// The registry has not answered yet.
    NeverSynced,
    /// There are instances, and none is ready yet: their services are made, or connect.
    NotReady,
    /// None has accepted a connection.
    Refused,
    /// All that are listed have weight 0. Reported immediately.
    Ineligible,
    /// None has the label that the request selects, see [`Select`](crate::Select).
    Unmatched,
    /// The balancer has returned an index that the set does not have. Reported immediately.
    OutOfRange,
}

impl NoInstances {
    pub(crate) fn new(reason: NoInstancesReason, source: Option<BoxError>) -> Self {
        Self { reason, source, waited: false, request: None }
    }

    /// Why.
    pub fn reason(&self) -> NoInstancesReason {
        self.reason
    }

    /// Whether the request has waited for an instance for as long as it may.
    ///
    /// Waiting again is of no use.
    pub fn has_waited(&self) -> bool {
        self.waited
    }

    /// Whether it is certain, so that waiting is of no use.
    pub(crate) fn is_known(&self) -> bool {
        use NoInstancesReason::{Closed, Empty, Ineligible, OutOfRange};
        matches!(self.reason, Closed | Empty | Ineligible | OutOfRange)
    }

    /// With a label, ready ones that were not picked have others.
    pub(crate) fn of_label(mut self, label: Option<&str>) -> Self {
        if label.is_some() && self.reason == NoInstancesReason::Busy {
            self.reason = NoInstancesReason::Unmatched;
        }
        self
    }

    pub(crate) fn waited(self) -> Self {
        Self { waited: true, ..self }
    }

    pub(crate) fn with_source(self, source: Option<BoxError>) -> Self {
        Self { source: source.or(self.source), ..self }
    }

    pub(crate) fn of_request(self, request: Option<u64>) -> Self {
        Self { request, ..self }
    }

    /// Whether it is this request that found none, and not one that an endpoint has sent on its
    /// behalf.
    pub(crate) fn is_of(&self, request: u64) -> bool {
        self.request == Some(request)
    }
}

impl Failure {
    pub(crate) fn new(error: BoxError) -> Self {
        Self(Arc::new(error))
    }

    pub(crate) fn cause(&self) -> &(dyn error::Error + 'static) {
        &**self.0
    }

    /// Its text with all causes, at most [`MAX_SHOWN`] bytes of it: a peer may have written some.
    pub(crate) fn shown(&self) -> String {
        let mut text = chain(self).to_string();
        if text.len() > MAX_SHOWN {
            let end = (0..=MAX_SHOWN).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for NoInstancesReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "all are busy",
            Self::Closed => "the endpointer was closed",
            Self::Empty => "the registry lists none",
            Self::NeverSynced => "the registry has not answered yet",
            Self::NotReady => "none is ready yet",
            Self::Refused => "none accepts a connection",
            Self::OutOfRange => "the balancer's index is out of range",
            Self::Ineligible => "all have weight 0",
            Self::Unmatched => "none has the label of the request",
        })
    }
}

impl fmt::Display for NoInstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no instances: {}", self.reason)
    }
}

impl error::Error for NoInstances {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source: &(dyn error::Error + 'static) = &**self.source.as_ref()?;
        // A shared failure is transparent, so that its type is found in the chain.
        Some(source.downcast_ref::<Failure>().map_or(source, Failure::cause))
    }
}

/// A failure before anything of the request was sent.
///
/// Repeating the request is safe, whatever it is.
///
/// An endpoint whose connection was dead when it was called returns it. (One that has
/// [taken](crate::InFlight::take) its guard reports [`Outcome::NotSent`](crate::Outcome) instead,
/// and may return any error.)
#[derive(Debug)]
pub struct NotSent(BoxError);

impl NotSent {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was not sent")
    }
}

impl error::Error for NotSent {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// An instance is reachable, and reports that it does not serve for now.
///
/// An endpoint whose `poll_ready` fails with it, or with an error that has it among its sources, is
/// down and probed again, as after a refused connection. But it is not created anew, and it stays
/// while the instance is held that the registry no longer lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a mark, which endpoints make")]
pub struct NotServing;

impl fmt::Display for NotServing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the instance reports that it does not serve")
    }
}

impl error::Error for NotServing {}

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

/// Enough for five causes.
const MAX_SHOWN: usize = 512;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn failure_shows_its_causes_within_a_bound() {
        let refused = NoInstances::new(NoInstancesReason::Refused, None)
            .with_source(Some(io::Error::other("connection refused").into()));
        let shown = Failure::new(refused.into()).shown();
        assert_eq!(shown, "no instances: none accepts a connection: connection refused");
        let long = Failure::new("ä".repeat(1000).into()).shown();
        assert_eq!((long.len(), long.ends_with("ä…")), (MAX_SHOWN + '…'.len_utf8(), true));
    }
}
