use std::fmt;

use tower_sd_core::{Instance, InstanceStatus};

use crate::endpointer::MAX_WEIGHT;

/// The members of a set, for a [`Balancer`](crate::Balancer) that builds tables.
pub struct Members<'a> {
    len: usize,
    weigh_the_same: bool,
    /// A member, and its share of its weight, in percent.
    member: &'a dyn Fn(usize) -> Option<(Instance, u8)>,
    unusable: &'a dyn Fn() -> Vec<Instance>,
}

impl<'a> Members<'a> {
    pub(super) fn new(
        (len, weigh_the_same): (usize, bool),
        member: &'a dyn Fn(usize) -> Option<(Instance, u8)>,
        unusable: &'a dyn Fn() -> Vec<Instance>,
    ) -> Self {
        Self { len, weigh_the_same, member, unusable }
    }

    /// Those with these indexes, in this order.
    ///
    /// `is_of` selects the unusable ones that belong to them.
    pub fn only<T>(
        &self,
        indexes: &[usize],
        is_of: impl Fn(&Instance) -> bool,
        f: impl FnOnce(&Members<'_>) -> T,
    ) -> T {
        let member = |index: usize| (self.member)(*indexes.get(index)?);
        let unusable = || (self.unusable)().into_iter().filter(&is_of).collect();
        let mut part = Members::new((indexes.len(), true), &member, &unusable);
        part.weigh_the_same = part.weights().is_sorted_by(|a, b| a == b);
        f(&part)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all have the same weight.
    ///
    /// For the whole set it is known without a walk over it.
    pub fn weigh_the_same(&self) -> bool {
        self.weigh_the_same
    }

    /// The weights in the order of the indexes.
    ///
    /// One above a million counts as a million. During a
    /// [slow start](crate::EndpointerConfig::slow_start) of any of them they are those of that
    /// moment, in hundredths.
    pub fn weights(&self) -> Vec<usize> {
        let weight_of = |(instance, share): (Instance, u8)| {
            let weight = usize::try_from(instance.weight().min(MAX_WEIGHT)).unwrap_or(usize::MAX);
            (weight, usize::from(share))
        };
        let weights: Vec<_> = self.members().map(weight_of).collect();
        let is_whole = weights.iter().all(|(_, share)| *share == WHOLE);
        let unit = |(weight, share): (usize, usize)| if is_whole { weight } else { weight * share };
        weights.into_iter().map(unit).collect()
    }

    /// The instances that are not members.
    ///
    /// They are ejected, down, held, unhealthy, or without a service so far. Those that drain are
    /// left out: they leave in good order, most of them replaced.
    pub fn unusable(&self) -> Vec<Instance> {
        let is_missing = |it: &Instance| it.status() != InstanceStatus::Draining;
        (self.unusable)().into_iter().filter(is_missing).collect()
    }

    /// The instances in the order of their indexes.
    ///
    /// The order has no other meaning.
    pub fn iter(&self) -> impl Iterator<Item = Instance> {
        self.members().map(|(instance, _)| instance)
    }

    fn members(&self) -> impl Iterator<Item = (Instance, u8)> {
        (0..self.len).filter_map(|index| (self.member)(index))
    }
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

const WHOLE: usize = 100;
