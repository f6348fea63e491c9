//! The cache of live services: one endpoint per instance, kept across updates.

mod active_check;
mod config;
mod contain;
mod counted;
mod diff;
mod discover;
mod drain;
mod ejection;
mod endpoint;
mod factory;
mod health;
mod in_flight;
mod latency;
mod life;
pub(crate) mod observer;
mod report;
mod set;
mod shared;
mod signal;
mod state;
mod stats;
mod tiers;
mod trace;
mod worker;

#[cfg(test)]
mod tests;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tower_sd_core::{BoxError, Instance, Instancer};
use tracing::Instrument;

use self::worker::{Runs, work};
pub use self::{
    active_check::ActiveCheck,
    config::{EndpointerConfig, Subset},
    discover::Discovered,
    ejection::{Ejection, EjectionPolicy, EjectionReason},
    factory::{Factory, factory_fn},
    in_flight::{InFlight, Served},
    life::EndpointState,
    report::{EjectionReport, EndpointReport, EndpointerReport, Outcomes},
    stats::EndpointStats,
    tiers::Tier,
};
pub(crate) use self::{
    contain::contain,
    counted::Counted,
    ejection::Judge,
    endpoint::Endpoint,
    latency::{Decay, Started},
    set::{MAX_WEIGHT, Set},
    shared::Shared,
    signal::{PollReady, Signal},
    stats::Readiness,
    tiers::{N_TIERS, Subscriber, Tiers},
    trace::{Full, Held, Place, Probation, Trace},
};
use crate::NoInstances;

/// Keeps one live service for each instance of the service that it follows.
///
/// - Services are created in the background by a [`Factory`], up to
///   [`max_concurrent_creations`](EndpointerConfig::max_concurrent_creations) concurrently; failed
///   runs are repeated with backoff. A service whose readiness fails repeatedly is created anew.
/// - Connecting belongs to the endpoint, not to a request: one probe at a time, bounded, and its
///   result counts whichever requests still wait.
/// - An instance that stays keeps its service and its statistics, whatever changes around it; a
///   changed payload reaches its endpoint, a changed address makes a new one.
/// - An instance that leaves gets no more requests, finishes those in flight, and is dropped with
///   the last of them or after [`drain_timeout`](EndpointerConfig::drain_timeout). If it returns
///   meanwhile it gets its endpoint back.
/// - Updates are applied while no request flows.
///
/// A [`BalanceLayer`](crate::BalanceLayer) turns it into a service. `Clone` is one `Arc`: all
/// clones are the same cache.
///
/// # Drop
///
/// With the last handle (clones, and the [`Balance`](crate::Balance)s above it) following ends and
/// every service is dropped immediately; requests in flight go on with what they have taken along.
///
/// # Examples
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_sd::balance::{BalanceLayer, RoundRobin};
/// use tower_sd::endpoint::Endpointer;
/// use tower_sd::{BoxError, FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let instancer = FixedInstancer::new([Instance::new("a", 1), Instance::new("b", 1)]);
/// let endpointer = Endpointer::with(&instancer, |instance| async move {
///     Ok(service_fn(move |n: u32| {
///         let answer = format!("{n} from {instance}");
///         async move { Ok::<_, BoxError>(answer) }
///     }))
/// });
/// let client = ServiceBuilder::new()
///     .layer(BalanceLayer::new(RoundRobin::new()))
///     .service(endpointer);
/// assert!(client.oneshot(7).await?.starts_with("7 from "));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "Pool")]
pub struct Endpointer<S: 'static> {
    pub(crate) shared: Arc<Shared<S>>,
}

impl<S: Clone + Send + Sync + 'static> Endpointer<S> {
    /// Follows `instancer`, and makes services with `factory`, with the default
    /// [`EndpointerConfig`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that applies updates.
    pub fn new<F>(instancer: &(impl Instancer + ?Sized), factory: F) -> Self
    where
        F: Factory<Service = S>,
    {
        Self::with_config(instancer, factory, EndpointerConfig::new())
    }

    /// Follows `instancer`, and makes services with `factory`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, and when the limits contradict each other, see
    /// [`Limits::check`](crate::Limits::check).
    pub fn with_config<F>(
        instancer: &(impl Instancer + ?Sized),
        factory: F,
        config: EndpointerConfig,
    ) -> Self
    where
        F: Factory<Service = S>,
    {
        if let Err(error) = config.limits.check() {
            panic!("{error}");
        }
        let subscription = instancer.subscribe();
        let shared = Arc::new(Shared::new(subscription.clone(), config.clone()));
        let weak = Arc::downgrade(&shared);
        let runs = Runs::new(factory, config);
        let span =
            tracing::error_span!(parent: None, "endpointer", service = subscription.service());
        shared.tasks.spawn(|stop| work(weak, subscription, runs, stop).instrument(span));
        Self { shared }
    }

    /// Waits, at most `timeout`, for an endpoint that is not known to be down.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&self, timeout: Duration) -> Result<(), NoInstances> {
        self.shared.ready(timeout).await
    }

    /// What is known of every endpoint now. Costs a walk over all of them.
    pub fn report(&self) -> EndpointerReport {
        report::report(&self.shared)
    }

    /// Stops following, sends no more requests, lets those in flight finish for at most
    /// [`drain_timeout`](EndpointerConfig::drain_timeout), and drops every service. Again, it does
    /// nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, only the waiting is lost; what drains is dropped with its last request or
    /// with the last handle.
    pub async fn close(&self) {
        self.shared.close().await;
    }

    /// Grows with every change of the set.
    ///
    /// For benchmarks, which wait for an update to arrive.
    #[doc(hidden)]
    pub fn version(&self) -> u64 {
        *self.shared.versions().borrow()
    }

    /// Follows `instancer`, and makes services with an async closure.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn with<F, Fut>(instancer: &(impl Instancer + ?Sized), make: F) -> Self
    where
        F: Fn(Instance) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        Self::new(instancer, make)
    }
}

impl<S> fmt::Debug for Endpointer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpointer").finish_non_exhaustive()
    }
}
