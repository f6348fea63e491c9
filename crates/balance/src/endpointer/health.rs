use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU8,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::time::Instant;

use super::ejection::{Ejection, EjectionPolicy, EjectionReason, Judge};

/// Of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    phase: AtomicU8,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    ejection: Option<Ejection>,
    /// When it has returned, and from which ejection.
    returned: Option<(Instant, u32)>,
    older: Option<Mark>,
    newer: Option<Mark>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    requests: u64,
    failures: u64,
}

/// Only the worker leaves `Accused` and `Decided`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Phase {
    Well,
    /// A verdict is on its way.
    Accused,
    Ejected,
    /// One request may decide.
    Due,
    /// That request is in flight, or its verdict on its way.
    Decided,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Well, Self::Accused, Self::Ejected, Self::Due, Self::Decided];
}

impl Health {
    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// Whether it is out of the set.
    pub(super) fn is_ejected(&self) -> bool {
        matches!(self.phase(), Phase::Ejected | Phase::Due | Phase::Decided)
    }

    /// Only one caller succeeds.
    pub(super) fn change(&self, from: Phase, to: Phase, judge: &Judge) -> bool {
        let (before, after) = (from as u8, to as u8);
        let changed = self.phase.compare_exchange(before, after, SeqCst, SeqCst).is_ok();
        if changed {
            if to == Phase::Due {
                judge.n_due.fetch_add(1, SeqCst);
            }
            if from == Phase::Due {
                judge.n_due.fetch_sub(1, SeqCst);
            }
        }
        changed
    }

    /// Whether this failure ejects. `n` have come without a success; then the counters as they are.
    pub(super) fn is_outlier(
        &self,
        policy: &EjectionPolicy,
        n: u32,
        requests: u64,
        failures: u64,
    ) -> Option<EjectionReason> {
        if policy.consecutive_failures > 0 && n >= policy.consecutive_failures {
            return Some(EjectionReason::ConsecutiveFailures(n));
        }
        if policy.success_rate == 0 {
            return None;
        }
        // Before this failure.
        let (before, failed) = (requests.saturating_sub(1), failures.saturating_sub(1));
        let mark = Mark { at: Instant::now(), requests: before, failures: failed };
        let older = self.record().roll(mark, policy.window);
        let requests = requests.saturating_sub(older.requests);
        let failures = failures.saturating_sub(older.failures).min(requests);
        let succeeded = requests - failures;
        if requests < policy.min_requests.max(1)
            || succeeded * 100 >= requests * u64::from(policy.success_rate)
        {
            return None;
        }
        let percent = u8::try_from(succeeded * 100 / requests).unwrap_or(100);
        Some(EjectionReason::SuccessRate(percent))
    }

    pub(super) fn ejection(&self) -> Option<Ejection> {
        self.record().ejection
    }

    /// Records the next ejection, and returns its end.
    pub(super) fn eject(
        &self,
        reason: EjectionReason,
        policy: &EjectionPolicy,
        now: Instant,
        chance: f64,
    ) -> Instant {
        let mut record = self.record();
        let recent = record.returned.filter(|(at, _)| now.duration_since(*at) < policy.max);
        let before = record.ejection.map(|ejection| ejection.times);
        let times =
            before.or_else(|| recent.map(|(_, times)| times)).unwrap_or(0).saturating_add(1);
        let length = policy.length(times, chance);
        let until = now.checked_add(length).unwrap_or(now);
        record.ejection = Some(Ejection { reason, times, until });
        until
    }

    /// The request that was to decide was given up: another may in a while.
    pub(super) fn postpone(&self, policy: &EjectionPolicy, now: Instant) -> Instant {
        let mut record = self.record();
        let until = now.checked_add(policy.postponement()).unwrap_or(now);
        if let Some(ejection) = &mut record.ejection {
            ejection.until = until;
        }
        until
    }

    /// It returns; what was before no longer counts.
    pub(super) fn forgive(&self, now: Instant) {
        let mut record = self.record();
        if let Some(ejection) = record.ejection.take() {
            record.returned = Some((now, ejection.times));
        }
        (record.older, record.newer) = (None, None);
    }

    /// No request decides about it.
    ///
    /// For the worker, which alone makes an ejected one well: what requests change meanwhile is
    /// overwritten.
    pub(super) fn suspend(&self, judge: &Judge) {
        if self.is_ejected() && self.phase.swap(Phase::Ejected as u8, SeqCst) == Phase::Due as u8 {
            judge.n_due.fetch_sub(1, SeqCst);
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// The counters of up to a window ago; marks are set by failures alone.
    fn roll(&mut self, mark: Mark, window: Duration) -> Mark {
        let age = |other: Option<Mark>| other.map(|other| mark.at.duration_since(other.at));
        if age(self.older).is_some_and(|age| age >= window) {
            self.older = self.newer;
        }
        match age(self.newer) {
            Some(age) if age < window / 2 => {}
            Some(age) if age < window => self.older = self.newer.replace(mark),
            Some(_) | None => (self.older, self.newer) = (Some(mark), Some(mark)),
        }
        self.older.unwrap_or(mark)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Of `(seconds, requests, failures)`, the counters at a failure, which one ejects.
    async fn ejects(policy: &EjectionPolicy, counters: &[(f64, u64, u64)]) -> Option<usize> {
        let (health, begun) = (Health::default(), Instant::now());
        for (index, (seconds, requests, failures)) in counters.iter().enumerate() {
            sleep(Duration::from_secs_f64(*seconds) - begun.elapsed()).await;
            if health.is_outlier(policy, 1, *requests, *failures).is_some() {
                return Some(index);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn success_rate_covers_one_window() {
        let policy = EjectionPolicy::new().consecutive_failures(0);
        let counters =
            [(0.0, 1, 1), (1.0, 124, 24), (9.0, 125, 25), (13.8, 126, 26), (13.9, 127, 27)];
        assert_eq!(ejects(&policy, &counters).await, None);
        let counters = [(0.0, 1, 1), (1.0, 124, 24), (9.0, 126, 26)];
        assert_eq!(ejects(&policy, &counters).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn first_failure_counts_in_success_rate() {
        let policy = EjectionPolicy::new().min_requests(1);
        assert_eq!(ejects(&policy, &[(0.0, 11, 1)]).await, Some(0));
    }
}
