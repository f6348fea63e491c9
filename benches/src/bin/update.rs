//! What an update costs: one of 10 000 instances moves to another address.
//!
//! `change_1` is the way from the new list in hand to the moment at which the new address can be
//! picked: publisher, comparison, factory, publication. (An instance that only leaves is waited
//! for, on purpose: the guard against loss.)

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    error::Error,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower::Layer;
use tower_sd_balance::{
    AddressPolicy, BalanceLayer, EndpointState, Endpointer, Instance, Instancer, LossPolicy,
    Publisher, RegistryConfig, RoundRobin, Sink, Subscription,
};
use tower_sd_benches::{
    measure::{Contestant, medians},
    noop::Noop,
    peers::{go_kit, pingora},
    results::Results,
};

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut results = Results::new("update")?;
    for n in [1_000, 10_000] {
        let ours = Ours::new(&runtime, n);
        // An update writes to a cell for each balancer: there is one.
        let _balance = BalanceLayer::new(RoundRobin::new()).layer(ours.endpointer.clone());
        let mut contestants = vec![
            Contestant::new("change_1", |rounds| ours.change(rounds)),
            Contestant::new("rwlock_rebuild", rebuild(n)),
            Contestant::new("pingora_update", pingora_update(n)),
        ];
        let times = medians(&mut contestants, ROUNDS, SLICE);
        let [change, rebuild, pingora] = times[..] else { unreachable!("three contestants") };
        let peers = [("rwlock_rebuild", rebuild), ("pingora_update", pingora)];
        results.add("change_1", (n, 1), change, &peers)?;
    }
    Ok(())
}

/// An endpointer on a registry whose list is in our hand.
struct Ours<'a> {
    runtime: &'a Runtime,
    publisher: RefCell<Publisher>,
    endpointer: Endpointer<Noop>,
    instances: RefCell<Vec<Instance>>,
    n_changes: Cell<u32>,
}

struct Subscribed(Subscription);

impl Instancer for Subscribed {
    fn subscribe(&self) -> Subscription {
        self.0.clone()
    }
}

impl<'a> Ours<'a> {
    fn new(runtime: &'a Runtime, n: usize) -> Self {
        let config = RegistryConfig::default()
            .loss(LossPolicy::Accept)
            .addresses(AddressPolicy::any())
            .removal_wait(Duration::ZERO);
        let mut publisher = Publisher::new("bench", "bench", config);
        let instances: Vec<_> = (0..n).map(|i| instance(i, 8080)).collect();
        debug_assert!(instances.is_sorted_by_key(Instance::id), "as registries list them");
        publisher.set(instances.clone().into());
        let endpointer = runtime.block_on(async {
            let subscribed = Subscribed(publisher.subscribe());
            let endpointer = Endpointer::with(&subscribed, |_| async { Ok(Noop(0)) });
            let ready = |e: &tower_sd_balance::EndpointReport| e.state == EndpointState::Ready;
            while endpointer.report().endpoints.iter().filter(|e| ready(e)).count() < n {
                yield_now().await;
            }
            endpointer
        });
        Self {
            runtime,
            publisher: RefCell::new(publisher),
            endpointer,
            instances: RefCell::new(instances),
            n_changes: Cell::new(0),
        }
    }

    /// Replaces one so many times; building the lists is not counted.
    fn change(&self, rounds: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            self.n_changes.set(self.n_changes.get() + 1);
            let new = instance(1 << 18 | self.n_changes.get() as usize, 9090);
            let mut list = self.instances.borrow().clone();
            let middle = list.len() / 2;
            list[middle] = new.with_id(list[middle].id().clone());
            let new = list[middle].clone();
            self.instances.replace(list.clone());
            let started = Instant::now();
            self.runtime.block_on(self.publish(list));
            took += started.elapsed();
            self.check(&new);
        }
        took
    }

    async fn publish(&self, list: Vec<Instance>) {
        let before = self.endpointer.version();
        self.publisher.borrow_mut().set(list.into());
        // The comparison publishes that the old one has left, the factory's service that the new
        // one is there.
        while self.endpointer.version() < before + 2 {
            yield_now().await;
        }
    }

    fn check(&self, new: &Instance) {
        if self.n_changes.get() % 50 == 1 {
            let endpoints = self.endpointer.report().endpoints;
            assert_eq!(endpoints.len(), self.instances.borrow().len());
            let found = endpoints.iter().find(|endpoint| endpoint.instance == *new);
            assert!(
                found.is_some_and(|found| found.state == EndpointState::Ready),
                "it can be picked"
            );
        }
    }
}

fn rebuild(n: usize) -> impl FnMut(u64) -> Duration {
    let cache = go_kit::Cache::default();
    let mut list: Vec<_> = (0..n).map(|i| instance(i, 8080).to_string()).collect();
    cache.update(list.clone());
    let mut n_changes = 0;
    move |rounds| {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            n_changes += 1;
            list[n / 2] = instance(1 << 18 | n_changes, 9090).to_string();
            let list = list.clone();
            let started = Instant::now();
            cache.update(list);
            took += started.elapsed();
            assert_eq!(cache.len(), n);
        }
        took
    }
}

fn pingora_update(n: usize) -> impl FnMut(u64) -> Duration {
    let list = pingora::List::default();
    let mut backends: BTreeSet<_> = (0..n).map(pingora::backend).collect();
    list.set(backends.clone());
    let balancer = list.balancer();
    let (mut old, mut n_changes) = (pingora::backend(n / 2), 0);
    move |rounds| {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            n_changes += 1;
            let new = pingora::backend(1 << 20 | n_changes);
            backends.remove(&old);
            backends.insert(new.clone());
            old = new;
            list.set(backends.clone());
            let started = Instant::now();
            pingora::update(&balancer);
            took += started.elapsed();
        }
        took
    }
}

/// Sorted by name when sorted by number, for all contestants: registries list by name.
fn instance(i: usize, port: u16) -> Instance {
    let octets = [i >> 14, i >> 7, i].map(|bits| 100 + (bits & 127));
    Instance::new(format!("10.{}.{}.{}", octets[0], octets[1], octets[2]), port)
}

const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(20);
