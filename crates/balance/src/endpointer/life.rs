use std::fmt;

use serde::Serialize;
use tokio::time::Instant;

use crate::error::Failure;

/// Whether, and why not, an endpoint is picked.
///
/// `Display` prints `ready`, `down`, `draining`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// It is picked.
    Ready,
    /// Its factory has not succeeded yet.
    Creating,
    /// Unhealthy or draining by its status, or of weight 0; picked only when no other is left, and
    /// never with weight 0.
    Ineligible,
    /// The registry does not list it any more; picked only when nothing is ready. After three
    /// refused connections in a row it leaves.
    Held,
    /// It connects; requests go to others.
    Connecting,
    /// Its last connection was refused, or it was not ready in time; tried only when nothing else
    /// is left.
    Down,
    /// It has failed too often; one request decides when its time is over.
    Ejected,
    /// It has left, and finishes its requests in flight.
    Draining,
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The state that was reported last.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) state: EndpointState,
    pub(crate) since: Instant,
    pub(crate) why: Option<Failure>,
}
