//! The single writer of a set of instances.

mod guard;
mod intake;
mod listing;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use self::{
    guard::{Guard, Tripped},
    listing::Listing,
};
use crate::{
    Entries, Error, ErrorKind, Freshness, Instance, PublisherStats, ReadMode, RegistryConfig, Sink,
    Snapshot, Subscription, counters::Counters, duration::MAX,
};

/// The single writer of one service's [`Snapshot`]s.
///
/// The following loop feeds it; a combinator (a merge of two instancers) owns one itself: it gives
/// every new set to [`set`](Sink::set), every trouble to [`failed`](Sink::failed), and drives time
/// by awaiting [`due`](Sink::due) in its `select!`. When that resolves it must give its set to
/// [`set`](Sink::set) again, with [`ReadMode::Confirm`], if that is fresh: without a confirmation
/// no held instance ever leaves. A [`FilteredInstancer`](crate::FilteredInstancer) needs none of
/// this.
///
/// - **Order and identity**: sorted by id; of several entries with one id, or with one address, one
///   is kept: those that accept requests come first, then the youngest, then a total order of the
///   content.
/// - **Additions and changed payloads** are published immediately; an unchanged entry keeps its
///   `Arc`.
/// - **A removal**, and a change to a status or weight that accepts no requests, waits
///   [`removal_wait`](RegistryConfig::removal_wait) for the reads that follow it; then the
///   [`LossPolicy`](crate::LossPolicy) decides whether it is published or held. A removal that the
///   first set after an error or a resync shows is held until it is confirmed, however small.
/// - **An error** changes the [`Freshness`] and never the set, unless
///   [`invalidate_after`](RegistryConfig::invalidate_after) requires it.
///
/// # Drop
///
/// Leaves its subscribers the last set, stale with a `Closed` error.
#[must_use]
pub struct Publisher {
    pub(crate) backend: &'static str,
    service: String,
    pub(crate) config: RegistryConfig,
    listing: Listing,
    guard: Guard,
    snapshots: watch::Sender<Snapshot>,
    pub(crate) nudge: Arc<Notify>,
    counters: Counters,
    /// The error that armed [`RegistryConfig::invalidate_after`], and when it strikes.
    invalidation: Option<(Instant, Error)>,
    invalidated: bool,
    /// The last set was refused as a whole, so that nothing proves the one before it.
    rejected: bool,
    /// The last confirming read was.
    unconfirmed: bool,
}

impl Publisher {
    /// Creates a publisher without a set, of a service of `backend` (`"consul"`).
    ///
    /// It uses the settings of what is published; a [`Follower`](crate::Follower) uses those of the
    /// following loop.
    pub fn new(backend: &'static str, service: impl Into<String>, config: RegistryConfig) -> Self {
        Self {
            backend,
            service: service.into(),
            listing: Listing::default(),
            guard: Guard::new(config.loss, config.removal_wait),
            snapshots: watch::Sender::new(Snapshot::never_synced()),
            nudge: Arc::new(Notify::new()),
            counters: Counters::default(),
            invalidation: None,
            invalidated: false,
            rejected: false,
            unconfirmed: false,
            config,
        }
    }

    /// Hides the instances for which `wants` returns false.
    ///
    /// Those of earlier filters too. For the filter of a query, by health or tags. The source
    /// returns the other entries as well: a hidden instance is still registered, and the loss guard
    /// treats it so ([`LossGuard::hold_unhealthy`](crate::LossGuard::hold_unhealthy)).
    pub fn wants(mut self, wants: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.guard.wants.push(Arc::new(wants));
        self.listing.wants = self.guard.wants.clone();
        self
    }

    /// Makes a removal wait for this long at least.
    ///
    /// See [`RegistryConfig::removal_wait`].
    pub fn min_removal_wait(mut self, wait: Duration) -> Self {
        self.guard.removal_wait = self.guard.removal_wait.max(wait.min(MAX));
        self
    }

    /// A subscription to what it publishes. It does not keep the publisher alive.
    pub fn subscribe(&self) -> Subscription {
        let (nudge, counters) = (Arc::clone(&self.nudge), self.counters.clone());
        Subscription::new(&self.service, self.snapshots.subscribe(), nudge, counters)
    }

    /// Resolves when a subscriber requests a new read.
    ///
    /// Borrows nothing, so that it can stand beside [`due`](Sink::due) in
    /// a `select!`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub fn refresh_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let nudge = Arc::clone(&self.nudge);
        async move { nudge.notified().await }
    }

    #[cfg(test)]
    pub(crate) fn n_subscribers(&self) -> usize {
        self.snapshots.receiver_count()
    }

    /// What it has counted.
    pub fn stats(&self) -> PublisherStats {
        self.counters.read()
    }

    /// Applies what the registry lists now.
    fn apply(&mut self, listed: Arc<[Instance]>, mode: ReadMode) {
        self.invalidation = None;
        self.invalidated = false;
        if std::mem::take(&mut self.unconfirmed) && mode != ReadMode::Confirm {
            self.guard.confirm_again();
        }
        let changed = self.guard.read(Instant::now(), listed, mode == ReadMode::Confirm);
        if let Freshness::Stale { since, .. } = self.snapshots.borrow().freshness {
            tracing::info!(backend = self.backend, service = self.service, stale_for = ?since.elapsed(), "fresh again");
        }
        self.snapshots.borrow().prove();
        self.publish(changed, Some(Freshness::Fresh));
    }

    /// Wakes subscribers when the set has changed, or trouble has come or gone. A later error of
    /// the same trouble is seen on demand, and wakes no subscriber: an alarm would ring with every
    /// attempt.
    fn publish(&self, set_changed: bool, freshness: Option<Freshness>) {
        self.snapshots.send_if_modified(|snapshot| {
            let before = snapshot.freshness.nature();
            if set_changed {
                snapshot.instances = self.guard.instances();
                snapshot.held = self.guard.held();
                snapshot.revision += 1;
            }
            if let Some(freshness) = freshness {
                snapshot.freshness = freshness;
            }
            set_changed || before != snapshot.freshness.nature()
        });
        if set_changed {
            self.counters.add(|stats| &mut stats.updates, 1);
            let snapshot = self.snapshots.borrow();
            let (instances, held) = (snapshot.instances.len(), snapshot.held.len());
            let Self { backend, service, .. } = self;
            tracing::info!(backend, service, instances, held, "instances changed");
        }
    }

    /// Applies what time has brought; true when a confirming read is wanted.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        if let Some((_, error)) = self.invalidation.take_if(|(at, _)| *at <= now) {
            self.invalidate(error);
            return false;
        }
        let tick = self.guard.tick(now);
        if let Some(Tripped { n_held: held, cause, left }) = tick.tripped {
            self.counters.add(|stats| &mut stats.suppressed, 1);
            let Self { backend, service, .. } = self;
            tracing::warn!(backend, service, held, left, cause, "loss held");
        }
        if tick.n_unhealthy > 0 {
            self.counters.add(|stats| &mut stats.unhealthy, tick.n_unhealthy);
            let (Self { backend, service, .. }, held) = (&*self, tick.n_unhealthy);
            tracing::info!(backend, service, held, "unhealthy instances held");
        }
        if tick.changed {
            self.publish(true, None);
        }
        tick.confirm
    }

    fn invalidate(&mut self, error: Error) {
        tracing::warn!(backend = self.backend, service = self.service, error = %error.chain(), "instances invalidated");
        self.guard.clear();
        self.invalidated = true;
        let freshness = self.snapshots.borrow().freshness.after(error);
        self.publish(true, Some(freshness));
    }

    fn deadline(&self) -> Option<Instant> {
        let invalidate_at = self.invalidation.as_ref().map(|(at, _)| *at);
        invalidate_at.into_iter().chain(self.guard.deadline()).min()
    }

    fn error(&self, message: String) -> Error {
        Error::new(ErrorKind::Protocol, self.backend, "follow").with_message(message)
    }
}

impl Sink<Instance> for Publisher {
    fn set(&mut self, entries: Entries<Instance>) {
        self.malformed(&entries.errors);
        let items = self.with_unread(entries.items, &entries.errors);
        let items = match self.admit(items) {
            Ok(items) => items,
            Err(error) => {
                self.rejected = true;
                self.unconfirmed |= entries.mode == ReadMode::Confirm;
                return self.failed(error);
            }
        };
        self.rejected = false;
        let (backend, service) = (self.backend, &self.service);
        let (listed, n_duplicates) = self.listing.read(items, |instance| {
            let (instance, values) = (instance.id(), instance.ignored());
            tracing::warn!(backend, service, %instance, values, "values ignored");
        });
        self.duplicates(n_duplicates);
        self.guard.accept_absences(entries.accepts_absences);
        self.apply(listed, entries.mode);
    }

    fn unchanged(&mut self, mode: ReadMode) {
        if !self.rejected {
            let listed = self.listing.instances();
            self.apply(listed, mode);
        }
    }

    fn failed(&mut self, error: Error) {
        self.guard.trouble();
        self.counters.add(|stats| &mut stats.errors, 1);
        // After an invalidation the error that caused it stays, as in go-kit.
        if self.invalidated {
            return;
        }
        let before = self.snapshots.borrow().freshness.clone();
        let after = before.after(error.clone());
        if before.error().is_none() {
            let (backend, service) = (self.backend, &self.service);
            match after.is_synced() {
                true => tracing::warn!(backend, service, error = %error.chain(), "stale"),
                false => tracing::warn!(backend, service, error = %error.chain(), "not read yet"),
            }
        }
        if let Some(timeout) = self.config.invalidate_after
            && after.is_synced()
        {
            let at = Instant::now() + timeout.min(MAX);
            self.invalidation.get_or_insert((at, error));
        }
        self.publish(false, Some(after));
    }

    fn max_entries(&self) -> usize {
        self.config.max_instances
    }

    fn resync(&mut self, reason: &'static str) {
        self.guard.trouble();
        self.counters.add(|stats| &mut stats.resyncs, 1);
        tracing::debug!(backend = self.backend, service = self.service, reason, "resync");
    }

    async fn due(&mut self) {
        loop {
            match self.deadline() {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
            if self.tick() {
                return;
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, self.backend, "follow");
        self.snapshots.send_modify(|last| last.freshness = last.freshness.after(error));
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("service", &self.service)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
