use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::{Error, Instance};

/// The set of instances that is known now, and whether it is current.
///
/// Data and trouble are independent: an error never erases instances. `Clone` is a few `Arc`s.
///
/// As JSON: `instances`, `held`, `revision` and `freshness`, of which `state` is `"never_synced"`,
/// `"fresh"` or `"stale"`, `error` the chain of errors, and `since` the milliseconds since then.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub(crate) instances: Arc<[Instance]>,
    pub(crate) held: Arc<[Instance]>,
    pub(crate) revision: u64,
    pub(crate) freshness: Freshness,
    /// The time of the last proof of life, shared by all snapshots of one publisher.
    #[serde(skip)]
    pub(crate) proof: Arc<Mutex<Option<Instant>>>,
}

/// Whether a [`Snapshot`] agrees with the registry.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freshness {
    /// The registry has not answered yet; nothing is known, which is not the same as nothing being
    /// there.
    NeverSynced {
        /// Why, when a first attempt has failed.
        error: Option<Error>,
    },
    /// The last read succeeded and nothing has failed since.
    Fresh,
    /// The set is the last one known; what came after it is unknown.
    Stale {
        /// When the first failure after the last success was seen.
        #[serde(serialize_with = "milliseconds_since")]
        since: Instant,
        /// What failed.
        error: Error,
    },
}

impl Snapshot {
    pub(crate) fn never_synced() -> Self {
        Self {
            instances: Arc::new([]),
            held: Arc::new([]),
            revision: 0,
            freshness: Freshness::NeverSynced { error: None },
            proof: Arc::default(),
        }
    }

    /// Returns the listed instances, sorted by id, each id and address once.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Returns instances that are no longer listed and kept by the loss guard.
    ///
    /// No id of [`instances`](Self::instances) is among them. A balancer uses them only when
    /// nothing else is usable.
    pub fn held(&self) -> &[Instance] {
        &self.held
    }

    /// Listed and held instances.
    pub fn known(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().chain(self.held.iter())
    }

    /// Returns a copy with the instances, listed and held, that `keep` accepts.
    ///
    /// A [`FilteredInstancer`](crate::FilteredInstancer) is made of it.
    #[must_use]
    pub fn retain(&self, mut keep: impl FnMut(&Instance) -> bool) -> Self {
        let mut retain = |all: &Arc<[Instance]>| -> Arc<[Instance]> {
            let kept: Vec<_> = all.iter().filter(|instance| keep(instance)).cloned().collect();
            if kept.len() == all.len() { Arc::clone(all) } else { kept.into() }
        };
        let (instances, held) = (retain(&self.instances), retain(&self.held));
        Self { instances, held, ..self.clone() }
    }

    /// Returns the number of changes of the set, 0 before the first.
    ///
    /// Those of [`instances`](Self::instances) and [`held`](Self::held).
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How far the set can be trusted.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Returns the time of the last proof that the latest set is current.
    ///
    /// `None` before the first set. It is read live: it advances, in every clone, without a new
    /// snapshot, and wakes no subscriber.
    pub fn as_of(&self) -> Option<Instant> {
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry has proved now that the latest set is current.
    pub(crate) fn prove(&self) {
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Freshness {
    /// Whether it is [`Fresh`](Self::Fresh).
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }

    /// Whether the registry has answered at least once.
    pub fn is_synced(&self) -> bool {
        !matches!(self, Self::NeverSynced { .. })
    }

    /// The freshness after one more failure: the time of the first one stays.
    #[must_use]
    pub fn after(&self, error: Error) -> Self {
        match self {
            Self::NeverSynced { .. } => Self::NeverSynced { error: Some(error) },
            Self::Fresh => Self::Stale { since: Instant::now(), error },
            Self::Stale { since, .. } => Self::Stale { since: *since, error },
        }
    }

    /// What subscribers wake for; a later error of the same trouble is no change.
    pub(crate) fn nature(&self) -> (bool, bool) {
        (self.is_synced(), self.error().is_some())
    }

    /// The trouble, if there is any.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::NeverSynced { error } => error.as_ref(),
            Self::Fresh => None,
            Self::Stale { error, .. } => Some(error),
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSynced { error: None } => f.write_str("not read yet"),
            Self::NeverSynced { error: Some(error) } => write!(f, "not read yet: {error}"),
            Self::Fresh => f.write_str("fresh"),
            Self::Stale { since, error } => {
                write!(f, "stale for {} s: {error}", since.elapsed().as_secs())
            }
        }
    }
}

/// Serialises a time as the milliseconds since then.
pub(crate) fn milliseconds_since<S: Serializer>(
    since: &Instant,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    serializer.serialize_u64(milliseconds)
}
