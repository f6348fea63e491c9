use tower_sd_core::Instance;

use super::maglev::{hash, mix};
use crate::Subset;

/// As many instances for each client, chosen by rendezvous hashing.
///
/// Of 1 000 instances a client that needs 20 keeps 20 connections, not 1 000. Clients choose
/// independently; one change of the instances changes at most one of a client's. gRPC's
/// "random subsetting" is the same rule. An instance that is unhealthy, draining, or of weight 0 is
/// chosen only when the others are too few: while it is, another one has its place.
///
/// ```
/// use tower_sd::balance::Rendezvous;
/// use tower_sd::endpoint::EndpointerConfig;
///
/// let config = EndpointerConfig::new().subset(Rendezvous::new("client-7", 20));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct Rendezvous {
    client: u64,
    size: usize,
}

impl Rendezvous {
    /// The `size` instances of the client with this name; 0 counts as 1.
    ///
    /// Names must differ between clients.
    pub fn new(client: &str, size: usize) -> Self {
        Self { client: hash(client.as_bytes()), size: size.max(1) }
    }
}

impl Subset for Rendezvous {
    fn select(&self, instances: &[Instance]) -> Vec<Instance> {
        let score =
            |instance: &Instance| mix(self.client ^ hash(instance.id().as_str().as_bytes()));
        let key = |instance: &Instance| (!instance.accepts_requests(), score(instance));
        let mut scored: Vec<_> = instances.iter().map(|it| (key(it), it)).collect();
        if self.size < scored.len() {
            scored.select_nth_unstable_by_key(self.size, |(key, it)| (*key, it.id().clone()));
            scored.truncate(self.size);
        }
        scored.into_iter().map(|(_, instance)| instance.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tower_sd_core::InstanceStatus;

    use super::*;

    fn instances(ports: impl Iterator<Item = u16>) -> Vec<Instance> {
        ports.map(|port| Instance::new("h", port)).collect()
    }

    fn ports(subset: &Rendezvous, all: &[Instance]) -> BTreeSet<u16> {
        subset.select(all).iter().map(Instance::port).collect()
    }

    #[test]
    fn instances_are_covered_evenly_and_few_change() {
        let (all, fewer) = (instances(1..=1_000), instances(2..=1_000));
        let mut covered = BTreeMap::<u16, usize>::new();
        let mut n_changed = 0;
        for client in 0..1_000 {
            let subset = Rendezvous::new(&format!("client-{client}"), 20);
            let before = ports(&subset, &all);
            assert_eq!(before.len(), 20);
            before.iter().for_each(|port| *covered.entry(*port).or_default() += 1);
            let gone = before.difference(&ports(&subset, &fewer)).count();
            assert!(gone <= 1, "one change changes one");
            n_changed += gone;
        }
        // The mean is 20, of each of which the removal concerns one client in 50.
        let max = covered.values().max().expect("covered");
        assert!(*max <= 40, "{max}");
        assert!(n_changed <= 40, "{n_changed} of 20 000");
    }

    #[test]
    fn unfit_instances_are_the_last_choice() {
        let critical = |instance: Instance| match instance.port() <= 900 {
            true => instance.with_status(InstanceStatus::Critical),
            false => instance,
        };
        let all: Vec<_> = instances(1..=1_000).into_iter().map(critical).collect();
        for client in 0..20 {
            let subset = Rendezvous::new(&format!("client-{client}"), 20);
            assert!(ports(&subset, &all).iter().all(|port| *port > 900));
        }
        let subset = Rendezvous::new("client", 20);
        assert_eq!(ports(&subset, &all[..905]).len(), 20, "the others fill it up");
        assert_eq!(ports(&Rendezvous::new("client", 0), &all).len(), 1, "none is no choice");
    }
}
