use std::fmt;

use serde::{Deserialize, Serialize};

/// The fitness that the registry, or the instance itself, reports.
///
/// Balancers use `Passing` and `Warning`; the other two get requests only when no instance is fit,
/// `Draining` before `Critical`.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InstanceStatus {
    /// Fit.
    #[default]
    Passing,
    /// Fit, with a complaint.
    Warning,
    /// Unfit.
    Critical,
    /// Fit, and about to leave: maintenance, a drained server, Kubernetes' serving and terminating.
    ///
    /// It finishes what it has.
    Draining,
}

impl InstanceStatus {
    /// Whether an instance of this status accepts requests: `Passing` and `Warning`.
    pub fn accepts_requests(self) -> bool {
        matches!(self, Self::Passing | Self::Warning)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
