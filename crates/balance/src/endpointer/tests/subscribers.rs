//! Balancers that come and go over one set.

use std::sync::Arc;

use fastrand::Rng;

use super::{
    super::EndpointerConfig,
    due::once,
    interleavings::{Cache, snapshots},
};
use crate::{RoundRobin, balance::Shards};

/// A stack for each request, over a set that does not change.
#[test]
fn balancers_that_are_gone_leave_nothing() {
    once(|| {
        let cache = Cache::with_config(&snapshots().both, EndpointerConfig::default());
        for _ in 0..100 {
            let balancer = Arc::new(RoundRobin::new());
            cache.shared.attach(&Arc::new(Shards::new(balancer, Rng::with_seed(1))));
        }
        // That of the cache, and the last one, which the next one removes.
        assert_eq!(cache.shared.subscribers().len(), 2);
    });
}
