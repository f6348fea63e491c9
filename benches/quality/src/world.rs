//! The servers of one run.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

/// What is wrong with some of the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Other programs slow each of them down for a while, by 2 or 4, a third of the time.
    Antagonists,
    /// Half of them take twice as long.
    HalfSlow,
    /// Two take ten times as long.
    TwoSlow,
    /// Two fail within 1 ms.
    TwoFail,
}

/// Servers with workers and a queue each, all of one seed.
pub struct World(Vec<Mutex<Server>>);

struct Server {
    /// When each worker is free.
    workers: BinaryHeap<Reverse<Instant>>,
    rng: Rng,
    trouble: Trouble,
    is_bad: bool,
    /// The slowdown by antagonists, and when that changes.
    slowdown: (f64, Instant),
    n_requests: usize,
    in_flight: u32,
    /// Requests in flight on arrival, and latency, of those that have ended last.
    recent: VecDeque<(u32, f64)>,
    service: f64,
}

/// A request that a server has taken.
pub struct Taken {
    pub ends: Instant,
    pub fails: bool,
    /// Requests in flight when it arrived, itself left out.
    pub in_flight: u32,
}

/// What a server reports about itself.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub in_flight: u32,
    /// The median latency of requests that met about as many others, in seconds.
    pub latency: f64,
    /// The average service time, in seconds.
    pub service: f64,
}

impl World {
    pub fn new(n: usize, trouble: Trouble, seed: u64) -> Self {
        let mut seeds = Rng::with_seed(seed);
        let now = Instant::now();
        let server = |index| {
            Mutex::new(Server {
                workers: (0..WORKERS).map(|_| Reverse(now)).collect(),
                rng: seeds.fork(),
                trouble,
                is_bad: trouble.is_bad(index, n),
                slowdown: (1.0, now),
                n_requests: 0,
                in_flight: 0,
                recent: VecDeque::new(),
                service: MEAN,
            })
        };
        Self((0..n).map(server).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn server(&self, index: usize) -> MutexGuard<'_, Server> {
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request arrives.
    pub fn arrive(&self, index: usize) -> Taken {
        self.server(index).arrive(Instant::now())
    }

    /// A request has ended.
    pub fn depart(&self, index: usize, taken: &Taken, latency: Duration) {
        let mut server = self.server(index);
        server.in_flight -= 1;
        if !taken.fails {
            server.recent.push_back((taken.in_flight, latency.as_secs_f64()));
            if server.recent.len() > RECENT {
                server.recent.pop_front();
            }
        }
    }

    pub fn report(&self, index: usize) -> Report {
        self.server(index).report()
    }

    /// Counts from now on.
    pub fn forget(&self) {
        (0..self.len()).for_each(|index| self.server(index).n_requests = 0);
    }

    /// The requests of a bad server, in units of a fair share.
    ///
    /// Where none is bad, those of the busiest one.
    pub fn worst_share(&self) -> f64 {
        let counts: Vec<_> = (0..self.len())
            .map(|index| self.server(index))
            .map(|server| (server.is_bad, number(server.n_requests)))
            .collect();
        let mean = counts.iter().map(|it| it.1).sum::<f64>() / number(counts.len());
        let bad: Vec<_> = counts.iter().filter(|it| it.0).map(|it| it.1).collect();
        match bad.is_empty() {
            true => counts.iter().map(|it| it.1).fold(0.0, f64::max) / mean,
            false => bad.iter().sum::<f64>() / number(bad.len()) / mean,
        }
    }
}

impl Server {
    fn arrive(&mut self, now: Instant) -> Taken {
        self.n_requests += 1;
        let in_flight = self.in_flight;
        self.in_flight += 1;
        if self.trouble == Trouble::TwoFail && self.is_bad {
            return Taken { ends: now + Duration::from_millis(1), fails: true, in_flight };
        }
        let Reverse(free) = self.workers.pop().expect("workers");
        let begins = free.max(now);
        let service = exponential(&mut self.rng, MEAN) * self.slowdown_at(begins);
        self.service += (service - self.service) * 0.1;
        let ends = begins + Duration::from_secs_f64(service);
        self.workers.push(Reverse(ends));
        Taken { ends, fails: false, in_flight }
    }

    fn slowdown_at(&mut self, at: Instant) -> f64 {
        match (self.trouble, self.is_bad) {
            (Trouble::HalfSlow, true) => 2.0,
            (Trouble::TwoSlow, true) => 10.0,
            (Trouble::Antagonists, _) => {
                while self.slowdown.1 <= at {
                    let slowdown = match self.rng.f64() {
                        drawn if drawn < 0.67 => 1.0,
                        drawn if drawn < 0.89 => 2.0,
                        _ => 4.0,
                    };
                    let lasts = Duration::from_secs_f64(exponential(&mut self.rng, PHASE));
                    self.slowdown = (slowdown, self.slowdown.1 + lasts);
                }
                self.slowdown.0
            }
            _ => 1.0,
        }
    }

    fn report(&self) -> Report {
        let in_flight = self.in_flight;
        let distance = |met: u32| met.abs_diff(in_flight);
        let nearest = self.recent.iter().map(|it| distance(it.0)).min().unwrap_or(0);
        let near = self.recent.iter().filter(|it| distance(it.0) <= nearest + 1);
        let mut near: Vec<_> = near.map(|it| it.1).collect();
        near.sort_by(f64::total_cmp);
        let latency = near.get(near.len() / 2).copied().unwrap_or(MEAN);
        Report { in_flight, latency, service: self.service }
    }
}

impl Trouble {
    fn is_bad(self, index: usize, n: usize) -> bool {
        match self {
            Self::None | Self::Antagonists => false,
            Self::HalfSlow => index < n / 2,
            Self::TwoSlow | Self::TwoFail => index < 2,
        }
    }

    /// The requests per second that `n` servers can answer.
    pub fn capacity(self, n: usize) -> f64 {
        let speed = |index| match self {
            Self::Antagonists => 1.0 / (0.67 + 0.22 * 2.0 + 0.11 * 4.0),
            Self::HalfSlow if self.is_bad(index, n) => 0.5,
            Self::TwoSlow if self.is_bad(index, n) => 0.1,
            Self::TwoFail if self.is_bad(index, n) => 0.0,
            _ => 1.0,
        };
        (0..n).map(speed).sum::<f64>() * number(WORKERS) / MEAN
    }
}

pub fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

pub fn number(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("a small number"))
}

/// Requests that a server works on concurrently; others wait in its queue.
const WORKERS: usize = 4;
/// The mean of the exponential service times, in seconds, as Prequal's queries have it.
const MEAN: f64 = 0.08;
/// The mean time between changes by antagonists, in seconds.
const PHASE: f64 = 3.0;
const RECENT: usize = 32;
