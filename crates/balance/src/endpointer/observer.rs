use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::{EndpointState, EndpointStats, Tier};
use crate::{NoInstances, Outcome, Overloaded};

/// Observes the request path, for metrics, pages and balancers that learn.
///
/// The [crate's documentation](crate#which-observer-observes-which-event) has an example, and the
/// events of each place where one is attached.
///
/// # Contract
///
/// It is called where the event happens, in the request's task or in the worker of an endpointer:
/// it must not block, and must not call the endpointer. A panic is the caller's.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Observes `event`.
    fn on(&self, event: &Event<'_>);

    /// Whether it observes [`Event::Picked`] and [`Event::Ended`]. Defaults to true.
    ///
    /// They cost every request two readings of the clock. Read when observers are attached, and not
    /// for each request.
    fn watches_requests(&self) -> bool {
        true
    }
}

/// What an [`Observer`] observes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An endpoint has changed its state.
    #[non_exhaustive]
    State {
        /// The endpoint.
        endpoint: &'a EndpointStats,
        /// The state before.
        from: EndpointState,
        /// The state from now on.
        to: EndpointState,
        /// The failure that led there.
        why: Option<&'a (dyn Error + 'static)>,
    },
    /// An endpoint gets a request.
    #[non_exhaustive]
    Picked {
        /// The endpoint.
        endpoint: &'a EndpointStats,
        /// The tier that it was picked from.
        tier: Tier,
    },
    /// A request has ended at an endpoint.
    #[non_exhaustive]
    Ended {
        /// The endpoint.
        endpoint: &'a EndpointStats,
        /// How it has ended.
        outcome: Outcome,
        /// The time since the endpoint got it.
        latency: Duration,
    },
    /// A request has waited for an endpoint.
    #[non_exhaustive]
    Waited {
        /// How long.
        time: Duration,
        /// The reason, when it has found none.
        none: Option<&'a NoInstances>,
    },
    /// A limit has refused a request, or another attempt of one.
    #[non_exhaustive]
    Refused {
        /// The limit, as an error.
        error: &'a Overloaded,
    },
    /// An attempt has failed, and another follows.
    #[non_exhaustive]
    Retried {
        /// The number of the attempt that has failed, from 1.
        attempt: u32,
        /// The instance that had the request, when one had it.
        instance: Option<&'a tower_sd_core::InstanceId>,
        /// The failure.
        error: &'a (dyn Error + 'static),
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// An attempt has failed, and the retry budget has none left for another.
    #[non_exhaustive]
    BudgetExhausted {
        /// The number of the attempt that has failed, from 1.
        attempt: u32,
        /// The instance that had the request, when one had it.
        instance: Option<&'a tower_sd_core::InstanceId>,
        /// The failure, which is the caller's now.
        error: &'a (dyn Error + 'static),
    },
    /// A request without an answer is sent to another instance too.
    #[non_exhaustive]
    Hedged {
        /// The instance that has not answered yet.
        instance: &'a tower_sd_core::InstanceId,
        /// The time since that has the request.
        delay: Duration,
    },
    /// A pool of connections has opened one, or failed to.
    Connected {
        /// The peer's `host:port`.
        address: &'a str,
        /// How long it took.
        time: Duration,
        /// The failure, when there is no connection.
        error: Option<&'a (dyn Error + 'static)>,
    },
}

/// The observers of one balancer, or of one endpointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observers {
    pub(crate) all: Arc<[Arc<dyn Observer>]>,
    /// One of them watches requests.
    watch_requests: bool,
}

impl Observers {
    pub(crate) fn with(&self, more: impl IntoIterator<Item = Arc<dyn Observer>>) -> Self {
        let all: Arc<[_]> = self.all.iter().cloned().chain(more).collect();
        let watch_requests = all.iter().any(|one| one.watches_requests());
        Self { all, watch_requests }
    }

    pub(crate) fn watch_requests(&self) -> bool {
        self.watch_requests
    }

    pub(crate) fn on(&self, event: &Event<'_>) {
        self.all.iter().for_each(|one| one.on(event));
    }
}
