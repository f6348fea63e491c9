use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;
use tower_sd_core::{Instance, InstanceId};

use super::{Endpoint, Set, ejection::Judge};

/// The endpoints that can be picked, in one set per [`Tier`]. `Clone` is a few `Arc`s.
#[derive(Clone)]
pub(crate) struct Tiers<S> {
    sets: [Set<S>; N_TIERS],
    pub(crate) judge: Arc<Judge>,
    /// The instances whose factory has not succeeded yet.
    creating: Arc<BTreeMap<InstanceId, Instance>>,
}

/// How good an endpoint is, best first.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tier {
    /// Listed by the registry, and not known to be down.
    Ready,
    /// Listed by the registry, and left out for its failures.
    Ejected,
    /// No longer listed, kept by the loss guard.
    Held,
    /// Listed or held, and the last connection was refused.
    Down,
    /// About to leave by its status: better than none.
    Draining,
    /// Unhealthy by its status: better than none.
    Ineligible,
}

/// A consumer of an endpointer's set, called by its worker.
pub(crate) trait Subscriber<S>: Send + Sync {
    /// Takes the new set. It must not call the endpointer.
    fn publish(&self, tiers: &Tiers<S>);
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl<S> Tiers<S> {
    pub(super) fn new(judge: Arc<Judge>) -> Self {
        Self { sets: Default::default(), judge, creating: Arc::default() }
    }

    #[inline]
    pub(crate) fn get(&self, tier: Tier) -> &Set<S> {
        &self.sets[tier as usize]
    }

    pub(crate) fn get_mut(&mut self, tier: Tier) -> &mut Set<S> {
        &mut self.sets[tier as usize]
    }

    /// The instances without an endpoint, those of this moment.
    pub(crate) fn creating(&self) -> impl Iterator<Item = &Instance> {
        self.creating.values()
    }

    /// `None`: it has an endpoint, or has left.
    pub(super) fn set_creating(&mut self, id: &InstanceId, instance: Option<Instance>) {
        match instance {
            Some(instance) => drop(Arc::make_mut(&mut self.creating).insert(id.clone(), instance)),
            None if self.creating.contains_key(id) => {
                Arc::make_mut(&mut self.creating).remove(id);
            }
            None => {}
        }
    }

    /// Listed ones; while there are none, those that are held.
    pub(super) fn pickable(&self) -> Vec<Arc<Endpoint<S>>> {
        let [ready, ejected, held, down, _draining, _unfit] = &self.sets;
        let listed = ready.iter().chain(ejected.iter()).chain(down.iter());
        let listed: Vec<_> = listed.cloned().collect();
        if listed.is_empty() { held.iter().cloned().collect() } else { listed }
    }
}

impl<S> Default for Tiers<S> {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Tier {
    pub(crate) const ALL: [Self; N_TIERS] =
        [Self::Ready, Self::Ejected, Self::Held, Self::Down, Self::Draining, Self::Ineligible];
}

pub(crate) const N_TIERS: usize = 6;
