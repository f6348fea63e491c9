use std::{fmt, future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{Error, ErrorKind, HealthCheck, Instance, InstanceId, Result, Tasks};

/// Announces instances in a registry.
///
/// # Contract
///
/// - The registration lasts until its handle is deregistered or dropped: it is renewed, and made again when the
///   registry has lost it, for ever.
/// - Registrations of one registrar never disturb each other.
///
/// # Implementing
///
/// A backend implements [`Announcer`](crate::Announcer) and hands it to [`announce`](crate::announce()).
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// Announces, and keeps announcing until the handle is deregistered or dropped.
    ///
    /// # Errors
    ///
    /// `Config` for an instance that nobody could reach (a wildcard address, port 0); what the first attempts failed with,
    /// under [`FirstRegistration::FailFast`].
    ///
    /// # Cancel safety
    ///
    /// Dropped early, what has been announced is withdrawn in the background, as when the handle is dropped.
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle>;
}

#[async_trait]
impl<T: Registrar + ?Sized> Registrar for Arc<T> {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        (**self).register(registration).await
    }
}

#[async_trait]
impl<T: Registrar + ?Sized> Registrar for Box<T> {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        (**self).register(registration).await
    }
}

/// What to announce, and how.
#[derive(Clone)]
#[must_use]
pub struct Registration {
    pub(crate) service: String,
    pub(crate) instance: Instance,
    pub(crate) health: Option<Arc<dyn HealthCheck>>,
    pub(crate) health_every: Option<Duration>,
    pub(crate) first: FirstRegistration,
    pub(crate) deregister_timeout: Duration,
}

/// What [`Registrar::register`] does when the registry cannot be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FirstRegistration {
    /// Tries for this long, then returns the error. The default, with 5 s: a wrong address or token is a mistake that a
    /// deployment should show.
    FailFast(Duration),
    /// Returns at once and goes on trying: the server starts whatever the registry does.
    RetryInBackground,
}

/// A registration that is being kept up.
///
/// # Drop
///
/// Dropped without [`deregister`](Self::deregister), it is withdrawn in the background by the registrar's task as far as
/// that still runs; where it does not, the registry forgets it after its TTL.
#[must_use = "a registration is withdrawn when its handle is dropped"]
pub struct RegistrationHandle {
    pub(crate) id: InstanceId,
    pub(crate) state: watch::Receiver<RegistrationState>,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) stop: CancellationToken,
    pub(crate) done: watch::Receiver<Option<Result<()>>>,
    /// The loop runs while the registrar or a handle lives.
    pub(crate) _tasks: Tasks,
}

/// A change that the loop is asked to make, and whom to tell.
pub(crate) struct Update {
    pub(crate) change: Box<dyn FnOnce(Instance) -> Instance + Send>,
    pub(crate) accepted: oneshot::Sender<Result<()>>,
}

/// Where a registration stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not in the registry yet.
    Registering {
        /// What the latest attempt failed with.
        error: Option<Error>,
    },
    /// The registry has accepted it, and has not denied it since.
    Registered,
    /// It was registered and may not be any more; it is being announced again.
    Lost {
        /// When it was noticed.
        since: Instant,
        /// What happened.
        error: Error,
    },
    /// Another registration has written its own entry in this one's place.
    ///
    /// That entry is left alone. When it is gone, this registration is announced again.
    TakenOver {
        /// A description of the other one: its address, else its incarnation or lease.
        by: String,
    },
    /// Taken out while the server's own check is critical; announced again when it passes.
    Withheld {
        /// What the check said.
        reason: String,
    },
    /// Withdrawn for good.
    Deregistered,
}

impl Registration {
    /// `instance` as a member of `service`, without a health check, failing fast after 5 s, deregistered within 5 s.
    pub fn new(service: impl Into<String>, instance: Instance) -> Self {
        Self {
            service: service.into(),
            instance,
            health: None,
            health_every: None,
            first: FirstRegistration::FailFast(FIRST_TIMEOUT),
            deregister_timeout: DEREGISTER_TIMEOUT,
        }
    }

    /// Asks this check before every renewal. A registry that has states of its own shows the result; from the others
    /// the instance is withdrawn while it is critical.
    pub fn health(mut self, check: impl HealthCheck) -> Self {
        self.health = Some(Arc::new(check));
        self
    }

    /// Asks the check this often, besides before every renewal. Default: with the renewals only, a third of the TTL.
    pub fn health_every(mut self, interval: Duration) -> Self {
        self.health_every = Some(interval);
        self
    }

    /// Gives up the first registration after `timeout`.
    pub fn fail_fast(mut self, timeout: Duration) -> Self {
        self.first = FirstRegistration::FailFast(timeout);
        self
    }

    /// Never fails the first registration: returns at once and goes on trying.
    pub fn retry_in_background(mut self) -> Self {
        self.first = FirstRegistration::RetryInBackground;
        self
    }

    /// Bounds [`RegistrationHandle::deregister`]. Default 5 s: half of the 10 s that most supervisors leave between
    /// SIGTERM and SIGKILL.
    pub fn deregister_timeout(mut self, timeout: Duration) -> Self {
        self.deregister_timeout = timeout;
        self
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("health", &self.health.is_some())
            .field("health_every", &self.health_every)
            .field("first", &self.first)
            .field("deregister_timeout", &self.deregister_timeout)
            .finish()
    }
}

impl RegistrationHandle {
    /// The id that is registered.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits for the next change of state, and returns the latest. Pending for ever after `Deregistered`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is lost.
    pub async fn changed(&mut self) -> RegistrationState {
        match self.state.changed().await {
            Ok(()) => self.state.borrow_and_update().clone(),
            Err(_closed) => pending().await,
        }
    }

    /// Waits until the registry has accepted it, at most `bound`.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn registered(&self, bound: Duration) -> Result<()> {
        let mut state = self.state.clone();
        let registered = state.wait_for(|state| matches!(state, RegistrationState::Registered));
        match tokio::time::timeout(bound, registered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(closed)) => Err(self.closed("register").with_source(closed)),
            Err(elapsed) => {
                let error = Error::new(ErrorKind::Timeout, "core", "register")
                    .with_instance(self.id.clone())
                    .with_message(format!("not registered within {bound:?}"));
                Err(match self.state() {
                    RegistrationState::Lost { error: cause, .. }
                    | RegistrationState::Registering { error: Some(cause) } => {
                        error.with_source(cause)
                    }
                    _ => error.with_source(elapsed),
                })
            }
        }
    }

    /// Changes weight, metadata, tags or status without a gap: the entry is overwritten, never removed.
    ///
    /// Waits for the registry's first answer. After an error the change stays desired, and is announced again with the
    /// rest until the registry accepts it.
    ///
    /// # Errors
    ///
    /// `Config` when the change touches id, host or port: that is another instance; register it. `Closed` after the end.
    /// Otherwise what the registry answered.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the change may or may not be made.
    pub async fn update(
        &self,
        change: impl FnOnce(Instance) -> Instance + Send + 'static,
    ) -> Result<()> {
        let (accepted, answer) = oneshot::channel();
        let update = Update { change: Box::new(change), accepted };
        if let Err(closed) = self.updates.send(update).await {
            return Err(self.closed("update").with_source(closed.to_string()));
        }
        match answer.await {
            Ok(result) => result,
            Err(closed) => Err(self.closed("update").with_source(closed)),
        }
    }

    /// Withdraws the registration: waits for a renewal in flight, then removes the entry; both within
    /// [`Registration::deregister_timeout`]. Nothing registers after it.
    ///
    /// # Errors
    ///
    /// What the registry answered last within that time. The entry then disappears with its TTL.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the withdrawal goes on in the background.
    pub async fn deregister(self) -> Result<()> {
        self.stop.cancel();
        let mut done = self.done.clone();
        match done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(closed) => Err(self.closed("deregister").with_source(closed)),
        }
    }

    fn closed(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Closed, "core", operation).with_instance(self.id.clone())
    }
}

impl Drop for RegistrationHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for RegistrationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationHandle")
            .field("id", &self.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Long enough for a leader election, short enough for whoever watches the deployment.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);
