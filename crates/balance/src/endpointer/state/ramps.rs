use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use tower_sd_core::InstanceId;

/// When members have begun; nothing without a window.
#[derive(Debug, Default)]
pub(super) struct Ramps {
    pub(super) seen: BTreeMap<InstanceId, Seen>,
    /// Those whose share grows.
    pub(super) growing: BTreeSet<InstanceId>,
    pub(super) next: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// When it has started; `None`: long ago.
    pub(super) begun: Option<Instant>,
    /// When it has left.
    pub(super) left: Option<Instant>,
}
