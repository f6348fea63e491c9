use std::{sync::Arc, time::Duration};

use serde::{Serialize, Serializer};
use tokio::time::Instant;
use tower_sd_core::{Freshness, Instance, Snapshot};

use super::{EndpointState, EndpointStats, shared::Shared};
use crate::{LimitsReport, error::Failure};

/// The state of an [`Endpointer`](crate::Endpointer), for dashboards and tests.
///
/// As JSON, durations are milliseconds with a fraction.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointerReport {
    /// The name of the service that it follows.
    pub service: String,
    /// Why the set may be outdated, with all causes.
    ///
    /// The registry has never answered, or not lately.
    pub trouble: Option<String>,
    /// Members sorted by id, then those that drain.
    pub endpoints: Vec<EndpointReport>,
    /// Whether ejected endpoints get requests because no other is usable.
    pub panic: bool,
    /// What the [limits](crate::EndpointerConfig::limits) count.
    pub limits: LimitsReport,
}

/// One endpoint of an [`EndpointerReport`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointReport {
    /// The instance, as the registry describes it now.
    pub instance: Instance,
    /// Whether it is picked.
    pub state: EndpointState,
    /// For how long it has that state; none while it is created.
    #[serde(serialize_with = "milliseconds")]
    pub since: Option<Duration>,
    /// Requests that have been sent to it and are not over.
    pub in_flight: usize,
    /// Its share of its weight, in percent.
    ///
    /// See [`slow_start`](crate::EndpointerConfig::slow_start).
    pub share: u8,
    /// How often it was picked.
    pub picks: u64,
    /// How many of its requests have failed, or timed out.
    pub failures: u64,
    /// How its requests have ended.
    pub outcomes: Outcomes,
    /// How often it has connected.
    pub connects: u64,
    /// How often it has refused, or was not ready in time.
    pub refusals: u64,
    /// The average latency of its successes, while a balancer measures it.
    #[serde(serialize_with = "milliseconds")]
    pub latency: Option<Duration>,
    /// What went wrong last, with all causes, while it is not usable.
    ///
    /// About 512 bytes at most. The errors of tower-sd have no secrets; those of a factory of yours
    /// must have none.
    pub error: Option<String>,
    /// Its ejection, while it lasts.
    pub ejection: Option<EjectionReport>,
}

/// The ejection of an [`EndpointReport`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EjectionReport {
    /// What has led to it.
    pub reason: String,
    /// Its number, from 1, see [`Ejection::times`](crate::Ejection::times).
    pub times: u32,
    /// How long it lasts; zero when one request may decide.
    #[serde(serialize_with = "milliseconds")]
    pub left: Duration,
}

/// How the requests of one endpoint have ended, see [`Outcome`](crate::Outcome).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// Successes.
    pub success: u64,
    /// Broken exchanges.
    pub failed_exchange: u64,
    /// Responses that report a failure of the instance.
    pub failed_response: u64,
    /// Requests that were not sent.
    pub not_sent: u64,
    /// Requests that were not answered in time.
    pub timed_out: u64,
    /// Requests that were broken off by their caller.
    pub cancelled: u64,
}

impl Outcomes {
    fn of(stats: &EndpointStats, in_flight: usize) -> Self {
        let outcomes = stats.outcomes();
        let [failed_exchange, failed_response, not_sent, timed_out, cancelled] = outcomes;
        let others = outcomes.iter().sum::<u64>() + u64::try_from(in_flight).unwrap_or(u64::MAX);
        // Only what is not a success is counted: each costs the request path time.
        let success = stats.picks().saturating_sub(others);
        Self { success, failed_exchange, failed_response, not_sent, timed_out, cancelled }
    }
}

pub(super) fn report<S: Clone + Send + Sync + 'static>(shared: &Shared<S>) -> EndpointerReport {
    let state = shared.state();
    let members = state.members.values().map(|member| match &member.endpoint {
        Some(endpoint) => {
            let (stats, in_flight) = (&endpoint.stats, endpoint.in_flight());
            EndpointReport {
                state: member.state(),
                error: stats.check_failure().or_else(|| member.error.clone()).map(|it| it.shown()),
                ..EndpointReport::of(member.instance.clone(), stats, in_flight)
            }
        }
        None => {
            let (instance, judge) = (member.instance.clone(), Arc::default());
            let stats = EndpointStats::new(instance.id().clone(), false, judge);
            EndpointReport {
                state: EndpointState::Creating,
                since: None,
                error: member.error.as_ref().map(Failure::shown),
                ..EndpointReport::of(instance, &stats, 0)
            }
        }
    });
    let mut endpoints: Vec<_> = members.collect();
    endpoints.sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
    endpoints.extend(state.draining.iter().filter_map(|left| {
        let (in_flight, stats) = (left.in_flight(), left.stats.upgrade()?);
        Some(EndpointReport::of(left.instance.clone(), &stats, in_flight))
    }));
    let freshness = state.snapshot.as_ref().map(Snapshot::freshness);
    let trouble = match freshness {
        Some(Freshness::Fresh) => None,
        other => {
            let error = other.and_then(Freshness::error);
            Some(error.map_or_else(|| NEVER_SYNCED.to_owned(), |error| error.chain().to_string()))
        }
    };
    EndpointerReport {
        service: shared.subscription.service().to_owned(),
        trouble,
        endpoints,
        panic: state.panic,
        limits: shared.breaker.report(),
    }
}

impl EndpointReport {
    fn of(instance: Instance, stats: &EndpointStats, in_flight: usize) -> Self {
        let outcomes = Outcomes::of(stats, in_flight);
        let life = stats.life();
        Self {
            instance,
            state: life.state,
            since: Some(life.since.elapsed()),
            in_flight,
            share: stats.share(),
            picks: stats.picks(),
            failures: stats.failures(),
            outcomes,
            connects: stats.connects(),
            refusals: stats.refusals(),
            error: None,
            latency: stats.latency(),
            ejection: stats.ejection().map(|ejection| EjectionReport {
                reason: ejection.reason.to_string(),
                times: ejection.times,
                left: ejection.until.saturating_duration_since(Instant::now()),
            }),
        }
    }
}

fn milliseconds<S: Serializer>(
    time: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let time: Option<Duration> = (*time).into();
    time.map(|time| time.as_secs_f64() * 1e3).serialize(serializer)
}

const NEVER_SYNCED: &str = "the registry has not answered yet";
