use std::fmt;

use serde::Serialize;
use tokio::time::Instant;

use crate::{Error, snapshot::milliseconds_since};

/// The state of a registration.
///
/// As JSON: `state` is one of these names in snake case, errors are chains, and `since` is the
/// milliseconds since then.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not in the registry yet.
    Registering {
        /// The error of the latest attempt.
        error: Option<Error>,
    },
    /// Accepted by the registry, and not lost since.
    Registered,
    /// Registered before, and possibly not any more; it is being announced again.
    Lost {
        /// When the loss was noticed.
        #[serde(serialize_with = "milliseconds_since")]
        since: Instant,
        /// The reason of the loss, or the error of the latest attempt since.
        error: Error,
    },
    /// Another registration has written its own entry in this one's place.
    ///
    /// By default that entry is left alone, and this registration is announced again when it is
    /// gone; see [`Registration::reclaim`](crate::Registration::reclaim).
    TakenOver {
        /// A description of the other one: its address, else its incarnation or lease.
        by: String,
    },
    /// Registered, and an operator has set another status at the registry, which wins.
    Overridden {
        /// The status in the registry's word: `OUT_OF_SERVICE`.
        status: String,
    },
    /// The server's own check is critical.
    ///
    /// The registry shows the instance as critical where it has such a state; elsewhere it is
    /// withdrawn, and announced again when the check passes.
    Critical {
        /// The reason that the check returned.
        reason: String,
    },
    /// Withdrawn for good.
    Deregistered,
}

/// Counters of a registration since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RegistrationStats {
    /// Announcements and updates that the registry has accepted.
    pub announced: u64,
    /// Renewals that the registry has accepted.
    pub renewed: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Losses of the entry, takeovers included.
    pub lost: u64,
}
impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registering { error: None } => f.write_str("registering"),
            Self::Registering { error: Some(error) } => write!(f, "registering: {error}"),
            Self::Registered => f.write_str("registered"),
            Self::Lost { since, error } => {
                write!(f, "lost for {} s: {error}", since.elapsed().as_secs())
            }
            Self::TakenOver { by } => write!(f, "taken over by {by}"),
            Self::Overridden { status } => write!(f, "overridden by an operator: {status}"),
            Self::Critical { reason } => write!(f, "critical: {reason}"),
            Self::Deregistered => f.write_str("deregistered"),
        }
    }
}

/// The order in which states need attention.
pub(crate) fn urgency(state: &RegistrationState) -> u8 {
    match state {
        RegistrationState::Lost { .. } => 0,
        RegistrationState::TakenOver { .. } => 1,
        RegistrationState::Registering { .. } => 2,
        RegistrationState::Critical { .. } => 3,
        RegistrationState::Overridden { .. } => 4,
        RegistrationState::Registered => 5,
        RegistrationState::Deregistered => 6,
    }
}
