#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use super::{Balancer, Choice, Members, Picker, WeightedRandom};

/// Members of the best priority only, as long as one of them is usable; then those of the next.
///
/// The lowest number is the best, as in DNS SRV records. Among members of one priority another
/// balancer chooses; by default [`WeightedRandom`], which together implement RFC 2782. A priority
/// whose members all have weight 0 is left out by a balancer that obeys weights.
///
/// ```
/// use tower_sd_balance::{BalanceLayer, Prioritized, RoundRobin};
///
/// let as_dns_says = BalanceLayer::new(Prioritized::default());
/// let in_turn = BalanceLayer::new(Prioritized::new(RoundRobin::new()));
/// ```
#[derive(Clone, Debug)]
pub struct Prioritized {
    inner: Arc<dyn Balancer>,
}

impl Prioritized {
    /// With `inner` among members of one priority.
    #[must_use]
    pub fn new(inner: impl Balancer) -> Self {
        Self { inner: Arc::new(inner) }
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
            groups.entry(instance.priority()).or_default().push(index);
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
