use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, BoxError, Endpointer, Instance, Instancer, Registration,
    RegistrationHandle, Retry, RetryLayer, RetryPolicy, RoundRobin, Snapshot, Subscription,
};
use tower_sd_consul::{Consul, ConsulConfig, Query};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpProtocol};
use tower_sd_testkit::script::{Reply, Script};

type Client = Retry<Balance<HttpEndpoint<Full<Bytes>>>, HttpProtocol>;

/// Servers that are registered with an agent.
pub(crate) struct Servers {
    pub(crate) handles: Vec<RegistrationHandle>,
    registrar: Consul,
    ttl: Duration,
    listening: Vec<Script>,
}

/// A client that follows them there.
pub(crate) struct Traffic {
    subscription: Subscription,
    client: Client,
}

/// What a disturbance did to the traffic.
#[derive(Debug)]
pub(crate) struct Report {
    n_requests: usize,
    failures: Vec<String>,
    /// Of each snapshot: when it came, and how many instances it listed and had in all.
    seen: Vec<(Instant, usize, usize)>,
    lasted: Duration,
}

/// Registers `n` servers with the agent at `address`, and waits until a client has them in a
/// snapshot.
pub(crate) async fn start(
    address: SocketAddr,
    n: usize,
    ttl: Duration,
    query: Query,
) -> (Servers, Traffic) {
    let servers = Servers::register(address, n, ttl).await;
    let traffic = Traffic::follow(address, n, query).await;
    (servers, traffic)
}

fn consul(address: SocketAddr) -> Consul {
    Consul::new(ConsulConfig::new(address.to_string())).expect("an address")
}

impl Servers {
    pub(crate) async fn register(address: SocketAddr, n: usize, ttl: Duration) -> Self {
        let registrar = consul(address);
        let mut servers = Self { handles: Vec::new(), registrar, listening: Vec::new(), ttl };
        for _ in 0..n {
            servers.add().await;
        }
        servers
    }

    pub(crate) async fn add(&mut self) {
        let server = Script::answering(|_| Reply::new(200).body("5")).await.expect("loopback");
        let address = server.address();
        let instance = Instance::new(address.ip().to_string(), address.port());
        let registration = Registration::new("arithmetic", instance).fail_fast(BOUND).ttl(self.ttl);
        self.handles.push(self.registrar.register(registration).await.expect("registered"));
        self.listening.push(server);
    }
}

impl Traffic {
    pub(crate) async fn follow(address: SocketAddr, n: usize, query: Query) -> Self {
        let instancer = consul(address).instancer(query);
        let policy = RetryPolicy::new().protocol(HttpProtocol::new());
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(policy))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(Endpointer::new(&instancer, HttpFactory::new()));
        let traffic = Self { subscription: instancer.subscribe(), client };
        traffic.sees("all", |snapshot| snapshot.instances().len() == n).await;
        traffic
    }

    /// Waits until the client's snapshot passes the test, and returns it.
    pub(crate) async fn sees(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        self.sees_within(BOUND, what, wanted).await
    }

    pub(crate) async fn sees_within(
        &self,
        bound: Duration,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Snapshot {
        let mut subscription = self.subscription.clone();
        let mut snapshot = subscription.snapshot();
        let seen = async {
            while !wanted(&snapshot) {
                snapshot = subscription.changed().await.expect("the loop lives");
            }
        };
        let seen = timeout(bound, seen).await;
        assert!(seen.is_ok(), "not seen within {bound:?}: {what}; last: {snapshot:?}");
        snapshot
    }

    /// Sends a request every 10 ms while `disturbance` lasts; none may fail.
    pub(crate) async fn survives(&self, disturbance: impl Future<Output = ()>) -> Report {
        let started = Instant::now();
        let mut report = Report {
            n_requests: 0,
            failures: Vec::new(),
            seen: Vec::new(),
            lasted: Duration::ZERO,
        };
        select! {
            never = send(&self.client, &mut report.n_requests, &mut report.failures) => match never {},
            never = watch(self.subscription.clone(), &mut report.seen) => match never {},
            () = disturbance => {}
        }
        report.lasted = started.elapsed();
        report.check();
        report
    }
}

impl Report {
    fn check(&self) {
        let Self { n_requests, failures, lasted, .. } = self;
        assert!(failures.is_empty(), "{} of {n_requests} failed: {failures:?}", failures.len());
        // Half of the target rate: a busy machine, but none that waited for seconds.
        let least = lasted.as_millis() / 20;
        assert!(*n_requests as u128 >= least, "only {n_requests} requests in {lasted:?}");
    }

    /// When the first snapshot came that did not list `n` instances, and from when on every one
    /// did; `None`: all did.
    pub(crate) fn broken(&self, n: usize) -> Option<(Instant, Instant)> {
        let is_broken = |(_, listed, _): &(Instant, usize, usize)| *listed != n;
        let first = self.seen.iter().position(is_broken)?;
        let last = self.seen.iter().rposition(is_broken)?;
        let whole = self.seen.get(last + 1).expect("it is whole at the end");
        Some((self.seen[first].0, whole.0))
    }

    /// The fewest instances that a snapshot listed.
    pub(crate) fn least_listed(&self) -> usize {
        self.seen.iter().map(|(_, listed, _)| *listed).min().expect("there is a first one")
    }

    /// The fewest instances that a snapshot listed or held.
    pub(crate) fn least_known(&self) -> usize {
        self.seen.iter().map(|(_, _, known)| *known).min().expect("there is a first one")
    }
}

async fn send(client: &Client, n: &mut usize, failures: &mut Vec<String>) -> Infallible {
    let mut every = interval(Duration::from_millis(10));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        *n += 1;
        let started = Instant::now();
        match timeout(SLOWEST, ask(client.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("after {:?}: {error}", started.elapsed())),
            Err(_elapsed) => failures.push(format!("nothing within {SLOWEST:?}")),
        }
    }
}

async fn ask(mut client: Client) -> Result<(), BoxError> {
    let request = Request::get("http://arithmetic/").body(Full::default())?;
    let response = client.ready().await?.call(request).await?;
    response.into_body().collect().await?;
    Ok(())
}

async fn watch(
    mut subscription: Subscription,
    seen: &mut Vec<(Instant, usize, usize)>,
) -> Infallible {
    let mut snapshot = subscription.snapshot();
    loop {
        seen.push((Instant::now(), snapshot.instances().len(), snapshot.known().count()));
        snapshot = subscription.changed().await.expect("the loop lives");
    }
}

/// Generous, for a busy machine; an agent without servers takes 7 to 14 s to accept a registration.
const BOUND: Duration = Duration::from_secs(30);
/// Far above what any request takes.
const SLOWEST: Duration = Duration::from_secs(2);
