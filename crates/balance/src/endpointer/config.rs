use std::{fmt, sync::Arc, time::Duration};

use serde::Deserialize;
use tower_sd_core::{Instance, duration};

use super::{
    EjectionPolicy,
    observer::{Observer, Observers},
};
use crate::Limits;

/// Settings of an [`Endpointer`](crate::Endpointer).
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct EndpointerConfig {
    /// How many factories may run concurrently.
    ///
    /// Defaults to 32: enough that one that hangs delays no other, few enough that the
    /// first snapshot of a large service does not open 10 000 connections in one instant.
    pub max_concurrent_creations: usize,
    /// How long one run of the factory may take.
    ///
    /// Defaults to 10 s; then it has failed, and is tried again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub create_timeout: Duration,
    /// The ceiling of the first pause after a failed factory or a refused connection.
    ///
    /// It doubles up to [`max_backoff`](Self::max_backoff). Defaults to 100 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub initial_backoff: Duration,
    /// The ceiling of every later pause.
    ///
    /// Defaults to 10 s: a server that is back is found within 5 s on average.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_backoff: Duration,
    /// How long an endpoint may take to become ready.
    ///
    /// Defaults to 1 s. A service that is pending for longer, with nothing in flight, counts as
    /// down. After ten such times in a row, which take about 30 s, the factory runs anew.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// How long an instance that left may finish its requests in flight.
    ///
    /// Defaults to 30 s, as Kubernetes gives a pod to stop; then its service is dropped.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_timeout: Duration,
    /// The percentage of listed endpoints below which held ones are as good.
    ///
    /// Defaults to 50, the fraction of the guard: what is left must not carry the load of all that
    /// was lost. With 0, a held one gets a request only when there is no better one.
    pub held_below: u8,
    /// The percentage of healthy endpoints below which critical ones are as good.
    ///
    /// That is Envoy's panic threshold. Defaults to 0: only when there is no healthy one.
    pub panic_below: u8,
    /// When an endpoint that fails gets no requests for a while.
    pub ejection: EjectionPolicy,
    /// How long a new instance takes to get its full weight.
    ///
    /// Defaults to zero: it has that from the start. Its share of its weight grows from a tenth, as
    /// Envoy's, from the start that the registry reports, or else from its first sight; balancers
    /// that obey weights and [`LeastLoaded`](crate::LeastLoaded) follow it. An instance that is
    /// listed again within that time, at the same address, goes on. When none of the instances was
    /// there before, none starts slowly.
    #[serde(deserialize_with = "duration::deserialize")]
    pub slow_start: Duration,
    /// How many requests may be in flight. Defaults to no limits.
    pub limits: Limits,
    #[serde(skip)]
    pub(super) subset: Option<Arc<dyn Subset>>,
    #[serde(skip)]
    pub(super) observers: Observers,
}

/// A choice of the instances that get an endpoint at all.
///
/// # Contract
///
/// Called with all instances that the registry lists or holds, sorted by id. The same instances
/// must have the same result: it is compared to the one before.
pub trait Subset: fmt::Debug + Send + Sync + 'static {
    /// The instances that get an endpoint.
    fn select(&self, instances: &[Instance]) -> Vec<Instance>;
}

impl EndpointerConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_concurrent_creations: 32,
            create_timeout: Duration::from_secs(10),
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            held_below: 50,
            panic_below: 0,
            ejection: EjectionPolicy::new(),
            slow_start: Duration::ZERO,
            limits: Limits::new(),
            subset: None,
            observers: Observers::default(),
        }
    }

    /// Sets the field of this name; 0 counts as 1.
    pub fn max_concurrent_creations(self, max: usize) -> Self {
        Self { max_concurrent_creations: max, ..self }
    }

    /// Sets [`create_timeout`](Self::create_timeout).
    pub fn create_timeout(self, timeout: Duration) -> Self {
        Self { create_timeout: timeout, ..self }
    }

    /// Sets the first and the longest pause between attempts to connect.
    ///
    /// They are the fields `initial_backoff` and `max_backoff`.
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.initial_backoff = initial;
        self.max_backoff = max;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets [`drain_timeout`](Self::drain_timeout).
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        Self { drain_timeout: timeout, ..self }
    }

    /// Sets [`held_below`](Self::held_below).
    pub fn held_below(self, percent: u8) -> Self {
        Self { held_below: percent, ..self }
    }

    /// Sets [`panic_below`](Self::panic_below).
    pub fn panic_below(self, percent: u8) -> Self {
        Self { panic_below: percent, ..self }
    }

    /// Sets [`ejection`](Self::ejection).
    pub fn ejection(self, ejection: EjectionPolicy) -> Self {
        Self { ejection, ..self }
    }

    /// Sets [`slow_start`](Self::slow_start).
    pub fn slow_start(self, window: Duration) -> Self {
        Self { slow_start: window, ..self }
    }

    /// Sets [`limits`](Self::limits).
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Creates endpoints for the instances alone that `subset` selects.
    pub fn subset(self, subset: impl Subset) -> Self {
        Self { subset: Some(Arc::new(subset)), ..self }
    }

    /// Adds an observer of its endpoints, and of the requests to them: all events but
    /// [`Event::Retried`](crate::Event::Retried) and `Connected`.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observers: self.observers.with(Some(observer)), ..self }
    }
}

impl Default for EndpointerConfig {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_a_file() {
        let text = r#"{ "max_backoff": "30s", "held_below": 20,
            "ejection": { "success_rate": 50, "max": "1m" } }"#;
        let config: EndpointerConfig = serde_json::from_str(text).unwrap();
        let mut ejection = EjectionPolicy::new();
        (ejection.success_rate, ejection.max) = (50, Duration::from_secs(60));
        assert_eq!((config.held_below, config.ejection), (20, ejection));
        assert_eq!(config.max_backoff, Duration::from_secs(30));
        assert_eq!(config.connect_timeout, EndpointerConfig::new().connect_timeout);
        for wrong in [r#"{ "max_backof": "30s" }"#, r#"{ "max_backoff": 30 }"#] {
            serde_json::from_str::<EndpointerConfig>(wrong).unwrap_err();
        }
    }
}
