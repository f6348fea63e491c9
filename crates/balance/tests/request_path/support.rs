//! A registry and a world of services that the test controls.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    AddressPolicy, Balance, BalanceLayer, BoxError, EndpointReport, EndpointState, Endpointer,
    EndpointerConfig, Error, ErrorKind, Instance, Instancer, LossPolicy, Publisher, RegistryConfig,
    RoundRobin, Sink, Subscription, factory_fn,
};

/// A registry whose instances the test sets.
pub(crate) struct Registry(Publisher);

impl Registry {
    pub(crate) fn new(hosts: &[&str]) -> Self {
        Self::with_loss(LossPolicy::Accept, hosts)
    }

    /// Removals of more than half are held.
    pub(crate) fn guarded(hosts: &[&str]) -> Self {
        Self::with_loss(LossPolicy::default(), hosts)
    }

    pub(crate) fn with_config(config: RegistryConfig) -> Self {
        let config = config.addresses(AddressPolicy::any()).removal_wait(Duration::ZERO);
        Self(Publisher::new("test", "test", config))
    }

    fn with_loss(loss: LossPolicy, hosts: &[&str]) -> Self {
        let mut registry = Self::with_config(RegistryConfig::default().loss(loss));
        registry.0.set(instances(hosts).into());
        registry
    }

    /// Publishes; an instant later all subscribers have it.
    pub(crate) async fn set(&mut self, hosts: &[&str]) {
        self.set_instances(instances(hosts)).await;
    }

    pub(crate) async fn set_instances(&mut self, instances: Vec<Instance>) {
        self.0.set(instances.into());
        self.tick().await;
    }

    pub(crate) async fn fail(&mut self, message: &str) {
        let error = Error::new(ErrorKind::Unavailable, "test", "follow").with_message(message);
        self.0.failed(error);
        self.tick().await;
    }

    /// Resolves when a subscriber has requested a new read.
    pub(crate) fn refresh_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.refresh_requested()
    }

    /// Lets what is due happen.
    pub(crate) async fn tick(&mut self) {
        let _due = timeout(Duration::from_millis(1), self.0.due()).await;
        settle().await;
    }
}

impl Instancer for Registry {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

pub(crate) fn instances(hosts: &[&str]) -> Vec<Instance> {
    hosts.iter().map(|host| Instance::new(*host, 1)).collect()
}

/// Long enough for every task to do what it can do now.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(2)).await;
}

/// What the services of a test do, by host.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<HashMap<String, Host>>>);

#[derive(Default)]
struct Host {
    n_made: usize,
    n_calls: usize,
    made: Vec<Weak<()>>,
    make: Mode,
    ready: Mode,
    answer: Mode,
    wakers: Vec<Waker>,
}

/// The behaviour of one step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mode {
    #[default]
    Works,
    Fails,
    Hangs,
    Panics,
}

/// The service of one host of a [`World`].
#[derive(Clone)]
pub(crate) struct Client {
    world: World,
    host: String,
    _live: Arc<()>,
}

impl World {
    /// The closure for `Endpointer::with`.
    pub(crate) fn factory(
        &self,
    ) -> impl Fn(Instance) -> BoxFuture<'static, Result<Client, BoxError>> + Send + Sync + 'static
    {
        let world = self.clone();
        move |instance| {
            let (world, host) = (world.clone(), instance.host().to_owned());
            Box::pin(async move {
                world.with(&host, |host| host.n_made += 1);
                world.follow(&host, |host| host.make, "cannot be made").await?;
                let live = Arc::new(());
                world.with(&host, |host| host.made.push(Arc::downgrade(&live)));
                Ok(Client { world, host, _live: live })
            })
        }
    }

    pub(crate) fn make(&self, host: &str, mode: Mode) {
        self.set(host, |host| host.make = mode);
    }

    pub(crate) fn ready(&self, host: &str, mode: Mode) {
        self.set(host, |host| host.ready = mode);
    }

    pub(crate) fn answer(&self, host: &str, mode: Mode) {
        self.set(host, |host| host.answer = mode);
    }

    /// How often the factory ran.
    pub(crate) fn n_made(&self, host: &str) -> usize {
        self.with(host, |host| host.n_made)
    }

    /// How many of its services exist.
    pub(crate) fn n_live(&self, host: &str) -> usize {
        self.with(host, |host| host.made.iter().filter(|made| made.strong_count() > 0).count())
    }

    /// How many services exist.
    pub(crate) fn n_live_in_all(&self) -> usize {
        let hosts: Vec<_> = self.0.lock().unwrap().keys().cloned().collect();
        hosts.iter().map(|host| self.n_live(host)).sum()
    }

    pub(crate) fn n_calls(&self, host: &str) -> usize {
        self.with(host, |host| host.n_calls)
    }

    fn set(&self, host: &str, change: impl FnOnce(&mut Host)) {
        let wakers = self.with(host, |host| {
            change(host);
            std::mem::take(&mut host.wakers)
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    fn with<T>(&self, host: &str, f: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = self.0.lock().unwrap();
        f(hosts.entry(host.to_owned()).or_default())
    }

    fn poll(
        &self,
        host: &str,
        mode: fn(&Host) -> Mode,
        failure: &str,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let mode = self.with(host, |host| {
            let mode = mode(host);
            if mode == Mode::Hangs {
                host.wakers.push(cx.waker().clone());
            }
            mode
        });
        match mode {
            Mode::Works => Poll::Ready(Ok(())),
            Mode::Fails => Poll::Ready(Err(format!("{host} {failure}").into())),
            Mode::Hangs => Poll::Pending,
            Mode::Panics => panic!("{host} panics"),
        }
    }

    async fn follow(
        &self,
        host: &str,
        mode: fn(&Host) -> Mode,
        failure: &str,
    ) -> Result<(), BoxError> {
        poll_fn(|cx| self.poll(host, mode, failure, cx)).await
    }
}

impl Service<u32> for Client {
    type Response = String;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<String, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let refused = |error| io::Error::new(io::ErrorKind::ConnectionRefused, error).into();
        self.world.poll(&self.host, |host| host.ready, "refuses", cx).map_err(refused)
    }

    fn call(&mut self, _: u32) -> Self::Future {
        let (world, host) = (self.world.clone(), self.host.clone());
        world.with(&host, |host| host.n_calls += 1);
        Box::pin(async move {
            world.follow(&host, |host| host.answer, "fails").await?;
            Ok(host)
        })
    }
}

/// An endpointer over the world, with everything applied that is known from the start.
pub(crate) async fn endpointer(registry: &Registry, world: &World) -> Endpointer<Client> {
    let endpointer = Endpointer::with(registry, world.factory());
    settle().await;
    endpointer
}

/// The same with other settings.
pub(crate) async fn endpointer_with(
    registry: &Registry,
    world: &World,
    set: impl FnOnce(EndpointerConfig) -> EndpointerConfig,
) -> Endpointer<Client> {
    let config = set(EndpointerConfig::new());
    let endpointer = Endpointer::with_config(registry, factory_fn(world.factory()), config);
    settle().await;
    endpointer
}

/// Waits until there are `n`, all of them ready.
pub(crate) async fn all_ready<S: Clone + Send + Sync + 'static>(
    endpointer: &Endpointer<S>,
    n: usize,
) {
    loop {
        let endpoints = endpointer.report().endpoints;
        if endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready).count() == n {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A round robin from the first member on.
pub(crate) fn balance(endpointer: &Endpointer<Client>) -> Balance<Client> {
    BalanceLayer::new(RoundRobin::new().with_start(0)).with_seed(1).layer(endpointer.clone())
}

pub(crate) async fn call<S>(service: &S) -> Result<S::Response, S::Error>
where
    S: Service<u32> + Clone,
{
    service.clone().oneshot(0).await
}

/// The hosts that answer `n` requests, one after the other.
pub(crate) async fn answers<S>(service: &S, n: usize) -> Vec<String>
where
    S: Service<u32, Response = String, Error = BoxError> + Clone,
{
    let mut answers = Vec::new();
    for _ in 0..n {
        answers.push(call(service).await.expect("an answer"));
    }
    answers
}

pub(crate) fn report(endpointer: &Endpointer<Client>, host: &str) -> Option<EndpointReport> {
    let endpoints = endpointer.report().endpoints;
    endpoints.into_iter().find(|endpoint| endpoint.instance.host() == host)
}

pub(crate) fn n_in_flight(endpointer: &Endpointer<Client>) -> usize {
    endpointer.report().endpoints.iter().map(|endpoint| endpoint.in_flight).sum()
}

/// Starts it, and leaves it running.
pub(crate) fn start<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(future)
}
