use std::{error, fmt};

use tower_sd_core::BoxError;

/// There is no instance to send a request to.
///
/// Nothing was sent: repeating is safe. `source()` is what stands behind it: the registry's error, the factory's, or
/// the last connection's.
#[derive(Debug)]
pub struct NoInstances {
    reason: NoInstancesReason,
    source: Option<BoxError>,
}

/// Why there is no instance.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NoInstancesReason {
    /// The endpointer was closed.
    Closed,
    /// The registry lists none. Said at once.
    Empty,
    /// The registry has not answered yet.
    NeverSynced,
    /// There are instances, and none has a service that works yet: factories fail or take long.
    NotReady,
    /// None of those that were tried has accepted a connection.
    Refused,
    /// Those that are listed want no requests, by their status or their weight. Said at once.
    Unfit,
}

impl NoInstances {
    pub(crate) fn new(reason: NoInstancesReason, source: Option<BoxError>) -> Self {
        Self { reason, source }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> NoInstancesReason {
        self.reason
    }
}

impl fmt::Display for NoInstances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            NoInstancesReason::Closed => "no instances: the endpointer was closed",
            NoInstancesReason::Empty => "no instances: the registry lists none",
            NoInstancesReason::NeverSynced => "no instances: the registry has not answered yet",
            NoInstancesReason::NotReady => "no instances: none is ready yet",
            NoInstancesReason::Refused => "no instances: none accepts a connection",
            NoInstancesReason::Unfit => "no instances: those that are listed want no requests",
        })
    }
}

impl error::Error for NoInstances {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn error::Error + 'static) = &**source;
            source
        })
    }
}
