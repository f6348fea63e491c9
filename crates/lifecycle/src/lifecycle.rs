use std::{fmt, future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tower_sd_core::{Advertise, BoxError, Instance, Registrar, Registration};

use crate::{
    Drain, Failed, Listener, Readiness, Report, Step, hooks::Hooks, orders::OrdersConfig, run,
};

/// A server's life in the right order, see the [crate's documentation](crate).
///
/// serve → ready → register → live until told to stop → not ready → deregister → propagate → drain → stop
///
/// Every step of the stop has a bound. With the defaults the whole stop takes at most 29 s and its hooks' time, below the
/// 30 s that Kubernetes leaves by default; in health it takes a second and what the requests in flight need. Where a
/// supervisor leaves less (`docker stop`: 10 s), give the drain less: [`drain_deadline`](Self::drain_deadline).
#[derive(Debug)]
#[must_use = "nothing happens until it is run"]
pub struct Lifecycle {
    pub(crate) orders: OrdersConfig,
    pub(crate) hooks: Hooks,
    pub(crate) readiness: Readiness,
    pub(crate) advertise: Advertise,
    pub(crate) registering: Option<Registering>,
    pub(crate) timing: Timing,
}

/// Where and as what to register.
pub(crate) struct Registering {
    pub(crate) registrar: Box<dyn Registrar>,
    pub(crate) registration: Box<dyn FnOnce(Instance) -> Registration + Send>,
}

#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// `None`: no maintenance.
    pub(crate) maintenance: Option<Duration>,
    pub(crate) deregister: Duration,
    /// `None`: by whether there was a registration.
    pub(crate) propagation: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) hook: Duration,
}

impl Lifecycle {
    /// A life that registers nowhere, and ends with SIGTERM or ctrl-c.
    pub fn new() -> Self {
        Self {
            orders: OrdersConfig::default(),
            hooks: Hooks::default(),
            readiness: Readiness::new(),
            advertise: Advertise::Listened,
            registering: None,
            timing: Timing {
                maintenance: Some(MAINTENANCE),
                deregister: DEREGISTER,
                propagation: None,
                drain: DRAIN,
                hook: HOOK,
            },
        }
    }

    /// Registers as a member of `service`.
    pub fn register(self, registrar: impl Registrar, service: impl Into<String>) -> Self {
        let service = service.into();
        self.register_with(registrar, |instance| Registration::new(service, instance))
    }

    /// Registers what `registration` makes of the advertised instance: with tags, a weight, a health check.
    ///
    /// Of the registration's settings [`deregister_timeout`](Registration::deregister_timeout) is the one that this
    /// lifecycle has itself.
    pub fn register_with(
        mut self,
        registrar: impl Registrar,
        registration: impl FnOnce(Instance) -> Registration + Send + 'static,
    ) -> Self {
        let (registrar, registration) = (Box::new(registrar), Box::new(registration));
        self.registering = Some(Registering { registrar, registration });
        self
    }

    /// Which address is registered. Default: the one listened on, which must not be a wildcard then.
    pub fn advertise(mut self, advertise: Advertise) -> Self {
        self.advertise = advertise;
        self
    }

    /// Moves this handle, which a `/ready` route reads.
    pub fn readiness(mut self, readiness: &Readiness) -> Self {
        self.readiness = readiness.clone();
        self
    }

    /// Runs `hook` before `step`; several in the order in which they are added.
    ///
    /// Before [`Step::Ready`] is the place to warm up, before [`Step::Live`] to say so, before [`Step::Stop`] to flush. On the way up a hook that fails
    /// ends the start. On the way down it is bounded by [`hook_timeout`](Self::hook_timeout), and what goes wrong is
    /// reported and nothing else.
    pub fn before<F, Fut, E>(mut self, step: Step, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.add(step, hook);
        self
    }

    /// Stops when this is cancelled, too.
    pub fn stop_on(mut self, token: CancellationToken) -> Self {
        self.orders.stop = token;
        self
    }

    /// Stops at once when this is cancelled, as at a second signal: what is left of the steps is skipped, and what is open
    /// is cut.
    pub fn stop_now_on(mut self, token: CancellationToken) -> Self {
        self.orders.now = token;
        self
    }

    /// Leaves signals to the program: it stops by its tokens only.
    pub fn ignore_signals(mut self) -> Self {
        self.orders.ignore_signals = true;
        self
    }

    /// How long the registry may take to show the instance as draining. Default 1 s: it helps the few clients that read it
    /// in the moment before it is deregistered, and is not worth more.
    pub fn maintenance_timeout(mut self, timeout: Duration) -> Self {
        self.timing.maintenance = Some(timeout);
        self
    }

    /// Deregisters without showing the instance as draining before: one call less.
    pub fn skip_maintenance(mut self) -> Self {
        self.timing.maintenance = None;
        self
    }

    /// How long deregistering may take. Default 5 s: an election of etcd's or Consul's servers ends within that; what
    /// cannot be withdrawn then ends with its TTL.
    pub fn deregister_timeout(mut self, timeout: Duration) -> Self {
        self.timing.deregister = timeout;
        self
    }

    /// How long it goes on serving after it is deregistered. Default 1 s for a server that has registered: a watch or a
    /// blocking query tells within milliseconds, and clients publish a removal within 200 ms. Behind DNS give it the TTL
    /// of the records. A server that has not registered waits only when this is set: for a load balancer that asks `/ready`.
    pub fn propagation(mut self, wait: Duration) -> Self {
        self.timing.propagation = Some(wait);
        self
    }

    /// How long requests in flight may take from the moment on that nothing more is accepted. Default 20 s: with the
    /// steps before it it fits into the 30 s that Kubernetes leaves by default.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.timing.drain = deadline;
        self
    }

    /// How long each hook of the stop may take. Default 5 s.
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.timing.hook = timeout;
        self
    }

    /// Lives: returns when the server has stopped, with what happened.
    ///
    /// `serve` is given the listener and the moment at which to drain; it ends when its last request has. It runs in a
    /// task of its own. With the features `axum` and `tonic`, `serve_axum` and `serve_tonic` are two.
    ///
    /// # Errors
    ///
    /// A step of the start fails, or the server ends with an error or panics: then it is deregistered at once, and
    /// everything else is stopped in the right order. What goes wrong while it stops is in the [`Report`] only.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the server is aborted and its connections are cut; the registration is withdrawn in the background.
    pub async fn run<S, F, E>(
        self,
        listener: impl Into<Listener> + Send,
        serve: S,
    ) -> Result<Report, Failed>
    where
        S: FnOnce(Listener, Drain) -> F + Send,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        run::run(self, listener.into(), serve).await
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registering").finish_non_exhaustive()
    }
}

const MAINTENANCE: Duration = Duration::from_secs(1);
const DEREGISTER: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(20);
const HOOK: Duration = Duration::from_secs(5);
