//! What one pick costs: a `Service` call on an inner service that does nothing.
//!
//! Ours is the `Balance` that a user gets, lease included. Arguments: numbers of instances, if not
//! all of them.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    error::Error,
    hint::black_box,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, Endpointer, FixedInstancer, Instance, LeastLoaded, Maglev,
    Random, RoundRobin, ZoneAware,
};
use tower_sd_benches::{
    measure::{Contestant, double, medians, single},
    noop::{Noop, request},
    peers::{
        go_kit,
        pingora::{PingoraKetama, PingoraRoundRobin},
        tower_p2c::{self, Locked},
    },
    results::Results,
};

fn main() -> Result<(), Box<dyn Error>> {
    let sizes: Vec<usize> =
        std::env::args().skip(1).map(|n| n.parse()).collect::<Result<_, _>>()?;
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _guard = runtime.enter();
    let mut results = Results::new("pick")?;
    for n in sizes {
        let round_robin = ours(&runtime, n, RoundRobin::new());
        let random = ours(&runtime, n, Random::new());
        let (rr, rnd) = (&round_robin, &random);
        let judging = [
            ("least_loaded", ours(&runtime, n, LeastLoaded::new())),
            ("least_requests", ours(&runtime, n, LeastLoaded::least_requests())),
            ("weighted", ours_of(&runtime, n, RoundRobin::new(), skewed)),
            // Without a key each request goes to a random place of the table.
            ("maglev", ours(&runtime, n, Maglev::new())),
            ("zone_aware", ours_of(&runtime, n, ZoneAware::new("a", Random::new()), zoned)),
        ];
        let mut contestants = vec![
            Contestant::new("round_robin", one(rr.clone())),
            Contestant::new("random", one(rnd.clone())),
            Contestant::new("choice_round_robin", single(move || _ = black_box(rr.choose()))),
            Contestant::new("choice_random", single(move || _ = black_box(rnd.choose()))),
            Contestant::new("round_robin_cloned", one_cloned(rr.clone())),
        ];
        contestants.extend(judging.iter().map(|(name, it)| Contestant::new(*name, one(it.clone()))));
        contestants.extend([
            Contestant::new("rwlock_rr", one(go_kit::RoundRobin::new(n))),
            Contestant::new("rwlock_rr_lease", one(go_kit::RoundRobinLease::new(n))),
            Contestant::new("tower_pending", one(tower_p2c::pending(n))),
            Contestant::new("tower_peak_ewma", one(tower_p2c::peak_ewma(n))),
            Contestant::new("tower_buffer", buffered(n)),
            Contestant::new("pingora_rr", one(PingoraRoundRobin::new(n))),
            Contestant::new("pingora_ketama", one(PingoraKetama::new(n))),
        ]);
        report(&mut results, &mut contestants, (n, 1))?;
        let mut contestants = vec![
            Contestant::new("round_robin", two(rr.clone())),
            Contestant::new("random", two(rnd.clone())),
            Contestant::new(
                "choice_round_robin",
                double(rr.clone(), |b| _ = black_box(b.choose())),
            ),
            Contestant::new("choice_random", double(rnd.clone(), |b| _ = black_box(b.choose()))),
            Contestant::new("round_robin_cloned", two_cloned(rr.clone())),
        ];
        contestants.extend(judging.iter().map(|(name, it)| Contestant::new(*name, two(it.clone()))));
        contestants.extend([
            Contestant::new("rwlock_rr", two(go_kit::RoundRobin::new(n))),
            Contestant::new("rwlock_rr_lease", two(go_kit::RoundRobinLease::new(n))),
            Contestant::new("tower_pending", two(Locked::new(tower_p2c::pending(n)))),
            Contestant::new("tower_peak_ewma", two(Locked::new(tower_p2c::peak_ewma(n)))),
            Contestant::new("pingora_rr", two(PingoraRoundRobin::new(n))),
            Contestant::new("pingora_ketama", two(PingoraKetama::new(n))),
        ]);
        report(&mut results, &mut contestants, (n, 2))?;
        count_allocations("round_robin", &mut round_robin.clone())?;
        count_allocations("random", &mut random.clone())?;
        for (name, balance) in &judging {
            count_allocations(name, &mut balance.clone())?;
        }
    }
    Ok(())
}

fn report(
    results: &mut Results,
    contestants: &mut [Contestant<'_>],
    case: (usize, usize),
) -> Result<(), Box<dyn Error>> {
    // Large sets have to get into the cache before they are measured.
    let (rounds, slice) = if case.0 < 1_000 { (41, SLICE) } else { (15, SLICE * 20) };
    let times = medians(contestants, rounds, slice);
    let (ours, peers) = times.split_at(N_OURS);
    let peers: Vec<_> =
        contestants[N_OURS..].iter().map(|peer| peer.name).zip(peers.iter().copied()).collect();
    for (contestant, &time) in contestants.iter().zip(ours) {
        results.add(contestant.name, case, time, &peers)?;
    }
    Ok(())
}

/// The first half weighs a hundred times as much.
fn skewed(n: usize, instance: Instance) -> Instance {
    let is_heavy = usize::from(instance.port()) * 2 <= n;
    instance.with_weight(if is_heavy { 100 } else { 1 })
}

/// Half of them are in the own zone.
fn zoned(n: usize, instance: Instance) -> Instance {
    let is_near = usize::from(instance.port()) * 2 <= n;
    instance.with_zone(if is_near { "a" } else { "b" })
}

fn ours(runtime: &Runtime, n: usize, balancer: impl Balancer) -> Balance<Noop> {
    ours_of(runtime, n, balancer, |_, instance| instance)
}

fn ours_of(
    runtime: &Runtime,
    n: usize,
    balancer: impl Balancer,
    change: fn(usize, Instance) -> Instance,
) -> Balance<Noop> {
    let ports = 1..=u16::try_from(n).expect("few");
    let instancer = FixedInstancer::new(ports.map(|port| change(n, Instance::new("h", port))));
    let endpointer =
        Endpointer::with(
            &instancer,
            |instance| async move { Ok(Noop(u32::from(instance.port()))) },
        );
    let balance = BalanceLayer::new(balancer).layer(endpointer.clone());
    runtime.block_on(async {
        while endpointer
            .report()
            .endpoints
            .iter()
            .filter(|e| e.state == tower_sd_balance::EndpointState::Ready)
            .count()
            < n
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    balance
}

fn one<S: Service<(), Response = u32> + 'static>(mut service: S) -> impl FnMut(u64) -> Duration {
    single(move || request(&mut service))
}

fn one_cloned<S: Service<(), Response = u32> + Clone + 'static>(
    service: S,
) -> impl FnMut(u64) -> Duration {
    single(move || request(&mut black_box(&service).clone()))
}

fn two<S: Service<(), Response = u32> + Clone + Send + 'static>(
    service: S,
) -> impl FnMut(u64) -> Duration {
    double(service, request)
}

fn two_cloned<S: Service<(), Response = u32> + Clone + Send + 'static>(
    service: S,
) -> impl FnMut(u64) -> Duration {
    double(service, |service: &mut S| request(&mut black_box(&*service).clone()))
}

/// A `Buffer` needs its worker to run: one task that sends one request after the other.
fn buffered(n: usize) -> impl FnMut(u64) -> Duration {
    use tower::ServiceExt;
    let current = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut service = current.block_on(async { tower_p2c::buffer(n) });
    move |n| {
        current.block_on(async {
            let started = std::time::Instant::now();
            for _ in 0..n {
                let ready = service.ready().await.expect("ready");
                _ = black_box(ready.call(()).await.expect("an answer"));
            }
            started.elapsed()
        })
    }
}

fn count_allocations(case: &str, service: &mut Balance<Noop>) -> Result<(), Box<dyn Error>> {
    request(service);
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        request(service);
    }
    match ALLOCATIONS.get() - before {
        0 => Ok(()),
        n => Err(format!("{case}: {n} allocations in 1000 picks").into()),
    }
}

const SIZES: [usize; 5] = [2, 10, 100, 1_000, 10_000];
const SLICE: Duration = Duration::from_millis(1);
/// The contestants that are ours come first.
const N_OURS: usize = 10;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// Counting what is allocated is only possible where it is allocated; the benchmark promises that a
// pick allocates nothing.
// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
