use std::sync::Arc;

use tower_sd_core::Instance;

use super::{
    Balancer, Members, Picker,
    part::{Levels, Part, Property, WHOLE},
};

/// A canary: a share of the requests for some members, the rest for the others.
///
/// Among the members of each part another balancer chooses. Requests go to the other part while
/// their own has no usable member. The part is drawn for each request; for a part of the callers
/// see [`Select`](crate::Select).
///
/// ```
/// use tower_sd::balance::{BalanceLayer, RoundRobin, Split};
/// use tower_sd::Instance;
///
/// let is_canary = |instance: &Instance| instance.tags().iter().any(|tag| tag == "canary");
/// let canary = BalanceLayer::new(Split::new(5, is_canary, RoundRobin::new()));
/// # let _ = canary;
/// ```
#[derive(Clone, Debug)]
pub struct Split {
    percent: u8,
    is_chosen: Property<bool>,
    inner: Arc<dyn Balancer>,
}

impl Split {
    /// Sends `percent` of the requests to the members that `is_chosen` selects.
    pub fn new(
        percent: u8,
        is_chosen: impl Fn(&Instance) -> bool + Send + Sync + 'static,
        inner: impl Balancer,
    ) -> Self {
        let is_chosen = Property::new("part", is_chosen);
        Self { percent, is_chosen, inner: Arc::new(inner) }
    }

    fn is_chosen(&self, instance: &Instance) -> bool {
        self.is_chosen.of(instance).unwrap_or(false)
    }
}

impl Balancer for Split {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let parts = Part::by(members, |instance| [!self.is_chosen(instance)], &*self.inner);
        let share = usize::from(self.percent.min(100)) * (WHOLE / 100);
        let share_of = |is_other| if is_other { WHOLE - share } else { share };
        let parts = parts.into_iter().map(|(is_other, part)| (share_of(is_other), part));
        Arc::new(Levels(parts.collect()))
    }

    fn inner(&self) -> Option<&dyn Balancer> {
        Some(&*self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RoundRobin, TestSet};

    #[test]
    fn members_of_each_part_have_equal_shares_in_turn() {
        let instances = (1..=5).map(|port| Instance::new("h", port));
        let split = Split::new(50, |instance| instance.port() == 1, RoundRobin::new());
        let mut set = TestSet::new(&split, instances);
        let mut counts = [0; 5];
        (0..8_000).filter_map(|_| set.pick()).for_each(|index| counts[index] += 1);
        assert!(counts[1..].iter().all(|n| (900..1_100).contains(n)), "{counts:?}");
    }

    #[test]
    fn instance_for_which_the_choice_panics_is_one_of_the_others() {
        let instances = (1..=5).map(|port| Instance::new("h", port));
        let is_canary = |instance: &Instance| match instance.port() {
            2 => panic!("a bug of the user's"),
            port => port == 3,
        };
        let mut set = TestSet::new(&Split::new(5, is_canary, RoundRobin::new()), instances);
        let n = (0..10_000).filter(|_| set.pick() == Some(2)).count();
        assert!((400..600).contains(&n), "{n}");
    }

    #[test]
    fn canary_gets_its_share_and_gives_way_when_it_is_unusable() {
        let instances = (1..=5).map(|port| Instance::new("h", port));
        let split = Split::new(5, |instance| instance.port() == 3, RoundRobin::new());
        let mut set = TestSet::new(&split, instances);
        let n = (0..10_000).filter(|_| set.pick() == Some(2)).count();
        assert!((400..600).contains(&n), "{n}");
        set.exclude(2);
        assert!((0..1_000).all(|_| set.pick().is_some_and(|index| index != 2)));
        [0, 1, 3, 4].into_iter().for_each(|index| set.exclude(index));
        assert_eq!(set.pick(), None);
    }
}
