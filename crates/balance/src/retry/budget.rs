use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;
use tower_sd_core::{Error, ErrorKind, Result};

/// How many retries the successes of a client pay for.
///
/// An instance that fails under load gets more load by retries, and no longer recovers. A budget
/// bounds them: within 10 s there are at most as many retries as a share of the successes, or a
/// few where successes are rare. A client whose requests all fail has the few alone.
///
/// Each [`RetryLayer`](crate::RetryLayer) has one of its own, with the defaults, unless
/// [`RetryPolicy::budget`](crate::RetryPolicy::budget) sets another. Clones are the same budget:
/// several clients may share one, and so do the retries and
/// the [hedges](crate::RetryPolicy::hedged) of one.
///
/// It has no lock and no timer: time is passed in. A deposit is one atomic operation.
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
    successes: Ring,
    retries: Ring,
}

/// Counters, one per second; in a cache line of its own.
///
/// The low half of each is its second since the epoch, the high half the count: a count that
/// overflows changes no second.
#[derive(Default)]
#[repr(align(128))]
struct Ring([AtomicU64; SLOTS]);

impl RetryBudget {
    /// 20 % of the successes, or 10 per second where that is more.
    ///
    /// 20 % bounds the load at 1.2 times what is offered. The floor keeps quiet and new clients
    /// retrying, which have no successes to pay from: 100 within 10 s.
    #[must_use]
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
            successes: Ring::default(),
            retries: Ring::default(),
        }))
    }

    /// A request has succeeded at `now`.
    #[inline]
    pub fn deposit(&self, now: Instant) {
        self.0.successes.add(self.second(now));
    }

    /// The right to a retry at `now`. `None`: the budget is exhausted.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        let Ledger { percent, floor, successes, retries, refused, .. } = &*self.0;
        let now = self.second(now);
        let current = retries.slot(now);
        loop {
            let before = current.load(Relaxed);
            let second = now.max(second_of(before));
            let in_second = if second_of(before) == second { count_of(before) } else { 0 };
            let spent = retries.sum(second);
            let is_paid = (spent + 1) * 100 <= successes.sum(second) * percent;
            if !is_paid && spent >= *floor * WINDOW {
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
    #[must_use]
    pub fn report(&self, now: Instant) -> RetryBudgetReport {
        let second = self.second(now);
        RetryBudgetReport {
            successes: self.0.successes.sum(second),
            retries: self.0.retries.sum(second),
            refused: self.0.refused.load(Relaxed),
        }
    }

    /// From 1 on: a slot that was never written is of no second.
    #[inline]
    fn second(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.0.epoch).as_secs() + 1) & SECOND
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

impl Ring {
    #[inline]
    fn slot(&self, second: u64) -> &AtomicU64 {
        // Within bounds: the remainder of a division by its length.
        let index = usize::try_from(second).unwrap_or_default() % SLOTS;
        &self.0[index]
    }

    #[inline]
    fn add(&self, second: u64) {
        let slot = self.slot(second);
        let before = slot.load(Relaxed);
        if second_of(before) >= second {
            // Also what began so long ago that its slot counts a later second.
            slot.fetch_add(ONE, Relaxed);
        } else {
            Self::start(slot, before, second);
        }
    }

    /// Counts the first of a new second.
    #[cold]
    fn start(slot: &AtomicU64, mut before: u64, second: u64) {
        loop {
            let after = match second_of(before) >= second {
                true => before.wrapping_add(ONE),
                false => word(second, 1),
            };
            match slot.compare_exchange(before, after, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => before = changed,
            }
        }
    }

    fn subtract(&self, second: u64) {
        let slot = self.slot(second);
        let mut before = slot.load(Relaxed);
        while second_of(before) == second && count_of(before) > 0 {
            match slot.compare_exchange(before, before - ONE, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(changed) => before = changed,
            }
        }
    }

    /// The count of the window that ends with `second`.
    fn sum(&self, second: u64) -> u64 {
        let words = self.0.iter().map(|slot| slot.load(Relaxed));
        words.filter(|word| second_of(*word) + WINDOW > second).map(count_of).sum()
    }
}

#[inline]
fn word(second: u64, count: u64) -> u64 {
    count << 32 | second
}

#[inline]
fn second_of(word: u64) -> u64 {
    word & SECOND
}

#[inline]
fn count_of(word: u64) -> u64 {
    word >> 32
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

/// In seconds, the current one included. Finagle's.
const WINDOW: u64 = 10;
/// More than the window, so that a slot is out of it before it is used again.
const SLOTS: usize = 16;
const ONE: u64 = 1 << 32;
const SECOND: u64 = ONE - 1;

#[cfg(test)]
mod tests;
