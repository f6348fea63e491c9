use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tower_sd_core::{AdvertiseAddress, BoxError, Instance, Registrar, Registration};

use crate::{
    Listener, Readiness, Registrations, ShutdownSignal,
    hooks::{Hook, Hooks},
    registrations::Registering,
    server::Serving,
    stop_orders::StopOrdersConfig,
};

/// A server's life in the right order, see the [crate's documentation](crate).
///
/// serve → ready → register → live → unready → deregister → propagate → drain → stop
///
/// Every step of the stop has a bound. With the defaults the whole stop takes at most 29 s, below
/// the 30 s of Kubernetes, and the time of its hooks; in health it takes a second and the time of
/// the requests in flight. Where a supervisor leaves less (`docker stop`: 10 s), the drain should
/// have less: [`drain_timeout`](Self::drain_timeout).
#[derive(Debug)]
#[must_use = "nothing happens until it is run"]
pub struct Lifecycle {
    pub(crate) orders: StopOrdersConfig,
    pub(crate) hooks: Hooks,
    pub(crate) readiness: Readiness,
    pub(crate) advertise: AdvertiseAddress,
    pub(crate) others: Others,
    pub(crate) registering: Vec<Registering>,
    pub(crate) views: Registrations,
    pub(crate) timing: Timing,
}

/// The servers beside the one of [`Lifecycle::run`].
pub(crate) struct Others(pub(crate) Vec<(Listener, Serving)>);

#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// `None`: no maintenance.
    pub(crate) maintenance: Option<Duration>,
    pub(crate) deregister: Duration,
    /// `None`: depends on the presence of a registration.
    pub(crate) propagation: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) hook: Duration,
}

impl Lifecycle {
    /// Creates a life without a registration, which ends with SIGTERM or ctrl-c.
    pub fn new() -> Self {
        Self {
            orders: StopOrdersConfig::default(),
            hooks: Hooks::default(),
            readiness: Readiness::new(),
            advertise: AdvertiseAddress::BindAddress,
            others: Others(Vec::new()),
            registering: Vec::new(),
            views: Registrations::default(),
            timing: Timing {
                maintenance: Some(MAINTENANCE),
                deregister: DEREGISTER,
                propagation: None,
                drain: DRAIN,
                hook: HOOK,
            },
        }
    }

    /// Registers the server as a member of `service`.
    ///
    /// Several registrations, of other services or in other registries, start and end concurrently.
    pub fn register(self, registrar: impl Registrar, service: impl Into<String>) -> Self {
        let service = service.into();
        self.register_with(registrar, |instance| Registration::new(service, instance))
    }

    /// Registers with a registration made of the advertised instance.
    ///
    /// The registration can have tags, a weight, a health check. Its
    /// [`deregister_timeout`](Registration::deregister_timeout) is that of this lifecycle.
    pub fn register_with(
        mut self,
        registrar: impl Registrar,
        registration: impl FnOnce(Instance) -> Registration + Send + 'static,
    ) -> Self {
        self.registering.push(Registering::new(registrar, None, registration));
        self
    }

    /// Registers the server that listens on `address`, one of [`serve`](Self::serve).
    ///
    /// The life does not begin when no server listens there, nor with one explicit port for the
    /// registrations of two servers.
    pub fn register_at(
        mut self,
        address: SocketAddr,
        registrar: impl Registrar,
        registration: impl FnOnce(Instance) -> Registration + Send + 'static,
    ) -> Self {
        self.registering.push(Registering::new(registrar, Some(address), registration));
        self
    }

    /// Returns views of the registrations, which fill when the life begins.
    pub fn registrations(&self) -> Registrations {
        self.views.clone()
    }

    /// Serves on a further listener, for example gRPC or an admin port.
    ///
    /// It starts, drains and ends together with the server of [`run`](Self::run). The end of any
    /// server ends the life.
    pub fn serve<S, F, E>(mut self, listener: impl Into<Listener>, serve: S) -> Self
    where
        S: FnOnce(Listener, ShutdownSignal) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.others.0.push((listener.into(), boxed(serve)));
        self
    }

    /// Sets the addresses that are registered.
    ///
    /// Defaults to the listener's own, which must not be a wildcard then.
    pub fn advertise(self, advertise: AdvertiseAddress) -> Self {
        Self { advertise, ..self }
    }

    /// Sets the readiness that this life moves, and that a `/ready` route reads.
    pub fn readiness(self, readiness: &Readiness) -> Self {
        Self { readiness: readiness.clone(), ..self }
    }

    /// Runs `hook` before the server is ready: a warm-up, the wait for a dependency.
    ///
    /// The server accepts connections meanwhile, and `/ready` returns 503. A hook that fails ends
    /// the start. Several hooks run in the order of their addition.
    pub fn before_ready<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.before_ready.push(Hook::new(hook));
        self
    }

    /// Runs `hook` when the server is ready and registered.
    ///
    /// A hook that fails ends the life.
    pub fn after_start<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.after_start.push(Hook::new(hook));
        self
    }

    /// Runs `hook` after the drain: a flush of logs, the close of a database.
    ///
    /// Each hook is bounded by [`hook_timeout`](Self::hook_timeout); a failure is only reported. A
    /// second signal skips it.
    pub fn before_exit<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.before_exit.push(Hook::new(hook));
        self
    }

    /// Stops also when `token` is cancelled.
    pub fn shutdown_on(mut self, token: CancellationToken) -> Self {
        self.orders.stop = token;
        self
    }

    /// Stops in a hurry when `token` is cancelled, as at a second signal.
    ///
    /// Every wait is skipped and open connections are cut. Deregistering still has a second;
    /// another signal skips that too.
    pub fn abort_on(mut self, token: CancellationToken) -> Self {
        self.orders.now = token;
        self
    }

    /// Leaves signals to the program: only the tokens stop this life.
    pub fn ignore_signals(mut self) -> Self {
        self.orders.ignore_signals = true;
        self
    }

    /// Sets the time for the registry to show the instance as draining.
    ///
    /// Defaults to 1 s. It helps the few clients that read it in the moment before the
    /// deregistration.
    pub fn maintenance_timeout(mut self, timeout: Duration) -> Self {
        self.timing.maintenance = Some(timeout);
        self
    }

    /// Deregisters without a status of draining before it: one call less.
    pub fn skip_maintenance(mut self) -> Self {
        self.timing.maintenance = None;
        self
    }

    /// Sets the time for deregistering. Defaults to 5 s.
    ///
    /// An election of etcd's or Consul's servers ends within that. An entry that cannot be
    /// withdrawn ends with its TTL.
    pub fn deregister_timeout(mut self, timeout: Duration) -> Self {
        self.timing.deregister = timeout;
        self
    }

    /// Sets the time of serving after the deregistration.
    ///
    /// It is waited for, whereas every other duration here is a bound, named `_timeout`.
    /// Defaults to 1 s with a registration: clients with a watch or a blocking query have dropped
    /// the instance by then. Behind DNS it should be the TTL of the records. Without a registration
    /// it defaults to zero; behind a load balancer that requests `/ready` it should be set.
    /// Connections are closed with their responses in its last second. A server that was never
    /// ready does not wait.
    pub fn propagation(mut self, wait: Duration) -> Self {
        self.timing.propagation = Some(wait);
        self
    }

    /// Sets the time for requests in flight after the last accepted connection.
    ///
    /// Defaults to 20 s. With the steps before it, it fits into the 30 s of Kubernetes.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.timing.drain = timeout;
        self
    }

    /// Sets the time of each hook of the stop. Defaults to 5 s.
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.timing.hook = timeout;
        self
    }
}

pub(crate) fn boxed<S, F, E>(serve: S) -> Serving
where
    S: FnOnce(Listener, ShutdownSignal) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Box::new(|listener, drain| serve(listener, drain).map(|end| end.map_err(Into::into)).boxed())
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(listener, _)| listener)).finish()
    }
}

const MAINTENANCE: Duration = Duration::from_secs(1);
const DEREGISTER: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(20);
const HOOK: Duration = Duration::from_secs(5);
