use std::{
    array,
    cell::Cell as StdCell,
    mem,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use fastrand::Rng;

use super::{Balancer, Choice, Members, Picker, balancer::Candidates};
use crate::{
    attempt::{self, Record},
    endpointer::{Endpoint, Lease, Set, Tiers},
    sync::{Mutex, MutexGuard, thread_local},
};

/// Where the request path reads the set: a few locks, each of them one thread's, so that they are never contended.
///
/// Nothing is pinned: with the last handle every service is dropped, whatever threads have once picked. (A copy in a
/// thread-local is faster to read, and keeps services open until that thread picks again.)
pub(crate) struct Cell<S> {
    shards: [Shard<S>; N_SHARDS],
    balancer: Arc<dyn Balancer>,
}

/// On cache lines of its own: the neighbour belongs to another thread.
#[repr(align(128))]
struct Shard<S>(Mutex<Contents<S>>);

struct Contents<S> {
    published: Arc<Published<S>>,
    local: Local,
}

/// What the thread of a shard has for itself.
struct Local {
    rng: Rng,
    turn: usize,
}

/// A set with what was derived from it, published together.
struct Published<S> {
    tiers: Tiers<S>,
    picker: Arc<dyn Picker>,
}

/// What must not be picked again, and what must not be picked at all.
#[derive(Clone, Copy)]
struct Excluded<'a> {
    refused: &'a [u64],
    tried: Option<&'a Record>,
}

/// How far down a pick may go.
#[derive(Clone, Copy)]
enum Reach {
    Ready,
    All,
}

struct Usable<'a, S> {
    set: &'a Set<S>,
    excluded: Excluded<'a>,
}

impl<S> Cell<S> {
    pub(crate) fn new(balancer: Arc<dyn Balancer>, mut seeds: Rng) -> Self {
        let published = Arc::new(Published::new(&Tiers::default(), &*balancer));
        let shards = array::from_fn(|_| {
            let mut rng = seeds.fork();
            let turn = balancer.first_turn(rng.usize(..));
            let published = Arc::clone(&published);
            Shard(Mutex::new(Contents { published, local: Local { rng, turn } }))
        });
        Self { shards, balancer }
    }

    pub(crate) fn store(&self, tiers: &Tiers<S>) {
        let published = Arc::new(Published::new(tiers, &*self.balancer));
        for shard in &self.shards {
            // Dropped after the lock is released.
            let _old = mem::replace(&mut shard.lock().published, Arc::clone(&published));
        }
    }

    #[inline]
    fn shard(&self) -> MutexGuard<'_, Contents<S>> {
        let mine = THREAD.with(thread_number) % N_SHARDS;
        // In range: the compiler sees the remainder.
        self.shards[mine].lock()
    }
}

impl<S: Clone> Cell<S> {
    /// Picks an endpoint that is ready: its service, and the lease that counts the request.
    #[inline]
    pub(crate) fn pick(&self) -> Option<(S, Lease)> {
        self.pick_from(&[], Reach::Ready)
    }

    /// Picks any endpoint that has not refused, the worse ones when no better one is left.
    pub(crate) fn pick_any(&self, refused: &[u64]) -> Option<(S, Lease)> {
        self.pick_from(refused, Reach::All)
    }

    #[inline]
    fn pick_from(&self, refused: &[u64], reach: Reach) -> Option<(S, Lease)> {
        let tried = attempt::current();
        let excluded = Excluded { refused, tried: tried.as_deref() };
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        let endpoint = match reach {
            Reach::Ready => published.tiers.ready.get(published.choose(excluded, local)?),
            Reach::All => published.any(excluded, local),
        }?;
        if let Some(tried) = tried {
            tried.push(endpoint.stats.key, &endpoint.stats.id);
        }
        Some((endpoint.service.clone(), Lease::new(&endpoint.stats)))
    }

    /// The bare choice: an index of the published set.
    #[inline]
    pub(crate) fn choose(&self) -> Option<usize> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        published.choose(Excluded::NOTHING, local)
    }
}

impl<S> Published<S> {
    fn new(tiers: &Tiers<S>, balancer: &dyn Balancer) -> Self {
        Self {
            tiers: tiers.clone(),
            picker: Members::of(&tiers.ready, |members| balancer.picker(members)),
        }
    }

    #[inline]
    fn choose(&self, excluded: Excluded<'_>, local: &mut Local) -> Option<usize> {
        let set = &self.tiers.ready;
        let usable = Usable { set, excluded };
        self.picker.pick(&mut Choice::new(&usable, set.len(), &mut local.rng, &mut local.turn))
    }

    /// Ready ones, held ones, those that are down, and then those that were tried before, in the same order: who is down may
    /// be back, which is asked without spending the request, and whom this request has just seen fail is the worst choice.
    fn any(&self, excluded: Excluded<'_>, local: &mut Local) -> Option<&Arc<Endpoint<S>>> {
        let anew = Excluded { tried: None, ..excluded };
        let Tiers { ready, held, down } = &self.tiers;
        self.choose(excluded, local)
            .and_then(|index| ready.get(index))
            .or_else(|| first(held, excluded, local))
            .or_else(|| first(down, excluded, local))
            .or_else(|| ready.get(self.choose(anew, local)?))
            .or_else(|| first(held, anew, local))
            .or_else(|| first(down, anew, local))
    }
}

/// The first that may be picked, from a random one on.
fn first<'a, S>(
    tier: &'a [Arc<Endpoint<S>>],
    excluded: Excluded<'_>,
    local: &mut Local,
) -> Option<&'a Arc<Endpoint<S>>> {
    let (before, from) = tier.split_at(local.rng.usize(..=tier.len()));
    from.iter().chain(before).find(|endpoint| !excluded.contains(endpoint.stats.key))
}

impl Excluded<'_> {
    const NOTHING: Self = Self { refused: &[], tried: None };

    #[inline]
    fn is_empty(self) -> bool {
        self.refused.is_empty() && self.tried.is_none()
    }

    fn contains(self, key: u64) -> bool {
        self.refused.contains(&key) || self.tried.is_some_and(|tried| tried.contains(key))
    }
}

impl<S> Candidates for Usable<'_, S> {
    #[inline]
    fn is_usable(&self, index: usize) -> bool {
        // Who is down is not in the set: nothing of the endpoint is read unless somebody is left out.
        self.excluded.is_empty()
            || (self.set.get(index))
                .is_some_and(|endpoint| !self.excluded.contains(endpoint.stats.key))
    }

    #[inline]
    fn in_flight(&self, index: usize) -> usize {
        self.set.get(index).map_or(0, |endpoint| endpoint.in_flight())
    }
}

impl<S> Shard<S> {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Contents<S>> {
        // A panic of the user's `Clone` leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[inline]
fn thread_number(number: &StdCell<usize>) -> usize {
    match number.get() {
        0 => {
            number.set(NEXT_THREAD.fetch_add(1, Relaxed));
            number.get()
        }
        number => number,
    }
}

thread_local! {
    static THREAD: StdCell<usize> = const { StdCell::new(0) };
}

/// Numbers the threads of the process, so that neighbours get different shards; 0 is for those that have none yet.
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(1);
/// As many threads pick without meeting; more of them share locks that are held for some 20 ns.
const N_SHARDS: usize = 16;
