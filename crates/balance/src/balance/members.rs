use std::fmt;

use tower_sd_core::Instance;

use crate::endpointer::MAX_WEIGHT;

/// The members of a set, for a [`Balancer`](crate::Balancer) that builds tables.
pub struct Members<'a> {
    len: usize,
    weigh_the_same: bool,
    source: &'a dyn Source,
}

/// Where the members are.
pub(super) trait Source {
    /// A member, and its share of its weight, in percent.
    fn member(&self, index: usize) -> Option<(Instance, u8)>;
    fn unusable(&self) -> Vec<Instance>;
}

impl<'a> Members<'a> {
    pub(super) fn new(len: usize, weigh_the_same: bool, source: &'a dyn Source) -> Self {
        Self { len, weigh_the_same, source }
    }

    pub(super) fn of(len: usize, source: &'a dyn Source) -> Self {
        let members = Self::new(len, true, source);
        let weigh_the_same = members.weights().is_sorted_by(|a, b| a == b);
        Self { weigh_the_same, ..members }
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
        let part = Part { whole: self.source, indexes, is_of: &is_of };
        f(&Members::of(indexes.len(), &part))
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
    /// They are ejected, down, held, unhealthy, or without a service so far.
    pub fn unusable(&self) -> Vec<Instance> {
        self.source.unusable()
    }

    /// The instances in the order of their indexes.
    ///
    /// The order has no other meaning.
    pub fn iter(&self) -> impl Iterator<Item = Instance> {
        self.members().map(|(instance, _)| instance)
    }

    fn members(&self) -> impl Iterator<Item = (Instance, u8)> {
        (0..self.len).filter_map(|index| self.source.member(index))
    }
}

/// Some of the members, renumbered.
struct Part<'a> {
    whole: &'a dyn Source,
    indexes: &'a [usize],
    is_of: &'a dyn Fn(&Instance) -> bool,
}

impl Source for Part<'_> {
    fn member(&self, index: usize) -> Option<(Instance, u8)> {
        self.whole.member(*self.indexes.get(index)?)
    }

    fn unusable(&self) -> Vec<Instance> {
        self.whole.unusable().into_iter().filter(|it| (self.is_of)(it)).collect()
    }
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

const WHOLE: usize = 100;
