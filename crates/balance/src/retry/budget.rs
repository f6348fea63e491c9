mod ring;

use std::{
    array,
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower_sd_core::{Error, ErrorKind, Result};

use self::ring::{Ring, SECOND, WINDOW, count_of, second_of, word};

/// How many retries the successes of a client pay for.
///
/// An instance that fails under load gets more load by retries, and no longer recovers. A budget
/// bounds them: within 10 s there are at most as many retries as a share of the successes, or a
/// few where successes are rare. A client whose requests all fail has the few alone. What was never
/// sent is repeated without it; of what an instance itself has refused that is so once.
///
/// Each [`RetryLayer`](crate::RetryLayer) has one of its own, with the defaults, unless
/// [`RetryPolicy::budget`](crate::RetryPolicy::budget) sets another. Clones are the same budget:
/// several clients may share one, and so do the retries and
/// the [hedges](crate::RetryPolicy::hedged) of one.
///
/// It has no lock and no timer: time is passed in. A deposit is one atomic operation, for which
/// neighbouring threads do not meet.
///
/// The rules are those of Finagle's `RetryBudget`, with deposits by successes in place of requests:
/// by requests it does not recover from an overload (Bronson et al., "Metastable Failures in
/// Distributed Systems", HotOS 2021).
///
/// ```
/// use tokio::time::Instant;
/// use tower_sd::retry::{RetryBudget, RetryPolicy};
///
/// let budget = RetryBudget::with(20, 0)?;
/// let now = Instant::now();
/// (0..10).for_each(|_| budget.deposit(now));
/// assert_eq!((0..10).filter_map(|_| budget.withdraw(now)).map(|one| one.spend()).count(), 2);
///
/// let (orders, stock) = (RetryPolicy::new().budget(budget.clone()), RetryPolicy::new().budget(budget));
/// # drop((orders, stock));
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget(Arc<Ledger>);

/// The right to one retry.
///
/// # Drop
///
/// It returns to the budget, unless it was [spent](Self::spend).
#[derive(Debug)]
#[must_use = "dropped, it returns to its budget"]
pub struct Withdrawal {
    /// `None`: it was spent.
    budget: Option<RetryBudget>,
    second: u64,
}

/// What a [`RetryBudget`] has received and paid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RetryBudgetReport {
    /// The successes of the last 10 s.
    pub successes: u64,
    /// The retries of the last 10 s.
    pub retries: u64,
    /// How many retries it has refused since its creation.
    pub refused: u64,
}

struct Ledger {
    percent: u64,
    floor: u64,
    epoch: Instant,
    refused: AtomicU64,
    successes: [Ring; N_RINGS],
    retries: Ring,
}

/// The second in which this thread was last.
///
/// To compare moments costs a quarter of their difference.
struct Here {
    epoch: Cell<Option<Instant>>,
    begin: Cell<Option<Instant>>,
    end: Cell<Option<Instant>>,
    second: Cell<u64>,
    ring: Cell<usize>,
}

impl RetryBudget {
    /// 20 % of the successes, or 10 per second where that is more.
    ///
    /// 20 % bounds the load at 1.2 times what is offered. The floor keeps quiet and new clients
    /// retrying, which have no successes to pay from: 100 within 10 s.
    pub fn new() -> Self {
        Self::of(20, 10)
    }

    /// `percent` of the successes of 10 s, or 10 times `floor` where that is more.
    ///
    /// # Errors
    ///
    /// A share that is not in 1 to 100 percent.
    pub fn with(percent: u8, floor: u32) -> Result<Self> {
        if !(1..=100).contains(&percent) {
            let message = format!("budget of {percent} % is not in 1 to 100 %");
            return Err(Error::new(ErrorKind::Config, "retry", "build").with_message(message));
        }
        Ok(Self::of(u64::from(percent), u64::from(floor)))
    }

    pub(crate) fn of(percent: u64, floor: u64) -> Self {
        Self(Arc::new(Ledger {
            percent,
            floor,
            epoch: Instant::now(),
            refused: AtomicU64::new(0),
            successes: array::from_fn(|_| Ring::default()),
            retries: Ring::default(),
        }))
    }

    /// A request has succeeded at `now`.
    #[inline]
    pub fn deposit(&self, now: Instant) {
        HERE.with(|here| {
            let second = here.second(&self.0, now);
            // In range: the compiler sees the remainder.
            self.0.successes[here.ring.get() % N_RINGS].add(second);
        });
    }

    /// The right to a retry at `now`. `None`: the budget is exhausted.
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let Ledger { percent, floor, retries, refused, .. } = &*self.0;
        let now = self.second(now);
        let current = retries.slot(now);
        loop {
            let before = current.load(Relaxed);
            let second = now.max(second_of(before));
            let in_second = if second_of(before) == second { count_of(before) } else { 0 };
            let spent = retries.sum(second);
            let is_paid = || (spent + 1) * 100 <= self.successes(second) * percent;
            if spent >= *floor * WINDOW && !is_paid() {
                refused.fetch_add(1, Relaxed);
                return None;
            }
            let after = word(second, in_second + 1);
            // Another withdrawal in between changes it: then all of it is read again.
            if current.compare_exchange(before, after, Relaxed, Relaxed).is_ok() {
                return Some(Withdrawal { budget: Some(self.clone()), second });
            }
        }
    }

    /// What it has received and paid at `now`.
    pub fn report(&self, now: Instant) -> RetryBudgetReport {
        let second = self.second(now);
        RetryBudgetReport {
            successes: self.successes(second),
            retries: self.0.retries.sum(second),
            refused: self.0.refused.load(Relaxed),
        }
    }

    fn successes(&self, second: u64) -> u64 {
        self.0.successes.iter().map(|ring| ring.sum(second)).sum()
    }

    fn second(&self, now: Instant) -> u64 {
        HERE.with(|here| here.second(&self.0, now))
    }
}

impl Here {
    #[inline]
    fn second(&self, ledger: &Ledger, now: Instant) -> u64 {
        let (epoch, now) = (Some(ledger.epoch), Some(now));
        match self.epoch.get() == epoch && self.begin.get() <= now && now < self.end.get() {
            true => self.second.get(),
            false => self.enter(ledger.epoch, now),
        }
    }

    #[cold]
    fn enter(&self, epoch: Instant, now: Option<Instant>) -> u64 {
        let elapsed = now.map_or(0, |now| now.saturating_duration_since(epoch).as_secs());
        let begin = epoch + Duration::from_secs(elapsed);
        self.epoch.set(Some(epoch));
        // What is before the epoch belongs to its first second.
        self.begin.set(now.min(Some(begin)));
        self.end.set(Some(begin + Duration::from_secs(1)));
        // From 1 on: a slot that was never written is of no second.
        self.second.set((elapsed + 1) & SECOND);
        if self.ring.get() == 0 {
            self.ring.set(NEXT_RING.fetch_add(1, Relaxed));
        }
        self.second.get()
    }
}

impl Withdrawal {
    /// The retry is sent.
    pub fn spend(mut self) {
        self.budget = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.0.retries.subtract(self.second);
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("percent", &self.0.percent)
            .field("floor", &self.0.floor)
            .field("refused", &self.0.refused.load(Relaxed))
            .finish_non_exhaustive()
    }
}

thread_local! {
    static HERE: Here = const {
        Here {
            epoch: Cell::new(None),
            begin: Cell::new(None),
            end: Cell::new(None),
            second: Cell::new(0),
            ring: Cell::new(0),
        }
    };
}

/// Rings for the threads of the process, in turn; 0 is for those that have none yet.
static NEXT_RING: AtomicUsize = AtomicUsize::new(1);
/// As many threads deposit without meeting.
const N_RINGS: usize = 4;

#[cfg(test)]
mod tests;
