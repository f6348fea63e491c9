use std::{fmt, sync::Arc};

use fastrand::Rng;
use tower_sd_core::Instance;

use super::{Balancer, local::Local, request::Request, shards::Choices};
use crate::{
    RequestScope,
    endpointer::{Endpoint, EndpointStats, Tier, Tiers},
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
    choices: Choices<()>,
    excluded: Vec<u64>,
    scope: Option<RequestScope>,
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
        let mut tiers = Tiers::default();
        let judge = Arc::clone(&tiers.judge);
        let mut put = |tier, instance: Instance| {
            let stats = EndpointStats::new(instance.id().clone(), false, Arc::clone(&judge));
            tiers.get_mut(tier).push(Arc::new(Endpoint::new((), stats.into(), instance)));
        };
        instances.into_iter().for_each(|instance| put(Tier::Ready, instance));
        unusable.into_iter().for_each(|instance| put(Tier::Down, instance));
        let choices = Choices::new(Tier::Ready, &tiers, |members| balancer.picker(members));
        let local = Local::new(Rng::with_seed(7), balancer.initial_cursor(0));
        Self { choices, excluded: Vec::new(), scope: None, local }
    }

    /// Makes a member unusable.
    ///
    /// As one that was tried for the request, or has become unavailable.
    pub fn exclude(&mut self, index: usize) {
        self.excluded.extend(self.stats(index).map(|stats| stats.key));
    }

    /// Picks for a request in `scope` from now on.
    pub fn set_scope(&mut self, scope: RequestScope) {
        self.scope = Some(scope);
    }

    /// The record of a member.
    pub fn stats(&self, index: usize) -> Option<&EndpointStats> {
        self.choices.set.get(index).map(|endpoint| &*endpoint.stats)
    }

    /// The index that the balancer picks next.
    pub fn pick(&mut self) -> Option<usize> {
        let request =
            Request { scope: self.scope.as_ref(), excluded: &self.excluded, ..Request::ANY };
        self.choices.choose(&request, false, &mut self.local)
    }
}

impl fmt::Debug for TestSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSet").finish_non_exhaustive()
    }
}
