use std::{fmt, sync::Arc};

use fastrand::Rng;
use tower_sd_core::Instance;

use super::{
    Balancer, Choice, Members, Picker, balancer::Candidates, local::Local, members::Source,
};
use crate::{
    RequestScope,
    endpointer::{EndpointStats, Tier},
};

/// Members for the unit test of a [`Balancer`].
///
/// It needs no endpointer, no service and no runtime.
///
/// ```
/// use tower_sd::balance::{RoundRobin, TestSet};
/// use tower_sd::Instance;
///
/// let instances = [1, 2, 3].map(|port| Instance::new("h", port));
/// let mut set = TestSet::new(&RoundRobin::new().with_start(0), instances);
/// set.exclude(1);
/// assert_eq!([set.pick(), set.pick(), set.pick()], [Some(0), Some(2), Some(0)]);
/// ```
pub struct TestSet {
    members: Vec<Arc<EndpointStats>>,
    excluded: Vec<usize>,
    scope: Option<RequestScope>,
    picker: Arc<dyn Picker>,
    local: Local,
}

impl TestSet {
    /// The set of `instances`, with a picker of `balancer`.
    ///
    /// Chance follows from a fixed seed.
    pub fn new(balancer: &dyn Balancer, instances: impl IntoIterator<Item = Instance>) -> Self {
        Self::with_unusable(balancer, instances, [])
    }

    /// The same beside other instances that are not usable.
    pub fn with_unusable(
        balancer: &dyn Balancer,
        instances: impl IntoIterator<Item = Instance>,
        unusable: impl IntoIterator<Item = Instance>,
    ) -> Self {
        let instances: Vec<_> = instances.into_iter().collect();
        let given = Given { instances: &instances, unusable: unusable.into_iter().collect() };
        let picker = balancer.picker(&Members::of(instances.len(), &given));
        let new = |id: &Instance| EndpointStats::new(id.id().clone(), false, Arc::default());
        let stats = instances.iter().map(|instance| Arc::new(new(instance)));
        Self {
            members: stats.collect(),
            excluded: Vec::new(),
            scope: None,
            picker,
            local: Local::new(Rng::with_seed(7), balancer.initial_cursor(0)),
        }
    }

    /// Makes a member unusable.
    ///
    /// As one that was tried for the request, or has become unavailable.
    pub fn exclude(&mut self, index: usize) {
        self.excluded.push(index);
    }

    /// Picks for a request in `scope` from now on.
    pub fn set_scope(&mut self, scope: RequestScope) {
        self.scope = Some(scope);
    }

    /// The record of a member.
    pub fn stats(&self, index: usize) -> Option<&EndpointStats> {
        self.members.get(index).map(|stats| &**stats)
    }

    /// The index that the balancer picks next.
    pub fn pick(&mut self) -> Option<usize> {
        let candidates =
            Fixed { members: &self.members, excluded: &self.excluded, scope: self.scope.as_ref() };
        let len = self.members.len();
        self.picker.pick(&mut Choice::new(&candidates, len, &mut self.local))
    }
}

struct Given<'a> {
    instances: &'a [Instance],
    unusable: Vec<Instance>,
}

impl Source for Given<'_> {
    fn member(&self, index: usize) -> Option<(Instance, u8)> {
        Some((self.instances.get(index)?.clone(), 100))
    }

    fn unusable(&self) -> Vec<Instance> {
        self.unusable.clone()
    }
}

struct Fixed<'a> {
    members: &'a [Arc<EndpointStats>],
    excluded: &'a [usize],
    scope: Option<&'a RequestScope>,
}

impl Candidates for Fixed<'_> {
    fn is_usable(&self, index: usize) -> bool {
        index < self.members.len() && !self.excluded.contains(&index)
    }

    fn stats(&self, index: usize) -> Option<&Arc<EndpointStats>> {
        self.members.get(index)
    }

    fn scope(&self) -> Option<&RequestScope> {
        self.scope
    }

    fn tier(&self) -> Tier {
        Tier::Ready
    }
}

impl fmt::Debug for TestSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSet")
            .field("members", &self.members)
            .field("excluded", &self.excluded)
            .finish_non_exhaustive()
    }
}
