//! Policies of papers that need reports of the servers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tower_sd_balance::BoxError;

use crate::{
    node::Node,
    world::{World, number},
};

/// The least loaded of the servers that were probed lately.
///
/// It is that of "Load is not what you should balance: Introducing Prequal" (NSDI 2024), with its
/// defaults. Its probes are answered between two requests of a client. Of few servers the pool has
/// half: with sixteen, their reuse would be undefined.
pub struct Prequal {
    world: Arc<World>,
    rng: Rng,
    pool: VecDeque<Probe>,
    /// Requests in flight that were probed lately.
    seen: VecDeque<u32>,
    removes_worst: bool,
}

struct Probe {
    index: usize,
    in_flight: u32,
    latency: f64,
    at: Instant,
    uses: u32,
}

impl Prequal {
    pub fn new(world: Arc<World>, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { world, rng, pool: VecDeque::new(), seen: VecDeque::new(), removes_worst: false }
    }

    pub fn send(&mut self) -> BoxFuture<'static, Result<(), BoxError>> {
        let index = self.pick();
        let sent = Node { world: Arc::clone(&self.world), index }.send();
        self.remove();
        self.probe();
        sent
    }

    fn pick(&mut self) -> usize {
        let now = Instant::now();
        self.pool.retain(|probe| now.duration_since(probe.at) < MAX_AGE);
        if self.pool.len() < 2 {
            return self.rng.usize(..self.world.len());
        }
        let hot = self.threshold();
        let cold = self.pool.iter_mut().filter(|probe| probe.in_flight <= hot);
        let picked = match cold.min_by(|a, b| a.latency.total_cmp(&b.latency)) {
            Some(probe) => probe,
            None => self.pool.iter_mut().min_by_key(|probe| probe.in_flight).expect("a probe"),
        };
        picked.in_flight += 1;
        picked.uses -= 1;
        let index = picked.index;
        self.pool.retain(|probe| probe.uses > 0);
        index
    }

    /// The quantile of requests in flight above which a server is hot.
    fn threshold(&self) -> u32 {
        let mut seen: Vec<_> = self.seen.iter().copied().collect();
        seen.sort_unstable();
        let n = u32::try_from(seen.len()).expect("few");
        let at = usize::try_from(n * 84 / 100).expect("few");
        seen.get(at).copied().unwrap_or(u32::MAX)
    }

    /// In turn the oldest one and the worst one.
    fn remove(&mut self) {
        let hot = self.threshold();
        self.removes_worst = !self.removes_worst;
        let cost = |probe: &Probe| match probe.in_flight > hot {
            true => (true, f64::from(probe.in_flight)),
            false => (false, probe.latency),
        };
        let costs = self.pool.iter().map(cost).enumerate();
        let worst = costs.max_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        match worst {
            Some((worst, _)) if self.removes_worst => drop(self.pool.remove(worst)),
            _ => drop(self.pool.pop_front()),
        }
    }

    fn probe(&mut self) {
        let n = self.world.len();
        let pool = POOL.min(n / 2);
        let reuse = 2.0 / ((1.0 - number(pool) / number(n)) * number(PROBES) - 1.0);
        let reuse = reuse.max(1.0);
        for _ in 0..PROBES {
            let index = self.rng.usize(..n);
            let report = self.world.report(index);
            let fraction = if self.rng.f64() < reuse.fract() { 1 } else { 0 };
            let whole = (1..=64_u32).rev().find(|uses| f64::from(*uses) <= reuse).unwrap_or(1);
            let (in_flight, latency) = (report.in_flight, report.latency);
            let (at, uses) = (Instant::now(), whole + fraction);
            self.pool.push_back(Probe { index, in_flight, latency, at, uses });
            self.seen.push_back(in_flight);
        }
        while self.pool.len() > pool {
            self.pool.pop_front();
        }
        while self.seen.len() > SEEN {
            self.seen.pop_front();
        }
    }
}

/// The ranking of all servers by their queues, without a control of rates.
///
/// It is that of "Cutting Tail Latency in Cloud Data Stores via Adaptive Replica Selection" (NSDI
/// 2015).
pub struct C3 {
    world: Arc<World>,
    n_clients: f64,
    rng: Rng,
    known: Arc<Mutex<Vec<Known>>>,
}

#[derive(Clone, Copy)]
struct Known {
    outstanding: f64,
    response: f64,
    service: f64,
    queue: f64,
}

impl C3 {
    pub fn new(world: Arc<World>, n_clients: usize, seed: u64) -> Self {
        // Until they have answered, all are alike.
        let unknown = Known { outstanding: 0.0, response: 0.08, service: 0.08, queue: 0.0 };
        let known = vec![unknown; world.len()];
        let (known, rng) = (Arc::new(Mutex::new(known)), Rng::with_seed(seed));
        Self { world, n_clients: number(n_clients), rng, known }
    }

    pub fn send(&mut self) -> BoxFuture<'static, Result<(), BoxError>> {
        let (known, world) = (Arc::clone(&self.known), Arc::clone(&self.world));
        let index = self.pick();
        let sent = Node { world: Arc::clone(&world), index }.send();
        let begun = Instant::now();
        Box::pin(async move {
            let result = sent.await;
            let (report, response) = (world.report(index), begun.elapsed().as_secs_f64());
            let one = &mut known.lock().expect("no panic")[index];
            let average = |known: f64, new: f64| known * 0.9 + new * 0.1;
            one.outstanding -= 1.0;
            one.response = average(one.response, response);
            one.service = average(one.service, report.service);
            one.queue = average(one.queue, f64::from(report.in_flight));
            result
        })
    }

    fn pick(&mut self) -> usize {
        let mut known = self.known.lock().expect("no panic");
        let cost = |one: &Known| {
            let queue = 1.0 + one.outstanding * self.n_clients + one.queue;
            one.response - one.service + queue.powi(3) * one.service
        };
        let start = self.rng.usize(..known.len());
        let order = (start..known.len()).chain(0..start);
        let best = order.min_by(|&a, &b| cost(&known[a]).total_cmp(&cost(&known[b])));
        let best = best.expect("servers");
        known[best].outstanding += 1.0;
        best
    }
}

const POOL: usize = 16;
const PROBES: usize = 3;
const SEEN: usize = 128;
const MAX_AGE: Duration = Duration::from_secs(1);
