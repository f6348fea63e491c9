//! A registry of a hundred lines that has one chosen bug.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tower_sd_core::{
    Error, ErrorKind, Instance, InstanceId, ReadMode, ReadRequest, ReadResult, Result, Source,
    TaskGroup, async_trait,
};

pub(crate) const TTL: Duration = Duration::from_secs(3);

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bug {
    None,
    /// An entry without a registration.
    Ghost,
    /// A watch that never fires.
    MissesChanges,
    /// A watch that fires a few times.
    StopsAfterFew,
    /// The loop ends with the instancer, though a subscription is left.
    EndsWithInstancer,
    /// The second of two with one address is not stored.
    OneAddressOneEntry,
    /// The first page of a list is taken for the list.
    FirstPageOnly,
    WithdrawsNothing,
    WithdrawsTheService,
    UnknownIsAnError,
    /// The second registration of an id is an entry of its own.
    EntryPerRegistration,
    /// Removes before it writes.
    RemovesFirst,
    NeverNoticesLoss,
    ForgetsUpdates,
    HidesHealth,
    MatchesPrefixes,
    AsciiOnly,
    Truncates,
    SplitsAtSlash,
    /// This field is not stored.
    Forgets(&'static str),
    SlowClose,
    LeaksTasks,
    /// Answers as if nothing had happened.
    HidesOutage,
    ComesBackEmpty,
    /// Its followers accept every loss.
    Gullible,
    /// A read that would confirm a loss fails.
    NeverConfirms,
    WatchDies,
    /// Reports an unchanged set while it hangs.
    AssertsWhileHung,
    /// A nudge loses the position.
    NudgeLosesPosition,
    /// A nudge is answered by ten reads.
    ReadsTenTimes,
    /// Followers run where the first one ran.
    DiesWithItsRuntime,
    /// Reads the service that a path leads to.
    CleansPaths,
    /// A read that hung is never given up, nor answered.
    HangsForEver,
    GivesUp,
    AnnouncesAfterWithdrawal,
    RenewsTooRarely,
    /// Does not look whose entry it removes, overwrites or renews.
    WithdrawsForAnother,
    WritesForAnother,
    RenewsForAnother,
    /// An entry that was taken over is never written again.
    NeverBack,
    /// An entry that was taken over is written again, and never renewed.
    NeverRenewedOnceBack,
    /// A refused update removes the entry.
    RemovesRefused,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) bug: Bug,
    state: Mutex<State>,
    pub(crate) changes: watch::Sender<()>,
    pub(crate) tasks: TaskGroup,
    n_reads: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<(String, InstanceId), Entry>,
    /// Nothing expires before.
    expiry: Option<Instant>,
    away: bool,
    hangs: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) instance: Instance,
    pub(crate) incarnation: String,
    pub(crate) expires_at: Instant,
}

impl Store {
    pub(crate) fn new(bug: Bug) -> Self {
        Self {
            bug,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            tasks: TaskGroup::new(),
            n_reads: AtomicU64::new(0),
        }
    }

    pub(crate) fn n_reads(&self) -> u64 {
        self.n_reads.load(Relaxed)
    }

    pub(crate) fn set(&self, away: bool, hangs: bool) {
        (self.lock().away, self.lock().hangs) = (away, hangs);
        self.changes.send_replace(());
    }

    pub(crate) fn remove(&self, service: &str, id: &InstanceId) -> bool {
        let removed = self.lock().entries.remove(&(service.to_owned(), id.clone()));
        self.changes.send_replace(());
        removed.is_some()
    }

    pub(crate) async fn call(&self) -> Result<()> {
        let mut changes = self.changes.subscribe();
        while self.lock().hangs {
            let _sender_is_in_self = changes.changed().await;
        }
        match self.lock().away && self.bug != Bug::HidesOutage {
            true => Err(Error::new(ErrorKind::Unavailable, "test", "call")),
            false => Ok(()),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.expiry.is_none_or(|at| at <= now) {
            state.entries.retain(|_, entry| entry.expires_at > now);
            state.expiry = state.entries.values().map(|entry| entry.expires_at).min();
        }
        state
    }

    async fn changed(&self, changes: &mut watch::Receiver<()>) {
        let expiry = self.lock().expiry;
        tokio::select! {
            _ = changes.changed() => {}
            () = async { sleep_until(expiry.expect("checked")).await }, if expiry.is_some() => {}
        }
    }

    pub(crate) fn leak(&self) {
        if self.bug == Bug::LeaksTasks {
            self.tasks.spawn(|stop| async move { stop.requested().await });
        }
    }
}

pub(crate) struct Reader {
    store: Arc<Store>,
    service: String,
    changes: watch::Receiver<()>,
    n_reads: u32,
    failed: bool,
}

impl Reader {
    pub(crate) fn new(store: Arc<Store>, service: &str) -> Self {
        store.leak();
        let changes = store.changes.subscribe();
        Self { store, service: service.to_owned(), changes, n_reads: 0, failed: false }
    }

    fn list(&self) -> Vec<Instance> {
        let (bug, state) = (self.store.bug, self.store.lock());
        let cleaned = self.service.rsplit("../").next().unwrap_or_default();
        let entries = state.entries.iter();
        let mut list: Vec<Instance> = entries
            .filter(|((service, _), _)| match bug {
                Bug::CleansPaths => service == cleaned,
                Bug::MatchesPrefixes => service.starts_with(&self.service),
                _ => *service == self.service,
            })
            .map(|(_, entry)| entry.instance.clone())
            .collect();
        match bug {
            Bug::Ghost => list.push(Instance::new("127.0.0.1", 1).with_id("ghost")),
            Bug::FirstPageOnly => list.truncate(500),
            Bug::ComesBackEmpty if self.failed => list.clear(),
            Bug::HidesOutage if state.away => list.clear(),
            _ => {}
        }
        list
    }
}

#[async_trait]
impl Source for Reader {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        self.n_reads += 1;
        if request.mode == ReadMode::Confirm && self.store.bug == Bug::NeverConfirms {
            return Err(Error::new(ErrorKind::Unavailable, "test", "confirm"));
        }
        if request.mode == ReadMode::Verify {
            match self.store.bug {
                Bug::AssertsWhileHung => return Ok(ReadResult::unchanged()),
                Bug::NudgeLosesPosition => return Ok(ReadResult::resync("nudged")),
                Bug::ReadsTenTimes => drop(self.store.n_reads.fetch_add(9, Relaxed)),
                _ => {}
            }
        }
        if request.waits() {
            self.store.changed(&mut self.changes).await;
            match self.store.bug {
                Bug::MissesChanges => pending().await,
                Bug::HangsForEver if self.store.lock().hangs => pending().await,
                Bug::StopsAfterFew if self.n_reads > 4 => pending().await,
                Bug::HidesOutage if self.store.lock().away => pending().await,
                _ => {}
            }
        }
        if self.store.bug == Bug::WatchDies && self.failed {
            pending::<()>().await;
        }
        self.store.n_reads.fetch_add(1, Relaxed);
        let called = self.store.call().await;
        self.failed |= called.is_err();
        called?;
        self.changes.mark_unchanged();
        Ok(ReadResult::set(self.list().into_iter().map(Ok).collect()))
    }
}
