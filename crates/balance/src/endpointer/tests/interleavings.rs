//! Picks, leases, updates and drains in the orders that shuttle draws.
//!
//! Shuttle takes every atomic for sequentially consistent. Ours are relaxed: some are counters, and
//! the transitions of an endpoint's readiness are single compare-and-swap operations, acted on
//! under the lock of the state.

use std::{
    collections::BTreeSet,
    iter, mem,
    sync::{Arc, OnceLock, atomic::Ordering::SeqCst},
    task::Poll,
    time::Duration,
};

use fastrand::Rng;
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    sync::atomic::AtomicBool,
    thread,
};
use tokio::{runtime::Builder, time::timeout};
use tower_sd_core::{
    FixedInstancer, Instance, Instancer, Publisher, RegistryConfig, Sink, Snapshot,
};

use super::super::{
    EndpointStats, EndpointerConfig, InFlight, Readiness, Shared, Signal, Tier,
    observer::Observers,
    signal::{Created, Unready},
    state::Event,
};
use crate::{
    RoundRobin,
    balance::{Request, Shards},
    error::Failure,
};

/// Its strong count is the number of services that live.
type Service = Arc<()>;

/// One cache with one balancer over it, made anew for each run.
pub(super) struct Cache {
    pub(super) shared: Arc<Shared<Service>>,
    shards: Arc<Shards<Service>>,
    service: Service,
}

impl Cache {
    fn new(snapshot: &Snapshot) -> Self {
        Self::with_config(snapshot, EndpointerConfig::default())
    }

    pub(super) fn with_config(snapshot: &Snapshot, config: EndpointerConfig) -> Self {
        let nobody = FixedInstancer::new([]).subscribe();
        let shared = Arc::new(Shared::new(nobody, config));
        let shards = Arc::new(Shards::new(Arc::new(RoundRobin::new()), Rng::with_seed(1)));
        shared.attach(&shards);
        let cache = Self { shared, shards, service: Arc::new(()) };
        cache.apply(snapshot);
        cache
    }

    /// Applies a snapshot as the worker does, with a factory that is done immediately.
    pub(super) fn apply(&self, snapshot: &Snapshot) {
        let mut events = vec![Event::Snapshot(snapshot.clone())];
        while !events.is_empty() {
            let effects = self.shared.apply(mem::take(&mut events).into_iter());
            for make in effects.make {
                let (id, service) = (make.instance.id().clone(), Arc::clone(&self.service));
                events.push(Event::Created {
                    id,
                    run: make.run,
                    result: Ok(Created { service, takes_guards: false, check: None }),
                });
            }
        }
    }

    /// Lets the worker see what requests have reported; probes fail, or do not end.
    pub(super) fn work(&self) {
        drop(self.shared.apply(iter::empty()));
    }

    pub(super) fn connected(&self, stats: &EndpointStats) {
        let (id, key) = (stats.id.clone(), stats.key);
        let connected = Event::Probed { id, key, result: Ok(()) };
        drop(self.shared.apply([connected].into_iter()));
    }

    pub(super) fn late(&self, lease: &InFlight) {
        let (id, key) = (lease.instance().clone(), lease.stats().key);
        let late = Event::Probed { id, key, result: Err(Unready::Late(Duration::ZERO)) };
        drop(self.shared.apply([late].into_iter()));
    }

    pub(super) fn pick(&self) -> Option<InFlight> {
        let mut tiers = Tier::ALL.iter();
        tiers.find_map(|tier| self.shards.pick_in(*tier, &Request::ANY).ok()?).map(
            |(_service, stats, trace)| InFlight::begin(stats, None, &Observers::default(), trace),
        )
    }

    pub(super) fn refused(&self, stats: &EndpointStats) {
        if stats.leave_ready(Readiness::Down) {
            let refused = Signal::Refused(Failure::new("refused".into()));
            self.shared.signal(stats, refused, |_, _| Poll::Pending);
        }
    }

    fn share(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            shards: Arc::clone(&self.shards),
            service: Arc::clone(&self.service),
        }
    }

    /// Whether the endpoints that are picked in turn are those that are ready.
    fn is_published(&self) -> bool {
        let ready: BTreeSet<_> = self
            .shared
            .state()
            .tiers
            .get(Tier::Ready)
            .iter()
            .map(|endpoint| endpoint.stats.key)
            .collect();
        let picks = (0..4).filter_map(|_| self.shards.pick(None));
        ready == picks.map(|(_service, stats, _)| stats.key).collect()
    }

    fn in_flight(&self) -> usize {
        let state = self.shared.state();
        let endpoints = state.members.values().filter_map(|member| member.endpoint.as_ref());
        endpoints.map(|endpoint| endpoint.in_flight()).sum()
    }
}

const STAYS: &str = "stays";
const LEAVES: &str = "leaves";

/// Snapshots as a publisher makes them: two listed, one of them gone, both, and none listed but
/// both held.
pub(super) struct Snapshots {
    pub(super) both: Snapshot,
    one: Snapshot,
    pub(super) none: Snapshot,
    held: Snapshot,
}

pub(super) fn snapshots() -> &'static Snapshots {
    static SNAPSHOTS: OnceLock<Snapshots> = OnceLock::new();
    SNAPSHOTS.get_or_init(|| {
        let [stays, leaves] = [STAYS, LEAVES].map(|host| Instance::new(host, 1));
        let fixed = |instances: &[Instance]| {
            FixedInstancer::new(instances.iter().cloned()).subscribe().snapshot()
        };
        let mut publisher = Publisher::new("test", "service", RegistryConfig::default());
        let subscription = publisher.subscribe();
        publisher.set(vec![stays.clone(), leaves.clone()].into());
        publisher.set(Vec::new().into());
        // The guard waits before it decides which of the two it is: a removal, or a loss.
        let paused = Builder::new_current_thread().enable_time().start_paused(true).build();
        let decided = async { timeout(Duration::from_secs(1), publisher.due()).await };
        let _confirming = paused.expect("a runtime").block_on(decided);
        let held = subscription.snapshot();
        assert_eq!((held.instances().len(), held.held().len()), (0, 2));
        Snapshots {
            both: fixed(&[stays.clone(), leaves]),
            one: fixed(&[stays]),
            none: fixed(&[]),
            held,
        }
    })
}

/// Runs `model` under many random orders, and under those with few switches that find rarer faults.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let again = Arc::clone(&model);
    // The thread-local parts of a balancer are built on the stack, where the default is 60 KiB.
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(RUNS), config.clone()).run(move || model());
    Runner::new(PctScheduler::new(3, RUNS), config).run(move || again());
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the model panicked"));
}

#[test]
fn nothing_is_picked_after_its_removal_was_published() {
    let Snapshots { both, one, .. } = snapshots();
    check(|| {
        let (cache, removed) = (Cache::new(both), Arc::new(AtomicBool::new(false)));
        let pickers = [(); 2].map(|()| {
            let (cache, removed) = (cache.share(), Arc::clone(&removed));
            thread::spawn(move || {
                for _ in 0..3 {
                    let was_removed = removed.load(SeqCst);
                    let lease = cache.pick().expect("one stays");
                    assert!(!(was_removed && lease.instance().as_str().starts_with(LEAVES)));
                }
            })
        });
        cache.apply(one);
        removed.store(true, SeqCst);
        join(pickers);
        assert_eq!(cache.in_flight(), 0);
        assert_eq!(Arc::strong_count(&cache.service), 2, "one service is left");
    });
}

#[test]
fn who_leaves_and_returns_leaks_no_service_and_no_count() {
    let Snapshots { both, one, .. } = snapshots();
    check(|| {
        let cache = Cache::new(both);
        let pickers = [(); 2].map(|()| {
            let cache = cache.share();
            thread::spawn(move || {
                for _ in 0..2 {
                    let lease = cache.pick().expect("one stays");
                    thread::yield_now();
                    drop(lease);
                }
            })
        });
        cache.apply(one);
        cache.apply(both);
        join(pickers);
        assert_eq!(cache.in_flight(), 0);
        assert_eq!(Arc::strong_count(&cache.service), 3, "a service for each");
        assert!(cache.is_published());
        let service = Arc::clone(&cache.service);
        drop(cache);
        assert_eq!(Arc::strong_count(&service), 1, "no service without its cache");
    });
}

#[test]
fn request_to_one_that_left_is_always_bounded_by_its_drain() {
    let Snapshots { both, held, .. } = snapshots();
    check(|| {
        let cache = Cache::new(held);
        let lease = cache.pick().expect("held ones are the last resort");
        let refusing = {
            let (cache, refused) = (cache.share(), Arc::clone(lease.shared_stats()));
            thread::spawn(move || {
                cache.refused(&refused);
                cache.work();
            })
        };
        cache.apply(both);
        join([refusing]);
        let state = cache.shared.state();
        let is_member = |key| {
            let mut endpoints = state.members.values().filter_map(|m| m.endpoint.as_ref());
            endpoints.any(|endpoint| endpoint.stats.key == key)
        };
        let stats = lease.shared_stats();
        let drains = state.draining.iter().any(|left| left.stats.as_ptr() == Arc::as_ptr(stats));
        assert!(is_member(stats.key) || drains, "nothing will ever end this request");
    });
}

#[test]
fn readiness_and_tier_agree_when_all_signals_are_applied() {
    let Snapshots { both, .. } = snapshots();
    check(|| {
        let cache = Cache::new(both);
        let lease = cache.pick().expect("two are ready");
        let refusing = [(); 2].map(|()| {
            let (cache, refused) = (cache.share(), Arc::clone(lease.shared_stats()));
            thread::spawn(move || cache.refused(&refused))
        });
        cache.connected(lease.stats());
        cache.apply(both);
        join(refusing);
        cache.work();
        let is_down = lease.stats().readiness() == Readiness::Down;
        let n_down = cache.shared.state().tiers.get(Tier::Down).len();
        assert_eq!(n_down, usize::from(is_down));
        assert!(cache.is_published());
        cache.connected(lease.stats());
        assert_eq!(cache.shared.state().tiers.get(Tier::Ready).len(), 2);
    });
}

/// A request that ends while a probe of its endpoint ends in vain: busy or down, but never stuck in
/// between.
#[test]
fn probe_that_is_late_leaves_no_endpoint_connecting() {
    let Snapshots { one, .. } = snapshots();
    check(|| {
        let cache = Cache::new(one);
        let lease = cache.pick().expect("one is ready");
        let stats = Arc::clone(lease.shared_stats());
        let reporting = {
            let cache = cache.share();
            thread::spawn(move || {
                if lease.stats().leave_ready(Readiness::Connecting) {
                    let service = Arc::clone(&cache.service);
                    let pending = Signal::Pending(service);
                    cache.shared.signal(lease.stats(), pending, |_, _| Poll::Pending);
                }
                cache.work();
                cache.late(&lease);
            })
        };
        cache.work();
        join([reporting]);
        assert_ne!(stats.readiness(), Readiness::Connecting);
        assert!(cache.is_published());
    });
}

/// Of each kind of order; the faults that were put in for trial were found within 50.
const RUNS: usize = 300;
