#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use tower_sd_core::Instance;

use super::{Balancer, Choice, Members, Picker, WeightedRandom};

/// Members of the best priority while one is usable; then those of the next.
///
/// The lowest number is the best, as in DNS SRV records. Among members of one priority another
/// balancer chooses; by default [`WeightedRandom`], which together implement RFC 2782. A priority
/// whose members all have weight 0 is left out by a balancer that obeys weights.
///
/// ```
/// use tower_sd_balance::{BalanceLayer, Prioritized, RoundRobin};
///
/// let by_srv_records = BalanceLayer::new(Prioritized::default());
/// let in_turn = BalanceLayer::new(Prioritized::new(RoundRobin::new()));
/// ```
#[derive(Clone)]
pub struct Prioritized {
    inner: Arc<dyn Balancer>,
    priority: Arc<Priority>,
}

type Priority = dyn Fn(&Instance) -> u32 + Send + Sync;

impl Prioritized {
    /// With `inner` among members of one priority.
    #[must_use]
    pub fn new(inner: impl Balancer) -> Self {
        Self::by(Instance::priority, inner)
    }

    /// With priorities of the client's choice in place of those in the registry.
    ///
    /// An own zone first survives the loss of that zone: the instances of the others are the next
    /// priority, and get the requests that none of the first accepts.
    ///
    /// ```
    /// use tower_sd_balance::{BalanceLayer, Instance, Prioritized, RoundRobin};
    ///
    /// let distance = |instance: &Instance| u32::from(instance.zone() != Some("a"));
    /// let own_zone_first = BalanceLayer::new(Prioritized::by(distance, RoundRobin::new()));
    /// # let _ = own_zone_first;
    /// ```
    #[must_use]
    pub fn by(
        priority: impl Fn(&Instance) -> u32 + Send + Sync + 'static,
        inner: impl Balancer,
    ) -> Self {
        Self { inner: Arc::new(inner), priority: Arc::new(priority) }
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
        let mut groups = BTreeMap::<u32, Vec<usize>>::new();
        for (index, instance) in members.iter().enumerate() {
            groups.entry((self.priority)(&instance)).or_default().push(index);
        }
        let groups = groups.into_values().map(|indexes| {
            let picker = members.only(&indexes, |group| self.inner.picker(group));
            Group { indexes, picker }
        });
        Arc::new(Groups(groups.collect()))
    }

    fn initial_cursor(&self, random: usize) -> usize {
        self.inner.initial_cursor(random)
    }
}

impl fmt::Debug for Prioritized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prioritized").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// The best first.
struct Groups(Vec<Group>);

struct Group {
    indexes: Vec<usize>,
    picker: Arc<dyn Picker>,
}

impl Picker for Groups {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        self.0.iter().find_map(|group| choice.only(&group.indexes, &*group.picker))
    }
}
