use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tower_sd_core::{Error, ErrorKind, Result};

use crate::{Limit, Overloaded};

/// Bounds of the requests to one service: what is above them fails immediately.
///
/// They are the circuit breakers of Envoy, of one [`Endpointer`](crate::Endpointer): its balancers
/// and their clients share them. A request counts until the body of its response has ended. What
/// is above a bound fails with [`Overloaded`] before anything is sent, and is not repeated: a
/// service that is overloaded gets no more than it can bear. By default there are none.
///
/// Connections are bounded by the factories of HTTP: per instance, and of all by
/// `ConnectionLimit`.
///
/// ```
/// use tower_sd::endpoint::{EndpointerConfig, Limits};
///
/// let limits = Limits::new().max_requests_per_endpoint(50).max_requests(400).max_pending(100);
/// let config = EndpointerConfig::new().limits(limits);
/// # drop(config);
/// ```
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct Limits {
    max_requests_per_endpoint: Option<usize>,
    max_requests: Option<usize>,
    max_pending: Option<usize>,
    max_retries: Option<usize>,
}

/// What is in flight by the [`Limits`], and what they have refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LimitsReport {
    /// Requests in flight, those that wait included. Counted with limits alone.
    pub requests: usize,
    /// Requests that wait for an endpoint.
    pub pending: usize,
    /// Retries and hedges in flight.
    pub retries: usize,
    /// Requests that [`Limits::max_requests`] has refused.
    pub refused_requests: u64,
    /// Requests that [`Limits::max_pending`] has refused.
    pub refused_pending: u64,
    /// Retries and hedges that [`Limits::max_retries`] has refused.
    pub refused_retries: u64,
}

/// The counters of one endpointer.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    limits: Limits,
    /// By [`Limit`].
    in_flight: [AtomicUsize; N_LIMITS],
    refused: [AtomicU64; N_LIMITS],
    /// An endpoint has a free place again.
    pub(crate) freed: Notify,
    /// How many places have become free.
    n_freed: AtomicU64,
}

/// A request that counts, by its limit.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Breaker>, Limit);

impl Limits {
    /// No limits, which is the default of each.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds the requests in flight at one endpoint.
    ///
    /// One that has as many is busy: another is picked, and when all are, requests wait for the
    /// first free place, see [`ready_timeout`](crate::BalanceLayer::ready_timeout).
    pub fn max_requests_per_endpoint(self, max: usize) -> Self {
        Self { max_requests_per_endpoint: Some(max), ..self }
    }

    /// Bounds the attempts in flight at all endpoints, those that wait included.
    pub fn max_requests(self, max: usize) -> Self {
        Self { max_requests: Some(max), ..self }
    }

    /// Bounds the attempts that wait for an endpoint: it connects, or all are busy.
    ///
    /// With 0 none waits, and one that an endpoint takes immediately is none of them.
    pub fn max_pending(self, max: usize) -> Self {
        Self { max_pending: Some(max), ..self }
    }

    /// Bounds the retries and hedges in flight.
    ///
    /// A [`RetryBudget`](crate::RetryBudget) bounds them in proportion to the load, and is on by
    /// default. A retry counts from its pause on. One above the bound is not sent: its request ends
    /// with the response or the error that there is, and
    /// [`refused_retry`](crate::RetryError::refused_retry). A hedge is not sent either.
    pub fn max_retries(self, max: usize) -> Self {
        Self { max_retries: Some(max), ..self }
    }

    /// Whether its bounds agree.
    ///
    /// # Errors
    ///
    /// A bound of 0 requests, or a bound for one endpoint that is above that for all.
    pub fn check(&self) -> Result<()> {
        let message = match (self.max_requests_per_endpoint, self.max_requests) {
            (Some(0), _) => "limit of 0 requests per endpoint lets none pass".to_owned(),
            (_, Some(0)) => "limit of 0 requests lets none pass".to_owned(),
            (Some(one), Some(all)) if one > all => {
                format!("limit of {one} requests per endpoint is above limit of {all} requests")
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, "endpointer", "build").with_message(message))
    }

    fn max(&self, limit: Limit) -> Option<usize> {
        match limit {
            Limit::Requests => self.max_requests,
            Limit::Pending => self.max_pending,
            Limit::Retries => self.max_retries,
        }
    }
}

impl Breaker {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether anything is limited.
    pub(crate) fn is_on(&self) -> bool {
        self.limits != Limits::default()
    }

    /// Whether the requests of each endpoint are.
    pub(crate) fn has_places(&self) -> bool {
        self.limits.max_requests_per_endpoint.is_some()
    }

    /// Whether requests wait, for a place perhaps.
    pub(crate) fn has_queue(&self) -> bool {
        self.has_places() && self.in_flight[Limit::Pending as usize].load(Relaxed) > 0
    }

    /// A request of that kind begins, or is refused.
    pub(crate) fn admit(self: &Arc<Self>, limit: Limit) -> std::result::Result<Ticket, Overloaded> {
        let (index, max) = (limit as usize, self.limits.max(limit));
        let more = |n: usize| max.is_none_or(|max| n < max).then_some(n + 1);
        match self.in_flight[index].fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(Ticket(Arc::clone(self), limit)),
            // There is a bound, or it would have been admitted.
            Err(_) => {
                self.refused[index].fetch_add(1, Relaxed);
                Err(Overloaded::new(limit, max.unwrap_or_default()))
            }
        }
    }

    pub(crate) fn report(&self) -> LimitsReport {
        let [requests, pending, retries] = self.in_flight.each_ref().map(|n| n.load(Relaxed));
        let refused = self.refused.each_ref().map(|n| n.load(Relaxed));
        let [refused_requests, refused_pending, refused_retries] = refused;
        LimitsReport {
            requests,
            pending,
            retries,
            refused_requests,
            refused_pending,
            refused_retries,
        }
    }

    /// An endpoint has a free place.
    pub(crate) fn free(&self) {
        self.n_freed.fetch_add(1, Relaxed);
        self.freed.notify_one();
    }

    /// One that waits cannot use the free place that it was woken for: another may. It passes each
    /// on once.
    pub(crate) fn pass_on(&self, passed: &mut u64) {
        let n_freed = self.n_freed.load(Relaxed);
        if std::mem::replace(passed, n_freed) != n_freed {
            self.freed.notify_one();
        }
    }

    pub(crate) fn is_full(&self, n: usize) -> bool {
        self.limits.max_requests_per_endpoint.is_some_and(|max| n >= max)
    }
}

impl Ticket {
    pub(crate) fn is_of(&self, breaker: &Arc<Breaker>) -> bool {
        Arc::ptr_eq(&self.0, breaker)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_flight[self.1 as usize].fetch_sub(1, Relaxed);
    }
}

const N_LIMITS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradicting_limits_are_refused_with_their_values() {
        for (limits, message) in [
            (Limits::new().max_requests(0), "limit of 0 requests"),
            (Limits::new().max_requests_per_endpoint(0), "limit of 0 requests per endpoint"),
            (
                Limits::new().max_requests_per_endpoint(20).max_requests(10),
                "limit of 20 requests per endpoint is above limit of 10 requests",
            ),
        ] {
            let error = limits.check().expect_err("refused").to_string();
            assert!(error.contains(message), "{error}");
        }
        let agreeing = Limits::new().max_requests(10).max_pending(0).max_retries(0);
        assert!(agreeing.check().is_ok());
    }

    #[test]
    fn refusals_are_counted_and_ends_make_room() {
        let breaker = Arc::new(Breaker::new(Limits::new().max_requests(2).max_retries(0)));
        let one = breaker.admit(Limit::Requests).expect("room");
        let _two = breaker.admit(Limit::Requests).expect("room");
        let error = breaker.admit(Limit::Requests).expect_err("full");
        assert_eq!(error.to_string(), "overloaded: 2 requests are in flight");
        breaker.admit(Limit::Retries).expect_err("none is allowed");
        drop(one);
        let report = breaker.report();
        assert_eq!((report.requests, report.retries), (1, 0));
        assert_eq!((report.refused_requests, report.refused_retries), (1, 1));
        breaker.admit(Limit::Requests).expect("room again");
    }
}
