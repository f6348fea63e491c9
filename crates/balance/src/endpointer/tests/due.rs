//! When a request may decide about an ejection, and what a probe decides.
//!
//! One order of each run is enough: shuttle is here for its locks alone.

use std::{sync::Arc, thread, time::Duration};

use shuttle::{Config, Runner, scheduler::RandomScheduler};

use super::{
    super::{EjectionPolicy, EndpointStats, EndpointerConfig, Readiness, Tier},
    interleavings::{Cache, snapshots},
};
use crate::{FailureClass, Outcome};

pub(super) fn once(model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // The shards of a balancer are built on it.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(1), config).run(model);
}

/// Its ejections last 10 ms.
fn cache() -> Cache {
    let policy = EjectionPolicy::new().times(Duration::ZERO, Duration::ZERO);
    Cache::with_config(&snapshots().both, EndpointerConfig::default().ejection(policy))
}

/// One of the two fails until it is ejected; then that is over.
#[expect(clippy::disallowed_methods, reason = "the test has no executor")]
fn eject(cache: &Cache) -> Arc<EndpointStats> {
    let lease = cache.pick().expect("two are ready");
    let stats = Arc::clone(lease.shared_stats());
    let mut leases = vec![lease];
    while leases.len() < 5 {
        let lease = cache.pick().expect("two are ready");
        match lease.instance() == &stats.id {
            true => leases.push(lease),
            false => lease.done(Outcome::Success),
        }
    }
    leases.into_iter().for_each(|lease| lease.done(Outcome::Failed(FailureClass::Response)));
    cache.work();
    thread::sleep(Duration::from_millis(20));
    stats
}

fn is_due(cache: &Cache) -> bool {
    cache.shared.state().tiers.judge.is_due()
}

#[test]
fn ejection_ends_whatever_has_woken_the_worker() {
    once(|| {
        let cache = cache();
        eject(&cache);
        cache.work();
        assert!(is_due(&cache));
    });
}

#[test]
fn no_request_decides_while_endpoint_is_down() {
    once(|| {
        let cache = cache();
        let stats = eject(&cache);
        cache.work();
        cache.refused(&stats);
        cache.work();
        assert!(!is_due(&cache));
        cache.connected(&stats);
        assert!(is_due(&cache));
    });
}

#[test]
fn no_request_decides_about_one_that_has_left() {
    once(|| {
        let cache = cache();
        // It drains while this is there.
        let _stats = eject(&cache);
        cache.work();
        assert!(is_due(&cache));
        cache.apply(&snapshots().none);
        assert!(!is_due(&cache));
        cache.apply(&snapshots().both);
        cache.work();
        assert!(is_due(&cache), "it has returned to its endpoint");
    });
}

/// It has become busy since the probe began.
#[test]
fn probe_that_is_late_brings_no_busy_endpoint_down() {
    once(|| {
        let cache = cache();
        let lease = cache.pick().expect("two are ready");
        lease.stats().set_readiness(Readiness::Connecting);
        cache.late(&lease);
        assert_eq!(lease.stats().readiness(), Readiness::Ready);
    });
}

#[test]
fn signal_about_an_earlier_endpoint_brings_no_successor_down() {
    once(|| {
        let cache = cache();
        let lease = cache.pick().expect("two are ready");
        let earlier = EndpointStats::new(lease.instance().clone(), false, Arc::default());
        cache.refused(&earlier);
        cache.work();
        assert_eq!(cache.shared.state().tiers.get(Tier::Ready).len(), 2);
    });
}
