use std::{
    array,
    cell::Cell,
    mem,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use fastrand::Rng;

use super::{
    Balancer, Choice, Members, Picker,
    balancer::Candidates,
    local::Local,
    part,
    request::{Labels, Purpose, Request},
};
use crate::{
    RequestScope,
    endpointer::{
        EndpointStats, Judge, N_TIERS, Probation, Readiness, Set, Started, Subscriber, Tier, Tiers,
        Trace, contain,
    },
    sync::{Mutex, MutexGuard, thread_local},
};

/// Where the request path reads the set: a few locks, each of them one thread's, so that they are
/// never contended.
///
/// Nothing is pinned: with the last handle every service is dropped, whatever threads have once
/// picked. (A copy in a thread-local is faster to read, and keeps services open until that thread
/// picks again.)
pub(crate) struct Shards<S> {
    shards: [Shard<S>; N_SHARDS],
    balancer: Arc<dyn Balancer>,
    n_out_of_range: AtomicUsize,
}

/// On cache lines of its own: the neighbour belongs to another thread.
#[repr(align(128))]
struct Shard<S>(Mutex<Contents<S>>);

struct Contents<S> {
    published: Arc<Published<S>>,
    local: Local,
}

/// The tiers with their pickers, published together.
struct Published<S> {
    tiers: [Arc<Choices<S>>; N_TIERS],
    judge: Arc<Judge>,
}

/// A service, its record, and what the pick leaves with the request.
pub(super) type Picked<S> = (S, Arc<EndpointStats>, Trace);

/// The same without a trace.
type Plain<S> = (S, Arc<EndpointStats>, Option<Started>);

pub(super) struct Choices<S> {
    pub(super) set: Set<S>,
    picker: Arc<dyn Picker>,
    tier: Tier,
    /// The number of requests at an endpoint is bounded.
    is_limited: bool,
}

/// The balancer's index is not one of the set.
#[derive(Debug)]
pub(crate) struct OutOfRange;

struct Usable<'a, S> {
    choices: &'a Choices<S>,
    request: &'a Request<'a>,
    checks_ready: bool,
    is_limited: bool,
    /// Nothing of an endpoint is read unless an endpoint is left out.
    takes_all: bool,
}

impl<S: Clone> Shards<S> {
    pub(crate) fn new(balancer: Arc<dyn Balancer>, mut seeds: Rng) -> Self {
        let tiers = Tiers::default();
        let build = |members: &Members<'_>| part::picker(&*balancer, members);
        let empty = Tier::ALL.map(|tier| Arc::new(Choices::new(tier, &tiers, build)));
        let published = Arc::new(Published { tiers: empty, judge: Arc::default() });
        let shards = array::from_fn(|_| {
            let mut rng = seeds.fork();
            let turn = balancer.initial_cursor(rng.usize(..));
            let published = Arc::clone(&published);
            Shard(Mutex::new(Contents { published, local: Local::new(rng, turn) }))
        });
        Self { shards, balancer, n_out_of_range: AtomicUsize::new(0) }
    }

    #[inline]
    fn shard(&self) -> MutexGuard<'_, Contents<S>> {
        let mine = THREAD.with(thread_number) % N_SHARDS;
        // In range: the compiler sees the remainder.
        self.shards[mine].lock()
    }

    fn published(&self) -> Arc<Published<S>> {
        Arc::clone(&self.shard().published)
    }

    /// Whether a request may decide about an ejection.
    pub(super) fn is_due(&self) -> bool {
        self.shard().published.judge.is_due()
    }

    /// Whether one of these tiers is so, and was not tried in `scope`.
    pub(super) fn any(
        &self,
        tiers: &[Tier],
        scope: Option<&RequestScope>,
        is_so: impl Fn(&EndpointStats) -> bool,
    ) -> bool {
        let tried = scope.map(RequestScope::keys).unwrap_or_default();
        let published = self.published();
        let mut all = tiers.iter().flat_map(|tier| published.tiers[*tier as usize].set.iter());
        all.any(|endpoint| is_so(&endpoint.stats) && !tried.contains(&endpoint.stats.key))
    }

    /// Whether that tier has any.
    pub(super) fn is_any_in(&self, tier: Tier) -> bool {
        self.shard().published.tiers[tier as usize].set.len() > 0
    }

    /// Picks an endpoint of the best tier. It may have become unready this instant.
    #[inline]
    pub(crate) fn pick(&self, scope: Option<&RequestScope>) -> Option<Picked<S>> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        // A retry needs an answer: the first attempt decides.
        if published.judge.is_due()
            && scope.is_none_or(|scope| scope.n_tried() == 0)
            && let Some(picked) = published.on_probation(scope, local)
        {
            return Some(picked);
        }
        let (service, stats, started) = published.pick_best(scope, local)?;
        Some((service, stats, Trace { started, ..Trace::of(Tier::Ready) }))
    }

    /// The same for a request without a scope; `None` also when it may decide about an ejection.
    //
    // Without a trace: three words that stay in registers are a third of what a request costs.
    #[inline]
    pub(super) fn pick_plain(&self) -> Option<Plain<S>> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        if published.judge.is_due() {
            return None;
        }
        published.pick_best(None, local)
    }

    /// Picks one of the best tier, ready or not, for a request that has waited.
    pub(super) fn pick_best(
        &self,
        scope: Option<&RequestScope>,
    ) -> Option<(S, Arc<EndpointStats>)> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        // A request that has waited is not measured.
        let (service, stats, _started) = published.pick_best(scope, local)?;
        Some((service, stats))
    }

    /// Picks an endpoint of one tier, in the way of the balancer.
    ///
    /// # Errors
    ///
    /// The balancer's index is out of range.
    pub(crate) fn pick_in(
        &self,
        tier: Tier,
        request: &Request<'_>,
    ) -> Result<Option<Picked<S>>, OutOfRange> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        let choices = &published.tiers[tier as usize];
        let index = match request.excluded {
            [] => choices.choose_usable(request, local),
            _ => local.beside(|local| choices.choose_usable(request, local)),
        };
        let picked = choices
            .get(index, local)
            .inspect_err(|OutOfRange| self.out_of_range(&published.judge))?;
        Ok(picked.map(|(service, stats, started)| {
            let started = started.filter(|_| tier == Tier::Ready);
            (service, stats, Trace { started, ..Trace::of(tier) })
        }))
    }

    /// A bug of the user's balancer, counted, and logged once.
    #[cold]
    fn out_of_range(&self, judge: &Judge) {
        if self.n_out_of_range.fetch_add(1, Relaxed) == 0 {
            let balancer = &self.balancer;
            let service = &*judge.service;
            tracing::error!(
                service,
                ?balancer,
                "pick failed: the balancer returned an index out of range"
            );
        }
    }

    /// The bare choice: an index of the published set.
    #[inline]
    pub(crate) fn choose(&self) -> Option<usize> {
        let mut shard = self.shard();
        let Contents { published, local } = &mut *shard;
        let Published { tiers: [ready, ..], .. } = &**published;
        ready.choose(&Request::ANY, false, local)
    }
}

impl<S: Clone + Send + Sync> Subscriber<S> for Shards<S> {
    fn publish(&self, tiers: &Tiers<S>) {
        let before = self.published();
        let build = |members: &Members<'_>| part::picker(&*self.balancer, members);
        let published = array::from_fn(|index| {
            let (tier, before) = (Tier::ALL[index], &before.tiers[index]);
            let counts = || contain("balancer", || self.balancer.counts_unusable());
            let counts = tier == Tier::Ready && counts() != Some(false);
            match before.set.is_same(tiers.get(tier)) && !counts {
                true => Arc::clone(before),
                false => Arc::new(Choices::new(tier, tiers, build)),
            }
        });
        let judge = Arc::clone(&tiers.judge);
        let published = Arc::new(Published { tiers: published, judge });
        for shard in &self.shards {
            // Dropped after the lock is released.
            let _old = mem::replace(&mut shard.lock().published, Arc::clone(&published));
        }
    }
}

impl<S: Clone> Published<S> {
    #[inline]
    fn pick_best(&self, scope: Option<&RequestScope>, local: &mut Local) -> Option<Plain<S>> {
        let [ready, ..] = &self.tiers;
        // The slow path finds out why there is none.
        let request = Request { scope, labels: Labels::Known, ..Request::ANY };
        ready.get(ready.choose(&request, false, local), local).ok().flatten()
    }

    /// An ejected endpoint about which this request decides.
    ///
    /// The balancer chooses it: a request that selects its endpoints decides about no others.
    #[cold]
    fn on_probation(&self, scope: Option<&RequestScope>, local: &mut Local) -> Option<Picked<S>> {
        let ejected = &self.tiers[Tier::Ejected as usize];
        let request =
            Request { scope, purpose: Purpose::Probation, labels: Labels::All, ..Request::ANY };
        let picked = ejected.choose(&request, true, local);
        // Its latency is not measured.
        let _started = local.meter.take(None);
        let endpoint = ejected.set.get(picked?)?;
        let probation = Probation::take(&endpoint.stats)?;
        let trace = Trace { probation: Some(probation), ..Trace::of(Tier::Ejected) };
        Some((endpoint.service.clone(), Arc::clone(&endpoint.stats), trace))
    }
}

impl<S: Clone> Choices<S> {
    /// Of one tier, with what `build` makes a picker of; the members of the others are unusable.
    pub(super) fn new(
        tier: Tier,
        tiers: &Tiers<S>,
        build: impl FnOnce(&Members<'_>) -> Arc<dyn Picker>,
    ) -> Self {
        let set = tiers.get(tier);
        let member = |index| {
            let endpoint = set.get(index)?;
            Some((endpoint.instance(), endpoint.stats.share()))
        };
        let unusable = || {
            let others = Tier::ALL.into_iter().filter(|other| *other != tier);
            let others = others.flat_map(|other| tiers.get(other).iter());
            let others = others.map(|endpoint| endpoint.instance());
            others.chain(tiers.creating().cloned()).collect()
        };
        let picker = build(&Members::new((set.len(), set.weigh_the_same()), &member, &unusable));
        Self { set: set.clone(), picker, tier, is_limited: tiers.judge.breaker.has_places() }
    }

    #[inline]
    pub(super) fn choose(
        &self,
        request: &Request<'_>,
        checks_ready: bool,
        local: &mut Local,
    ) -> Option<usize> {
        let usable = self.usable(request, checks_ready);
        let of = (self.set.len(), self.tier);
        self.picker.pick(&mut Choice::new(&usable, of, request, local))
    }

    #[inline]
    fn usable<'a>(&'a self, request: &'a Request<'_>, checks_ready: bool) -> Usable<'a, S> {
        let is_limited = self.is_limited && request.purpose != Purpose::Lease;
        let takes_all = request.excludes_nothing() && !checks_ready && !is_limited;
        Usable { choices: self, request, checks_ready, is_limited, takes_all }
    }

    /// A picker that ignores what is usable would choose the same one indefinitely: it gets the
    /// next that is. A request with a label has no other members.
    fn choose_usable(&self, request: &Request<'_>, local: &mut Local) -> Option<usize> {
        let usable = self.usable(request, true);
        let mut choice = Choice::new(&usable, (self.set.len(), self.tier), request, local);
        let index = self.picker.pick(&mut choice)?;
        match index < choice.len() && !choice.is_usable(index) {
            true if request.is_labelled() => None,
            true => choice.first_usable(index),
            false => Some(index),
        }
    }

    #[inline]
    fn get(&self, index: Option<usize>, local: &mut Local) -> Result<Option<Plain<S>>, OutOfRange> {
        let endpoint = index.and_then(|index| self.set.get(index));
        let started = local.meter.take(endpoint.map(|endpoint| &*endpoint.stats));
        match endpoint {
            Some(it) => Ok(Some((it.service.clone(), Arc::clone(&it.stats), started))),
            None if index.is_none() => Ok(None),
            // A picker may ignore that a tier is empty.
            None if self.set.len() == 0 => Ok(None),
            None => Err(OutOfRange),
        }
    }
}

impl<S> Usable<'_, S> {
    #[inline]
    fn takes(&self, stats: &EndpointStats) -> bool {
        let is_so = match self.request.purpose {
            Purpose::Down => stats.readiness() == Readiness::Down,
            _ => !self.checks_ready || stats.is_ready(),
        };
        is_so
            && (self.request.purpose != Purpose::Probation || stats.is_due())
            && !self.request.excludes(stats.key)
            && (!self.is_limited || !stats.is_full())
    }
}

impl<S> Candidates for Usable<'_, S> {
    #[inline]
    fn is_usable(&self, index: usize) -> bool {
        self.takes_all
            || self.choices.set.get(index).is_some_and(|endpoint| self.takes(&endpoint.stats))
    }

    #[inline]
    fn stats(&self, index: usize) -> Option<&Arc<EndpointStats>> {
        self.choices.set.get(index).map(|endpoint| &endpoint.stats)
    }

    #[inline]
    fn usable(&self, index: usize) -> Option<&Arc<EndpointStats>> {
        let stats = &self.choices.set.get(index)?.stats;
        (self.takes_all || self.takes(stats)).then_some(stats)
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
fn thread_number(number: &Cell<usize>) -> usize {
    match number.get() {
        0 => {
            number.set(NEXT_THREAD.fetch_add(1, Relaxed));
            number.get()
        }
        number => number,
    }
}

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// Numbers the threads of the process, so that neighbours get different shards; 0 is for those that
/// have none yet.
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(1);
/// As many threads pick without meeting; more of them share locks that are held for some 20 ns.
const N_SHARDS: usize = 16;
