use std::{fmt, mem, net::SocketAddr, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::{
    sync::watch,
    time::{error::Elapsed, timeout},
};
use tower_sd_core::{
    AdvertiseAddress, BoxError, Instance, InstanceStatus, Registrar, Registration,
    RegistrationHandle, RegistrationState, RegistrationWatch,
};

use crate::{
    Listener,
    report::{NOT_NEEDED, Outcome},
};

/// Views of a life's registrations: their states, errors, counters, and updates.
///
/// `Clone` shares it. It is empty until the step `register` begins.
///
/// ```
/// # use tower_sd::MemoryRegistry;
/// use tower_sd::lifecycle::Lifecycle;
///
/// let life = Lifecycle::new().register(MemoryRegistry::new(), "orders");
/// let registrations = life.registrations(); // for a metrics route, say
/// assert!(registrations.get("orders").is_none(), "the life has not begun");
/// # drop(life);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Registrations(watch::Sender<Vec<(String, RegistrationWatch)>>);

/// A registration of a life that has not begun.
pub(crate) struct Registering {
    registrar: Box<dyn Registrar>,
    registration: Box<dyn FnOnce(Instance) -> Registration + Send>,
    /// The listener whose address is advertised. `None`: that of
    /// [`Lifecycle::run`](crate::Lifecycle::run).
    address: Option<SocketAddr>,
}

/// The registrations of a life that has begun.
pub(crate) struct Members {
    wanted: Vec<(Box<dyn Registrar>, Registration)>,
    handles: Vec<Option<RegistrationHandle>>,
    views: Registrations,
}

impl Registrations {
    /// Returns the views, in the order of the registrations' starts.
    pub fn list(&self) -> Vec<RegistrationWatch> {
        self.0.borrow().iter().map(|(_, view)| view.clone()).collect()
    }

    /// Returns the view of the first registration of `service`.
    pub fn get(&self, service: &str) -> Option<RegistrationWatch> {
        let views = self.0.borrow();
        views.iter().find(|(of, _)| of == service).map(|(_, view)| view.clone())
    }
}

impl Registering {
    pub(crate) fn new(
        registrar: impl Registrar,
        address: Option<SocketAddr>,
        registration: impl FnOnce(Instance) -> Registration + Send + 'static,
    ) -> Self {
        Self { registrar: Box::new(registrar), registration: Box::new(registration), address }
    }
}

impl Members {
    /// Chooses the advertised addresses, so that a wrong one is an error before the start.
    ///
    /// The first listener is the one that is advertised by default.
    pub(crate) fn new(
        wanted: Vec<Registering>,
        views: Registrations,
        advertise: &AdvertiseAddress,
        listeners: &[&Listener],
        deregister_timeout: Duration,
    ) -> Result<Self, BoxError> {
        let mut of_port = None;
        let wanted = wanted.into_iter().map(|Registering { registrar, registration, address }| {
            let listener = of_address(listeners, address)?;
            if let AdvertiseAddress::Explicit { port: Some(port), .. } = advertise
                && *of_port.get_or_insert(listener) != listener
            {
                return Err(format!("one port for two servers: {port} is advertised").into());
            }
            let instance = match address {
                Some(address) => advertise.instance(address)?,
                None => advertised(listeners[listener], advertise)?,
            };
            Ok((registrar, registration(instance).deregister_timeout(deregister_timeout)))
        });
        Ok(Self { wanted: wanted.collect::<Result<_, BoxError>>()?, handles: Vec::new(), views })
    }

    /// Registers all concurrently.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, every handle is there already: an announcement in flight can be withdrawn.
    pub(crate) async fn register(&mut self) -> Result<(), BoxError> {
        let wanted = mem::take(&mut self.wanted);
        self.handles.resize_with(wanted.len(), || None);
        let registering =
            wanted.into_iter().zip(&mut self.handles).map(|((registrar, registration), handle)| {
                register(registrar, registration, handle, &self.views)
            });
        try_join_all(registering).await.map(drop)
    }

    pub(crate) fn are_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether a registry may have an entry of this life.
    pub(crate) fn may_be_listed(&self) -> bool {
        self.handles.iter().flatten().any(|handle| {
            let is_withheld = matches!(handle.state(), RegistrationState::Critical { .. });
            let error = handle.last_error();
            let had_no_effect = error.map_or(is_withheld, |error| error.is_without_effect());
            handle.stats().announced > 0 || !had_no_effect
        })
    }

    /// Shows all as draining, within `bound`.
    pub(crate) async fn drain(&self, bound: Duration) -> Outcome {
        let draining = self.handles.iter().flatten().map(|handle| show_draining(handle, bound));
        worst(join_all(draining).await)
    }

    /// Deregisters all concurrently, within `bound`.
    pub(crate) async fn deregister(&mut self, bound: Duration) -> Outcome {
        let handles = mem::take(&mut self.handles);
        // The handle has the same bound, and a better error when it is over.
        let leaving = handles.into_iter().flatten().map(|handle| async move {
            outcome(timeout(bound.saturating_add(ANSWER), handle.deregister()).await)
        });
        worst(join_all(leaving).await)
    }
}

/// The index of the listener at `address`, which may be a wildcard's.
fn of_address(listeners: &[&Listener], address: Option<SocketAddr>) -> Result<usize, String> {
    let Some(address) = address else { return Ok(0) };
    let is_at = |listener: &&Listener| {
        listener.local_addr().is_ok_and(|bound| {
            bound == address || (bound.ip().is_unspecified() && bound.port() == address.port())
        })
    };
    let found = listeners.iter().position(is_at);
    found.ok_or_else(|| format!("no server of this life listens on {address}"))
}

/// The instance of a listener: its address, or the path of its unix socket.
fn advertised(listener: &Listener, advertise: &AdvertiseAddress) -> Result<Instance, BoxError> {
    match listener.path() {
        Some(path) => Ok(advertise.unix_socket(&path)?),
        None => Ok(advertise.instance(listener.local_addr()?)?),
    }
}

/// Keeps the handle before the first answer, and then waits for that answer.
async fn register(
    registrar: Box<dyn Registrar>,
    registration: Registration,
    kept: &mut Option<RegistrationHandle>,
    views: &Registrations,
) -> Result<(), BoxError> {
    let (service, fail_fast) =
        (registration.service().to_owned(), registration.fail_fast_timeout());
    let handle = kept.insert(registrar.register(registration.retry_in_background()).await?);
    views.0.send_modify(|views| views.push((service, handle.watch())));
    match fail_fast {
        Some(timeout) => Ok(handle.first_answer(timeout).await?),
        None => Ok(()),
    }
}

/// Maintenance in Consul, a status elsewhere; skipped for an instance that is not registered now.
async fn show_draining(registration: &RegistrationWatch, bound: Duration) -> Outcome {
    if !matches!(registration.state(), RegistrationState::Registered) {
        return Outcome::Skipped(NOT_NEEDED);
    }
    let draining = registration.update(|instance| instance.with_status(InstanceStatus::Draining));
    outcome(timeout(bound, draining).await)
}

fn outcome(done: Result<tower_sd_core::Result<()>, Elapsed>) -> Outcome {
    match done {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Failed(error.into()),
        Err(_elapsed) => Outcome::TimedOut,
    }
}

/// The first outcome that needs attention; done if any is.
fn worst(outcomes: Vec<Outcome>) -> Outcome {
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Failed(_) => 0,
        Outcome::TimedOut => 1,
        Outcome::Done => 2,
        Outcome::Skipped(_) => 3,
    };
    outcomes.into_iter().min_by_key(rank).unwrap_or(Outcome::Skipped(NOT_NEEDED))
}

impl fmt::Debug for Registering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registering").field("address", &self.address).finish_non_exhaustive()
    }
}

/// For the answer of a handle whose own bound is over.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);
