#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use tower_sd_core::Instance;

use super::{
    Balancer, Members, Picker, WeightedRandom,
    part::{Levels, Part, Property, WHOLE},
};

/// Members of the best priority, while enough are usable; then those of the next.
///
/// The lowest number is the best, as in DNS SRV records. Among members of one priority another
/// balancer chooses; by default [`WeightedRandom`]. A priority whose members all have weight 0 is
/// left out by a balancer that obeys weights.
///
/// A priority gets all requests while 1 / 1.4 = 71 % of its members are usable; below that the
/// missing share goes to the next one. That is Envoy's priority load with its overprovisioning
/// factor. What is ejected, down, or no longer listed is not usable; what drains does not count. A
/// request that finds no usable member goes to the next priority in any case. When less than half
/// of all members are usable, and those are too few for the load, priorities do not count: all of
/// them share it. That is Envoy's [panic threshold](Self::panic_threshold). RFC 2782 has all or
/// nothing: any usable member of the best priority gets all requests with
/// `overprovisioning(u32::MAX)`.
///
/// ```
/// use tower_sd::balance::{BalanceLayer, Prioritized, RoundRobin};
///
/// let by_srv_records = BalanceLayer::new(Prioritized::default());
/// let in_turn = BalanceLayer::new(Prioritized::new(RoundRobin::new()));
/// let all_or_nothing = BalanceLayer::new(Prioritized::default().overprovisioning(u32::MAX));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Prioritized {
    inner: Arc<dyn Balancer>,
    priority: Property<u32>,
    overprovisioning: u32,
    panic_threshold: u8,
}

impl Prioritized {
    /// With `inner` among members of one priority.
    pub fn new(inner: impl Balancer) -> Self {
        Self::by(Instance::priority, inner)
    }

    /// With priorities of the client's choice in place of those in the registry.
    ///
    /// An own zone first survives the loss of that zone: the instances of the others are the next
    /// priority, and get the requests that none of the first accepts.
    ///
    /// ```
    /// use tower_sd::balance::{BalanceLayer, Prioritized, RoundRobin};
    /// use tower_sd::Instance;
    ///
    /// let distance = |instance: &Instance| u32::from(instance.zone() != Some("a"));
    /// let own_zone_first = BalanceLayer::new(Prioritized::by(distance, RoundRobin::new()));
    /// # let _ = own_zone_first;
    /// ```
    pub fn by(
        priority: impl Fn(&Instance) -> u32 + Send + Sync + 'static,
        inner: impl Balancer,
    ) -> Self {
        let (inner, priority) = (Arc::new(inner), Property::new("priority", priority));
        Self { inner, priority, overprovisioning: 140, panic_threshold: 50 }
    }

    /// Sets the load that usable members take over for others, in percent of their own.
    ///
    /// Defaults to 140, Envoy's overprovisioning factor of 1.4.
    pub fn overprovisioning(self, percent: u32) -> Self {
        Self { overprovisioning: percent.max(100), ..self }
    }

    /// Sets the share of usable members below which priorities do not count.
    ///
    /// In percent; 0 is never. Defaults to 50, Envoy's.
    pub fn panic_threshold(self, percent: u8) -> Self {
        Self { panic_threshold: percent, ..self }
    }
}

/// With [`WeightedRandom`].
impl Default for Prioritized {
    fn default() -> Self {
        Self::new(WeightedRandom::new())
    }
}

impl Balancer for Prioritized {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let mut parts = Part::by(members, |instance| [self.priority_of(instance)], &*self.inner);
        let n_usable = parts.iter().map(|(priority, part)| (*priority, (part.len(), 0)));
        let mut counts: BTreeMap<u32, (usize, usize)> = n_usable.collect();
        for instance in members.unusable() {
            counts.entry(self.priority_of(&instance)).or_default().1 += 1;
        }
        let loads = self.loads(&counts.values().copied().collect::<Vec<_>>());
        let levels = counts.keys().zip(loads);
        let levels = levels.filter_map(|(priority, load)| Some((load, parts.remove(priority)?)));
        Arc::new(Levels(levels.collect()))
    }

    fn counts_unusable(&self) -> bool {
        true
    }

    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }
}

impl Prioritized {
    /// One whose priority panics is a last resort.
    fn priority_of(&self, instance: &Instance) -> u32 {
        self.priority.of(instance).unwrap_or(u32::MAX)
    }

    /// The share of the requests of each priority: Envoy's priority load.
    ///
    /// `counts` are its usable and its unusable members.
    fn loads(&self, counts: &[(usize, usize)]) -> Vec<usize> {
        let factor = usize::try_from(self.overprovisioning).unwrap_or(usize::MAX);
        let health = |&(usable, unusable): &(usize, usize)| match usable {
            0 => 0,
            _ => (usable.saturating_mul(factor).saturating_mul(WHOLE / 100) / (usable + unusable))
                .clamp(1, WHOLE),
        };
        let mut shares: Vec<_> = counts.iter().map(health).collect();
        if shares.iter().sum::<usize>() < WHOLE {
            let usable: usize = counts.iter().map(|(usable, _)| usable).sum();
            let all: usize = counts.iter().map(|(usable, unusable)| usable + unusable).sum();
            if usable * 100 < all * usize::from(self.panic_threshold) {
                shares = counts.iter().map(|(usable, _)| *usable).collect();
            }
            let total = shares.iter().sum::<usize>().max(1);
            shares.iter_mut().for_each(|share| *share = *share * WHOLE / total);
        }
        let mut left = WHOLE;
        for share in &mut shares {
            *share = (*share).min(left);
            left -= *share;
        }
        // What rounding has left.
        if let Some(share) = shares.iter_mut().find(|share| **share > 0) {
            *share += left;
        }
        shares
    }
}
