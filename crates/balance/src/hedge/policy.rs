use std::{sync::Arc, time::Duration};

use tower_sd_core::{Error, ErrorKind, Result};

use crate::{CloneRequest, Observer, RetryBudget, endpointer::observer::Observers};

/// When a [`Hedge`](crate::Hedge) sends a request to a second instance.
///
/// Only requests are hedged that may be repeated: idempotent by their method (HTTP) or by your
/// declaration ([`idempotent`](Self::idempotent)), as with [`RetryPolicy`](crate::RetryPolicy).
///
/// ```
/// use std::time::Duration;
/// use tower_sd::retry::HedgePolicy;
///
/// let slowest = HedgePolicy::percentile(95);
/// let fixed = HedgePolicy::after(Duration::from_millis(50)).max_extra_load(2);
/// # drop((slowest, fixed));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HedgePolicy<R = CloneRequest> {
    pub(super) delay: Delay,
    pub(super) extra: Option<u8>,
    pub(super) idempotent: bool,
    pub(super) budget: Option<RetryBudget>,
    pub(super) pays: bool,
    pub(super) observers: Observers,
    pub(super) protocol: R,
}

/// When a request is hedged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delay {
    Fixed(Duration),
    Percentile(u8),
}

impl HedgePolicy {
    /// Hedges after `delay` since an instance has the request.
    pub fn after(delay: Duration) -> Self {
        Self::with(Delay::Fixed(delay))
    }

    /// Hedges the requests that take longer than `percent` % of this client's own.
    ///
    /// The client needs 100 of its latencies for it, and hedges nothing before. It keeps the last
    /// 1 000, up to the heads of the responses, of requests that may be repeated. The delay is at
    /// least 1 ms, as Finagle's.
    pub fn percentile(percent: u8) -> Self {
        Self::with(Delay::Percentile(percent))
    }

    fn with(delay: Delay) -> Self {
        let (extra, budget, idempotent) = (None, None, false);
        let (observers, protocol) = (Observers::default(), CloneRequest);
        Self { delay, extra, idempotent, budget, pays: true, observers, protocol }
    }
}

impl<R> HedgePolicy<R> {
    /// Bounds the requests that are hedged, in percent of all of the last 10 s.
    ///
    /// Defaults to what is above the percentile, and to 5 with a fixed delay, as in Dean and
    /// Barroso, "The Tail at Scale", CACM 2013. One per second is hedged in any case, where that is
    /// more. When all instances become slow, this and the budget bound the load.
    pub fn max_extra_load(self, percent: u8) -> Self {
        Self { extra: Some(percent), ..self }
    }

    /// Treats all requests as idempotent.
    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// Withdraws from `budget`, to which a [`Retry`](crate::Retry) deposits.
    ///
    /// Defaults to one of the layer's own, to which each good answer adds.
    /// [`RetryPolicy::hedged`](crate::RetryPolicy::hedged) sets that of the retries.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        (self.budget, self.pays) = (Some(budget), false);
        self
    }

    /// Adds an observer of [`Event::Hedged`](crate::Event::Hedged).
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observers: self.observers.with(Some(observer)), ..self }
    }

    /// Repeats and classifies with `protocol` instead of [`CloneRequest`].
    pub fn protocol<Q>(self, protocol: Q) -> HedgePolicy<Q> {
        let Self { delay, extra, idempotent, budget, pays, observers, protocol: _ } = self;
        HedgePolicy { delay, extra, idempotent, budget, pays, observers, protocol }
    }

    /// Whether its settings agree.
    ///
    /// # Errors
    ///
    /// A percentile that is not in 1 to 99, an extra load that is not in 1 to 100 percent.
    pub fn check(&self) -> Result<()> {
        let message = match (self.delay, self.extra) {
            (Delay::Percentile(percent), _) if !(1..=99).contains(&percent) => {
                format!("percentile of {percent} is not in 1 to 99")
            }
            (_, Some(extra)) if !(1..=100).contains(&extra) => {
                format!("extra load of {extra} % is not in 1 to 100 %")
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, "hedge", "build").with_message(message))
    }

    /// In percent.
    pub(super) fn extra(&self) -> u8 {
        self.extra.unwrap_or(match self.delay {
            Delay::Fixed(_) => 5,
            Delay::Percentile(percent) => 100 - percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_out_of_range_is_refused_with_its_value() {
        for (policy, message) in [
            (HedgePolicy::percentile(0), "percentile of 0 is not in 1 to 99"),
            (HedgePolicy::percentile(100), "percentile of 100 is not in 1 to 99"),
            (
                HedgePolicy::after(Duration::ZERO).max_extra_load(0),
                "extra load of 0 % is not in 1 to 100 %",
            ),
            (
                HedgePolicy::percentile(95).max_extra_load(101),
                "extra load of 101 % is not in 1 to 100 %",
            ),
        ] {
            let error = policy.check().expect_err("refused").to_string();
            assert!(error.contains(message), "{error}");
        }
        assert!(HedgePolicy::percentile(99).max_extra_load(100).check().is_ok());
    }
}
