use serde::Serialize;
use tower_sd_core::{Freshness, Instance};

use super::{Readiness, shared::Shared, state::is_fit};

/// What an [`Endpointer`](crate::Endpointer) knows now: for people, dashboards and tests.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Why the set cannot be believed: the registry was never heard of, or not lately.
    pub trouble: Option<String>,
    /// Members sorted by id, then those that drain.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint of a [`Report`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointReport {
    /// The instance, as the registry describes it now.
    pub instance: Instance,
    /// Whether it is picked.
    pub state: EndpointState,
    /// Requests that have been sent to it and are not over.
    pub in_flight: usize,
    /// How often it was picked.
    pub picks: u64,
    /// How many of its requests have failed.
    pub failures: u64,
    /// What went wrong last, while it is not usable.
    pub error: Option<String>,
}

/// Whether, and why not, an endpoint is picked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// It is picked.
    Ready,
    /// Its factory has not succeeded yet.
    Making,
    /// Its status or its weight says that it wants no requests.
    Unfit,
    /// The registry does not list it any more; picked only when nothing is ready.
    Held,
    /// It connects; requests go to others.
    Connecting,
    /// Its last connection was refused, or it was not ready in time; tried only when nothing else is left.
    Down,
    /// It has left, and finishes its requests in flight.
    Draining,
}

pub(super) fn report<S: Clone + Send + Sync + 'static>(shared: &Shared<S>) -> Report {
    let state = shared.state();
    let mut endpoints: Vec<_> = state
        .members
        .values()
        .map(|member| {
            let (endpoint, instance) = (member.endpoint.as_ref(), member.instance.clone());
            EndpointReport {
                state: match endpoint {
                    None => EndpointState::Making,
                    Some(_) if !is_fit(&instance) => EndpointState::Unfit,
                    Some(endpoint) => match endpoint.stats.readiness() {
                        Readiness::Down => EndpointState::Down,
                        _ if member.held => EndpointState::Held,
                        Readiness::Connecting => EndpointState::Connecting,
                        Readiness::Ready => EndpointState::Ready,
                    },
                },
                instance,
                in_flight: endpoint.map_or(0, |endpoint| endpoint.in_flight()),
                picks: endpoint.map_or(0, |endpoint| endpoint.stats.picks()),
                failures: endpoint.map_or(0, |endpoint| endpoint.stats.failures()),
                error: member.error.as_ref().map(ToString::to_string),
            }
        })
        .collect();
    endpoints.sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
    endpoints.extend(state.draining.iter().filter_map(|left| {
        let (in_flight, stats) = (left.in_flight(), left.stats.upgrade()?);
        Some(EndpointReport {
            instance: left.instance.clone(),
            state: EndpointState::Draining,
            in_flight,
            picks: stats.picks(),
            failures: stats.failures(),
            error: None,
        })
    }));
    let trouble = match state.snapshot.as_ref().map(tower_sd_core::Snapshot::freshness) {
        Some(Freshness::Fresh) => None,
        Some(freshness) => match freshness.error() {
            Some(error) => Some(error.to_string()),
            None => Some(NEVER_SYNCED.to_owned()),
        },
        None => Some(NEVER_SYNCED.to_owned()),
    };
    Report { trouble, endpoints }
}

const NEVER_SYNCED: &str = "the registry has not answered yet";
