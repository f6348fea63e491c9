use std::{
    fmt,
    future::pending,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures_util::future::{join_all, select_all};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    Error, ErrorKind, Instance, InstanceId, RegistrationState, RegistrationStats, Result,
    StopOnDrop, TaskGroup, registration_state::urgency,
};

/// A view of a registration: its state, errors and counters.
///
/// It also updates the instance. `Clone` observes the same registration, each clone with its own
/// position for [`changed`](Self::changed). A view does not keep the registration up.
#[derive(Clone)]
pub struct RegistrationWatch {
    /// Never empty; more than one where handles were joined.
    parts: Vec<Part>,
}

/// A registration that is being kept up, and [its view](RegistrationWatch).
///
/// # Drop
///
/// Dropped without [`deregister`](Self::deregister), it is withdrawn in the background as long as
/// its runtime lives. Otherwise the registry drops the entry after its TTL.
#[must_use = "a registration is withdrawn when its handle is dropped"]
pub struct RegistrationHandle {
    watch: RegistrationWatch,
    ends: Vec<End>,
}

/// The view of one registration.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) backend: &'static str,
    pub(crate) id: InstanceId,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) updates: mpsc::Sender<Update>,
}

/// Ends one registration.
pub(crate) struct End {
    pub(crate) stop: StopOnDrop,
    pub(crate) done: watch::Receiver<Option<Result<()>>>,
    /// The loop runs while the registrar or a handle lives.
    pub(crate) tasks: TaskGroup,
}

/// The public view of a registration, as the loop publishes it.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) state: RegistrationState,
    pub(crate) stats: RegistrationStats,
    pub(crate) last_error: Option<(Instant, Error)>,
}

/// A change of the instance, and the channel for its result.
pub(crate) struct Update {
    pub(crate) change: Box<dyn FnOnce(Instance) -> Instance + Send>,
    pub(crate) accepted: oneshot::Sender<Result<()>>,
}

impl RegistrationWatch {
    /// Returns the id of the instance; of joined registrations, that of the first one.
    pub fn id(&self) -> &InstanceId {
        &self.parts[0].id
    }

    /// Returns the current state.
    ///
    /// Of joined registrations, it is the one that needs attention most. It stays unseen for
    /// [`changed`](Self::changed).
    pub fn state(&self) -> RegistrationState {
        let states = self.parts.iter().map(|part| part.status.borrow().state.clone());
        states.min_by_key(urgency).unwrap_or(RegistrationState::Deregistered)
    }

    /// Returns the error of the latest call that failed, also after a recovery.
    pub fn last_error(&self) -> Option<Error> {
        let errors = self.parts.iter().filter_map(|part| part.status.borrow().last_error.clone());
        errors.max_by_key(|(failed_at, _)| *failed_at).map(|(_, error)| error)
    }

    /// Returns the counters; of joined registrations, their sums.
    pub fn stats(&self) -> RegistrationStats {
        let stats = self.parts.iter().map(|part| part.status.borrow().stats);
        stats.fold(RegistrationStats::default(), |sum, one| RegistrationStats {
            announced: sum.announced + one.announced,
            renewed: sum.renewed + one.renewed,
            failed: sum.failed + one.failed,
            lost: sum.lost + one.lost,
        })
    }

    /// Waits for a state that has not been seen yet, and returns the latest.
    ///
    /// Repeated failures within one state are no change. Pending indefinitely after `Deregistered`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is lost.
    pub async fn changed(&mut self) -> RegistrationState {
        let changes = self.parts.iter_mut().map(|part| {
            Box::pin(async {
                if part.status.changed().await.is_err() {
                    pending::<()>().await;
                }
            })
        });
        select_all(changes).await;
        self.state()
    }

    /// Waits until it is registered, at most `timeout`; that state counts as seen.
    ///
    /// # Errors
    ///
    /// The latest failure, or `Timeout` if there was none; `Closed` after the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn registered(&mut self, timeout: Duration) -> Result<()> {
        let is_registered = |state: &RegistrationState| {
            matches!(state, RegistrationState::Registered | RegistrationState::Overridden { .. })
        };
        self.wait_for(timeout, is_registered).await
    }

    /// Waits for the first answer of the registry, at most `timeout`.
    ///
    /// Its state counts as seen.
    ///
    /// # Errors
    ///
    /// An error that no repetition can mend; the latest failure, or `Timeout` if there was none;
    /// `Closed` after the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn first_answer(&mut self, timeout: Duration) -> Result<()> {
        let is_answer = |state: &RegistrationState| match state {
            RegistrationState::Registering { error } => {
                error.as_ref().is_some_and(|error| !error.is_transient())
            }
            _ => true,
        };
        self.wait_for(timeout, is_answer).await
    }

    async fn wait_for(
        &mut self,
        bound: Duration,
        wanted: impl Fn(&RegistrationState) -> bool + Send + Sync,
    ) -> Result<()> {
        let waits = self.parts.iter_mut().map(|part| part.wait_for(bound, &wanted));
        join_all(waits).await.into_iter().collect()
    }

    /// Changes weight, metadata, tags or status, without a gap.
    ///
    /// The entry is overwritten. Waits for the registry's answer. A refused change is discarded,
    /// with all that the registry has not accepted yet; the registration goes on as it was. After a
    /// transient error the change remains wanted, and is announced with the next attempt.
    ///
    /// While a critical health check keeps the instance out of the registry, the change is accepted
    /// without it, and is announced with the recovery, which the registry may refuse.
    ///
    /// # Errors
    ///
    /// `Config` for a change of id, host or port, which make another instance, and for a change
    /// that panics; `Conflict` while the registration is taken over; `Closed` after its end;
    /// otherwise the registry's error. Of joined registrations, the first error; the others are
    /// changed.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the change may or may not be made.
    pub async fn update(
        &self,
        change: impl FnOnce(Instance) -> Instance + Clone + Send + 'static,
    ) -> Result<()> {
        let updates = self.parts.iter().map(|part| part.update(Box::new(change.clone())));
        join_all(updates).await.into_iter().collect()
    }
}

impl Part {
    async fn wait_for(
        &mut self,
        bound: Duration,
        wanted: impl Fn(&RegistrationState) -> bool + Send + Sync,
    ) -> Result<()> {
        let Self { backend, id, status, .. } = self;
        let error = |kind| Error::new(kind, backend, "register").with_instance(id.clone());
        let late = match timeout(bound, status.wait_for(|status| wanted(&status.state))).await {
            Ok(Ok(status)) => {
                return match &status.state {
                    RegistrationState::Registering { error: Some(error) } => Err(error.clone()),
                    RegistrationState::Lost { error, .. } if error.kind() == ErrorKind::Closed => {
                        Err(error.clone())
                    }
                    RegistrationState::Deregistered => Err(error(ErrorKind::Closed)),
                    _ => Ok(()),
                };
            }
            Ok(Err(closed)) => return Err(error(ErrorKind::Closed).with_source(closed)),
            Err(elapsed) => error(ErrorKind::Timeout)
                .with_message(format!("not registered within {bound:?}"))
                .with_source(elapsed),
        };
        Err(match &status.borrow().state {
            RegistrationState::Lost { error, .. }
            | RegistrationState::Registering { error: Some(error) } => error.clone().permanent(),
            _ => late,
        })
    }

    async fn update(&self, change: Box<dyn FnOnce(Instance) -> Instance + Send>) -> Result<()> {
        let (accepted, answer) = oneshot::channel();
        let closed =
            || Error::new(ErrorKind::Closed, self.backend, "update").with_instance(self.id.clone());
        if let Err(error) = self.updates.send(Update { change, accepted }).await {
            return Err(closed().with_source(error.to_string()));
        }
        answer.await.unwrap_or_else(|error| Err(closed().with_source(error)))
    }
}

impl RegistrationHandle {
    pub(crate) fn new(part: Part, end: End) -> Self {
        Self { watch: RegistrationWatch { parts: vec![part] }, ends: vec![end] }
    }

    /// Joins two registrations of one server.
    ///
    /// They are in two registries during a migration, for example. An update changes both, and both
    /// end together.
    pub fn join(mut self, other: Self) -> Self {
        self.watch.parts.extend(other.watch.parts);
        self.ends.extend(other.ends);
        self
    }

    /// Returns a view that can be cloned.
    pub fn watch(&self) -> RegistrationWatch {
        self.watch.clone()
    }

    /// Withdraws the registration; nothing registers after it.
    ///
    /// Waits for a call in flight, then removes the entry, both within
    /// [`Registration::deregister_timeout`](crate::Registration::deregister_timeout). The work is
    /// done on the runtime that registered it: while that one is not driven, this waits.
    ///
    /// # Errors
    ///
    /// The registry's last error within that time. The entry then disappears with its TTL.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the withdrawal goes on in the background.
    pub async fn deregister(self) -> Result<()> {
        let Self { watch, ends } = self;
        let stopping = ends.into_iter().map(|End { stop, done, tasks }| {
            drop(stop);
            (done, tasks)
        });
        let mut result = Ok(());
        for (mut done, _tasks) in stopping.collect::<Vec<_>>() {
            let withdrawn = match done.wait_for(Option::is_some).await {
                Ok(withdrawn) => withdrawn.clone().unwrap_or(Ok(())),
                Err(closed) => Err(Error::new(ErrorKind::Closed, "core", "deregister")
                    .with_instance(watch.id().clone())
                    .with_source(closed)),
            };
            result = result.and(withdrawn);
        }
        result
    }
}

impl Deref for RegistrationHandle {
    type Target = RegistrationWatch;

    fn deref(&self) -> &RegistrationWatch {
        &self.watch
    }
}

impl DerefMut for RegistrationHandle {
    fn deref_mut(&mut self) -> &mut RegistrationWatch {
        &mut self.watch
    }
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            state: RegistrationState::Registering { error: None },
            stats: RegistrationStats::default(),
            last_error: None,
        }
    }
}

impl fmt::Debug for RegistrationWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationWatch")
            .field("id", self.id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RegistrationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationHandle").field("watch", &self.watch).finish_non_exhaustive()
    }
}
