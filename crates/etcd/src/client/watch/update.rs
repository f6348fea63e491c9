use etcd_client::ResponseHeader;
use tower_sd_core::Error;

use super::change::Change;

/// News of a watch.
#[derive(Debug)]
pub(crate) enum Update {
    /// Keys have changed.
    Changes(Vec<Change>),
    /// Everything that has happened so far was reported: sent from time to time, and after trouble.
    Alive,
    /// Changes may be missing until the next update. The position is kept.
    Trouble(Error),
}

/// Why a watch has ended; a new list gives the position of another one.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The position was lost. Not an error.
    Resync(&'static str),
    /// The cluster refuses the watch.
    Failed(Error),
}

/// The revision of a store, and the cluster that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// 0 if unknown: etcd's gRPC proxy answers so.
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
    /// The election before the last change that the member has applied; 0 if unknown.
    pub(crate) term: u64,
}

impl Position {
    pub(super) const UNKNOWN: Self = Self { cluster: 0, revision: 0, term: 0 };

    pub(crate) fn of(header: Option<&ResponseHeader>) -> Self {
        Self {
            cluster: header.map_or(0, ResponseHeader::cluster_id),
            revision: header.map_or(0, ResponseHeader::revision),
            term: header.map_or(0, ResponseHeader::raft_term),
        }
    }

    /// Whether both can be of one cluster.
    pub(crate) fn is_of_cluster(self, other: Self) -> bool {
        self.cluster == 0 || other.cluster == 0 || self.cluster == other.cluster
    }

    /// Why a watch from here cannot go on in a store at `now`.
    ///
    /// etcd accepts a start in the future silently: a store that went back would be silent until it
    /// has caught up. One that was restored from a backup and has caught up already has another
    /// history: its terms begin anew, and the cluster's number is the same.
    pub(crate) fn lost_at(self, now: Self) -> Option<&'static str> {
        match () {
            () if !self.is_of_cluster(now) => Some(OTHER_CLUSTER),
            () if now.revision < self.revision => Some(WENT_BACK),
            () if now.term != 0 && now.term < self.term => Some(RESTORED),
            () => None,
        }
    }
}

pub(super) const OTHER_CLUSTER: &str = "another cluster";
const WENT_BACK: &str = "the revision went back";
const RESTORED: &str = "the store was restored";
