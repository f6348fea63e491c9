use std::sync::Arc;

use crate::{
    AddressPolicy, Instance, Instancer, LossPolicy, Publisher, RegistryConfig, Sink, Subscription,
};

/// Follows nothing: a set that never changes, known from the start.
///
/// ```
/// use tower_sd::{FixedInstancer, Instance, Instancer};
///
/// let instancer = FixedInstancer::new([Instance::new("127.0.0.1", 8081), Instance::new("127.0.0.1", 8082)]);
/// assert_eq!(instancer.subscribe().snapshot().instances().len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct FixedInstancer(Subscription);

impl FixedInstancer {
    /// Creates an instancer of these instances.
    ///
    /// Of two with one id or one address it has one. Unreachable addresses are left out;
    /// the host `unix:/path` is a socket of this machine.
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let config = RegistryConfig::default()
            .loss(LossPolicy::Accept)
            .addresses(AddressPolicy::any().unix_sockets());
        let mut publisher = Publisher::new("fixed", "fixed", config);
        publisher.set(instances.into_iter().collect());
        Self(publisher.subscribe().with_owner(Arc::new(publisher)))
    }
}

impl Instancer for FixedInstancer {
    fn subscribe(&self) -> Subscription {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_fresh_from_the_start_and_outlives_the_instancer() {
        let subscription =
            FixedInstancer::new([Instance::new("b", 1), Instance::new("a", 1)]).subscribe();
        let snapshot = subscription.snapshot();
        assert!(snapshot.freshness().is_fresh());
        let ids: Vec<_> = snapshot.instances().iter().map(|i| i.id().as_str()).collect();
        assert_eq!(ids, ["a:1", "b:1"]);
    }
}
