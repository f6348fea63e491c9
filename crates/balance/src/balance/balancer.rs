use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Members,
    fraction::GOLDEN,
    local::{Local, N_TURNS},
    request::{Labels, Request},
};
use crate::{
    Observer, RequestScope,
    endpointer::{Decay, EndpointStats, Tier},
};

/// A balancing algorithm: builds a [`Picker`] for every set.
///
/// # Contract
///
/// [`picker`](Self::picker) is called off the request path whenever the set has changed, and what
/// it builds (a table of weights, a ring) is published together with that set: a picker never sees
/// another. It must not call the endpointer.
///
/// # Examples
///
/// One that learns from outcomes: it avoids endpoints whose last request has failed.
///
/// ```
/// use std::sync::{Arc, atomic::Ordering::Relaxed};
///
/// use tower_sd::balance::{BalanceLayer, Balancer, Choice, Members, Picker};
/// use tower_sd::endpoint::{EndpointStats, Event, Observer, Outcome};
///
/// #[derive(Clone, Copy, Debug)]
/// struct AvoidFailed;
///
/// impl Balancer for AvoidFailed {
///     fn picker(&self, _: &Members<'_>) -> Arc<dyn Picker> {
///         Arc::new(*self)
///     }
///
///     fn observer(&self) -> Option<Arc<dyn Observer>> {
///         Some(Arc::new(*self))
///     }
/// }
///
/// impl Picker for AvoidFailed {
///     fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
///         let start = choice.random(choice.len());
///         let has_failed = |stats: &EndpointStats| stats.extra()[0].load(Relaxed) > 0;
///         let is_good = |index| choice.stats(index).is_some_and(|stats| !has_failed(stats));
///         let mut usable = (start..choice.len()).chain(0..start).filter(|i| choice.is_usable(*i));
///         usable.find(|index| is_good(*index)).or_else(|| choice.first_usable(start))
///     }
/// }
///
/// impl Observer for AvoidFailed {
///     fn on(&self, event: &Event<'_>) {
///         if let Event::Ended { endpoint, outcome, .. } = event {
///             endpoint.extra()[0].store(u64::from(*outcome != Outcome::Success), Relaxed);
///         }
///     }
/// }
/// # let _ = BalanceLayer::new(AvoidFailed);
/// ```
pub trait Balancer: fmt::Debug + Send + Sync + 'static {
    /// A picker for these members.
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker>;

    /// The balancer inside this one, from which the methods below take their defaults.
    fn inner(&self) -> Option<&dyn Balancer> {
        None
    }

    /// Where [`Choice::cursor`] starts. Defaults to `random`.
    ///
    /// The clients of a fleet that starts together then begin with different instances.
    fn initial_cursor(&self, random: usize) -> usize {
        self.inner().map_or(random, |inner| inner.initial_cursor(random))
    }

    /// Whether its pickers depend on [`Members::unusable`].
    ///
    /// They are then built anew when those change, too. Defaults to false.
    fn counts_unusable(&self) -> bool {
        self.inner().is_some_and(|inner| inner.counts_unusable())
    }

    /// An observer of the requests that it has chosen for, when it learns from them.
    ///
    /// Called once for each [`BalanceLayer::layer`](crate::BalanceLayer).
    fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.inner()?.observer()
    }
}

/// The pure choice among the members of one set.
///
/// # Contract
///
/// Called for every request, under an uncontended lock: it blocks on nothing, and allocates
/// nothing.
pub trait Picker: Send + Sync + 'static {
    /// The index of a usable member; `None` when there is none.
    ///
    /// A request that waits gets another one in place of one that is not usable.
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize>;
}

/// What a [`Picker`] chooses from, and the state of the thread that it may use.
pub struct Choice<'a> {
    candidates: &'a dyn Candidates,
    len: usize,
    tier: Tier,
    request: &'a Request<'a>,
    local: &'a mut Local,
    /// The group that this is, among those of `local.turns`.
    group: usize,
}

pub(super) trait Candidates {
    fn is_usable(&self, index: usize) -> bool;
    fn stats(&self, index: usize) -> Option<&Arc<EndpointStats>>;
    /// Both together: a member is read once.
    fn usable(&self, index: usize) -> Option<&Arc<EndpointStats>>;
}

impl<'a> Choice<'a> {
    #[inline]
    pub(super) fn new(
        candidates: &'a dyn Candidates,
        (len, tier): (usize, Tier),
        request: &'a Request<'a>,
        local: &'a mut Local,
    ) -> Self {
        // The turns of the best tier go on after a request that went to another.
        let group = if tier == Tier::Ready { 0 } else { HALF };
        Self { candidates, len, tier, request, local, group }
    }

    /// Picks among those with these indexes, in this order.
    ///
    /// `nth` is the number of the group among those of the picker. The first 32 groups of the set
    /// have a [`cursor`](Self::cursor) each, and of these the first four four groups each; further
    /// ones share some. Returns the index in the whole set.
    #[inline]
    pub fn only(&mut self, nth: usize, indexes: &[usize], picker: &dyn Picker) -> Option<usize> {
        let candidates = Group { whole: self.candidates, indexes };
        let group = self.group / HALF * HALF + nested(self.group % HALF, nth);
        let (len, local) = (indexes.len(), &mut *self.local);
        let mut choice = Choice { candidates: &candidates, len, local, group, ..*self };
        indexes.get(picker.pick(&mut choice)?).copied()
    }

    /// How many members the set has.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the set has no members.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether that member may be picked now.
    ///
    /// It was not tried for this request, and has not refused it.
    #[inline]
    pub fn is_usable(&self, index: usize) -> bool {
        self.candidates.is_usable(index)
    }

    /// Whether the request leaves none out.
    #[inline]
    pub(super) fn excludes_none(&self) -> bool {
        self.request.excludes_nothing()
    }

    /// The record of that member if it may be picked now, and how many requests it has in flight.
    #[inline]
    pub(super) fn usable(&self, index: usize) -> Option<(&EndpointStats, usize)> {
        let stats = self.candidates.usable(index)?;
        // One is the endpoint's own.
        Some((stats, Arc::strong_count(stats) - 1))
    }

    /// How many requests that member has in flight.
    #[inline]
    pub fn in_flight(&self, index: usize) -> usize {
        // One is the endpoint's own.
        self.candidates.stats(index).map_or(0, |stats| Arc::strong_count(stats) - 1)
    }

    /// The record of that member, which outlives the set.
    #[inline]
    pub fn stats(&self, index: usize) -> Option<&EndpointStats> {
        self.candidates.stats(index).map(|stats| &**stats)
    }

    /// The scope that the request is in: its key, its deadline, its attempts.
    pub fn scope(&self) -> Option<&RequestScope> {
        self.request.scope
    }

    /// The tier that is chosen from.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether members without the label of the request are out of the question; some have it if
    /// it `is_known`.
    pub(super) fn keeps_label(&self, is_known: bool) -> bool {
        match self.request.labels {
            Labels::None => false,
            Labels::Known => is_known,
            Labels::All => true,
        }
    }

    /// The present moment, read when it is called: 20 to 50 ns.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Measures the latency of this request, for [`EndpointStats::latency`].
    ///
    /// The average has a time constant of `tau`. Returns the present moment; `None` when this
    /// request is not measured, because the thread sends so many that the clock would cost more
    /// than the pick.
    pub fn measure(&mut self, tau: Duration) -> Option<Instant> {
        self.measure_by(Decay { tau: tau.as_secs_f32(), peak: false })
    }

    #[inline]
    pub(super) fn measure_by(&mut self, decay: Decay) -> Option<Instant> {
        self.local.meter.measure(decay)
    }

    /// A number below `bound`, each equally likely; 0 when `bound` is 0.
    #[inline]
    pub fn random(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            _ => self.local.rng.usize(..bound),
        }
    }

    /// 64 random bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u64 {
        self.local.rng.u64(..)
    }

    /// A number that only the picker reads and writes, as the index that comes next.
    ///
    /// Each thread has its own for each balancer; it outlives the set.
    #[inline]
    pub fn cursor(&mut self) -> &mut usize {
        &mut self.local.turns[self.group % N_TURNS]
    }

    /// A fraction of 2^64 in place of a turn, when other groups have the same cursor.
    ///
    /// In whatever order they take turns, those of each are even.
    #[inline]
    pub(super) fn fraction(&mut self) -> Option<u64> {
        if self.group % HALF < SHARED {
            return None;
        }
        let turn = self.cursor();
        *turn = turn.wrapping_add(1);
        Some(u64::try_from(*turn).unwrap_or(0).wrapping_mul(GOLDEN))
    }

    /// What `draw` draws that is usable, at the `n`th time at last; else any that is.
    ///
    /// Members that are not usable leave the set immediately: what is drawn in vain was tried for
    /// this request, or became down this instant. Drawing again keeps the others equally likely,
    /// where walking on would favour their neighbours.
    #[inline]
    pub(super) fn drawn(
        &mut self,
        n: usize,
        mut draw: impl FnMut(&mut Self) -> usize,
    ) -> Option<usize> {
        for _ in 0..n {
            let index = draw(self);
            if index < self.len && self.is_usable(index) {
                return Some(index);
            }
        }
        self.any()
    }

    /// Any usable member, from a random one on.
    #[cold]
    pub(super) fn any(&mut self) -> Option<usize> {
        let start = self.random(self.len);
        self.first_usable(start)
    }

    /// The first usable member from `start` on, around the end.
    #[inline]
    pub fn first_usable(&self, start: usize) -> Option<usize> {
        if start < self.len && self.is_usable(start) {
            return Some(start);
        }
        (start + 1..self.len).chain(0..start.min(self.len)).find(|&index| self.is_usable(index))
    }
}

/// Some of the candidates, renumbered.
struct Group<'a> {
    whole: &'a dyn Candidates,
    indexes: &'a [usize],
}

impl Candidates for Group<'_> {
    fn is_usable(&self, index: usize) -> bool {
        self.indexes.get(index).is_some_and(|&index| self.whole.is_usable(index))
    }

    fn stats(&self, index: usize) -> Option<&Arc<EndpointStats>> {
        self.whole.stats(*self.indexes.get(index)?)
    }

    #[inline]
    fn usable(&self, index: usize) -> Option<&Arc<EndpointStats>> {
        self.whole.usable(*self.indexes.get(index)?)
    }
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("len", &self.len)
            .field("turn", &self.local.turns[self.group % N_TURNS])
            .finish_non_exhaustive()
    }
}

/// The number of a group within another, 0 for the whole set.
#[inline]
fn nested(group: usize, nth: usize) -> usize {
    match group {
        0 if nth < 32 => 1 + nth,
        1..=4 if nth < 4 => 29 + group * 4 + nth,
        _ => SHARED + (group.wrapping_mul(31).wrapping_add(nth)) % (HALF - SHARED),
    }
}

/// The best tier's, and the others'.
const HALF: usize = N_TURNS / 2;
/// From this one on groups share cursors.
const SHARED: usize = 49;
