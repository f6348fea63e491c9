use tower_sd_core::Instance;

use super::members::Source;
use crate::endpointer::{Tier, Tiers};

/// The members of one tier; those of the others are unusable.
pub(super) struct OfTier<'a, S> {
    pub(super) tier: Tier,
    pub(super) tiers: &'a Tiers<S>,
}

impl<S> Source for OfTier<'_, S> {
    fn member(&self, index: usize) -> Option<(Instance, u8)> {
        let endpoint = self.tiers.get(self.tier).get(index)?;
        Some((endpoint.instance(), endpoint.stats.share()))
    }

    fn unusable(&self) -> Vec<Instance> {
        let others = Tier::ALL.iter().filter(|other| **other != self.tier);
        let others = others.flat_map(|other| self.tiers.get(*other).iter());
        others.map(|endpoint| endpoint.instance()).chain(self.tiers.creating()).collect()
    }
}
