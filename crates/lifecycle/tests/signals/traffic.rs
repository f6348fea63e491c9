//! Requests during the signals, over each protocol.

use std::{future::Future, net::Ipv4Addr, time::Duration};

use axum::{Router, http::Request, routing::post};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_sd_core::{BoxError, MemoryRegistry, RegistryConfig};
use tower_sd_http::{Client, HttpVersion};
use tower_sd_lifecycle::{
    Lifecycle, LifecycleError, Listener, Readiness, Report, ready_health, serve_axum, serve_tonic,
};
use tower_sd_testkit::loopback::own_address;
use tower_sd_tonic::Channel;

use crate::ALONE;

/// 50 lives, one for each moment, per protocol and delay of the registry; 10 of them a round.
#[tokio::test]
async fn no_request_fails_at_any_moment_of_two_signals() {
    let _alone = ALONE.lock().await;
    // From here on no signal ends the process.
    let _signals = signal(SignalKind::terminate()).expect("a runtime");
    let terminate = || kill_process(getpid(), Signal::TERM).expect("our own process");
    for (round, second) in (1..).zip([20, 500, 1_050, 1_250, 1_450].map(Duration::from_millis)) {
        let end = CancellationToken::new();
        let mut fleets = Vec::new();
        for protocol in PROTOCOLS {
            // Clients with a loss guard hold what leaves together, and send until it refuses. Not
            // over HTTP/1.1, where a request may cross the end of its idle connection.
            let is_guarded =
                round % 2 == 0 && !matches!(protocol, Protocol::Http(HttpVersion::Http1));
            for delay in [30, 300].map(Duration::from_millis) {
                fleets.push(Fleet::start(protocol, delay, is_guarded, &end).await);
            }
        }
        sleep(Duration::from_millis(200)).await;
        let senders: Vec<_> = fleets.iter().map(|fleet| fleet.send(&end)).collect();
        join_all(fleets.iter_mut().map(|fleet| fleet.begin_all(round))).await;
        terminate();
        sleep(second).await;
        let second_at = Instant::now();
        terminate();
        let mut hurried = false;
        for fleet in &mut fleets {
            hurried |= fleet.end().await;
        }
        sleep(Duration::from_millis(300)).await;
        end.cancel();
        for (fleet, senders) in fleets.iter().zip(senders) {
            let sent = senders.join_all().await;
            let n: usize = sent.iter().map(|it| it.n).sum();
            let case = format!("{round}, {:?}, {:?}", fleet.protocol, fleet.delay);
            assert!(n > 0, "{case}: no request");
            // A second order, later than a signal that is taken for the same one, cuts connections.
            let failed = sent.into_iter().flat_map(|it| it.failed);
            let failed = failed.filter(|(at, _)| !hurried || *at < second_at).collect::<Vec<_>>();
            assert!(failed.is_empty(), "{case}, {n} requests: {failed:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http(HttpVersion),
    Grpc,
}

/// One registry and its lives, all of one protocol.
struct Fleet {
    protocol: Protocol,
    registry: MemoryRegistry,
    delay: Duration,
    /// No other process gets the port of a life that has ended.
    address: Ipv4Addr,
    lives: JoinSet<Result<Report, LifecycleError>>,
}

impl Fleet {
    /// One server that no signal ends, so that a request fails by the others' fault only.
    async fn start(
        protocol: Protocol,
        delay: Duration,
        is_guarded: bool,
        end: &CancellationToken,
    ) -> Self {
        let registry = match is_guarded {
            true => MemoryRegistry::with_config(RegistryConfig::default()),
            false => MemoryRegistry::new(),
        };
        let (address, lives) = (own_address(), JoinSet::new());
        let mut fleet = Self { protocol, registry, delay, address, lives };
        fleet.begin(Lifecycle::new().ignore_signals().shutdown_on(end.clone())).await;
        fleet
    }

    /// Begins lives of many ages, from before their registration to after it.
    async fn begin_all(&mut self, round: u32) {
        self.registry.delay(self.delay);
        let between = self.delay / 3;
        // All fleets take the same time.
        sleep((Duration::from_millis(100) - between) * (50 + round) / 5).await;
        for _ in 0..10 {
            sleep(between).await;
            let warm = || async {
                sleep(Duration::from_millis(10)).await;
                Ok::<_, BoxError>(())
            };
            self.begin(Lifecycle::new().before_ready(warm)).await;
        }
        sleep(between * round / 5).await;
    }

    /// Waits for the end of all that a signal ends: whether the second one was an order of its own.
    async fn end(&mut self) -> bool {
        let mut hurried = false;
        while self.lives.len() > 1 {
            let ended = timeout(LONG, self.lives.join_next()).await;
            let ended = ended.expect("it ends").expect("it runs").expect("no panic");
            let report = ended.expect("no failure").to_string();
            assert!(report.starts_with("stopped by SIGTERM"), "{report}");
            hurried |= report.contains("second order");
        }
        assert_eq!(self.registry.entries("a").len(), 1, "the one that stays");
        hurried
    }

    async fn begin(&mut self, lifecycle: Lifecycle) {
        let readiness = Readiness::new();
        let lifecycle = lifecycle.readiness(&readiness).register(self.registry.clone(), "a");
        let listener = Listener::bind((self.address, 0)).await.expect("a free port");
        match self.protocol {
            Protocol::Http(_) => {
                let takes_time = || sleep(Duration::from_millis(5));
                let serve = serve_axum(Router::new().route("/", post(takes_time)));
                self.lives.spawn(lifecycle.run(listener, serve));
            }
            Protocol::Grpc => {
                let router = Server::builder().add_service(ready_health(&readiness, [""; 0]));
                self.lives.spawn(lifecycle.run(listener, serve_tonic(router)));
            }
        }
    }

    /// Sends a request at a time until `end`; the times and errors of those that failed.
    ///
    /// None is idempotent: what was sent is not repeated.
    fn send(&self, end: &CancellationToken) -> JoinSet<Sent> {
        let (instancer, mut senders) = (self.registry.instancer("a"), JoinSet::new());
        match self.protocol {
            Protocol::Http(version) => {
                let client = Client::builder(instancer).factory(|it| it.version(version));
                let client = client.ready_timeout(LONG).timeout(LONG).per_try_timeout(LONG);
                let client = client.build();
                let send = move || {
                    let (client, request) = (client.clone(), Request::post("http://a/"));
                    async move {
                        let response = client.request(request.body(String::new())?).await?;
                        response.into_body().collect().await?;
                        Ok(())
                    }
                };
                (0..2).for_each(|_| drop(senders.spawn(until(end.clone(), send.clone()))));
            }
            Protocol::Grpc => {
                let client =
                    HealthClient::new(Channel::builder(instancer).ready_timeout(LONG).build());
                let send = move || {
                    let mut client = client.clone();
                    async move {
                        client.check(HealthCheckRequest::default()).await?;
                        Ok(())
                    }
                };
                (0..2).for_each(|_| drop(senders.spawn(until(end.clone(), send.clone()))));
            }
        }
        senders
    }
}

/// The number of requests of one sender, and the failed ones.
#[derive(Debug, Default)]
struct Sent {
    n: usize,
    failed: Vec<(Instant, String)>,
}

async fn until<F>(end: CancellationToken, send: impl Fn() -> F) -> Sent
where
    F: Future<Output = Result<(), BoxError>>,
{
    let mut sent = Sent::default();
    while !end.is_cancelled() {
        if let Err(error) = send().await {
            sent.failed.push((Instant::now(), format!("{error:?}")));
        }
        sent.n += 1;
        sleep(Duration::from_millis(2)).await;
    }
    sent
}

const PROTOCOLS: [Protocol; 3] =
    [Protocol::Http(HttpVersion::Http1), Protocol::Http(HttpVersion::Http2), Protocol::Grpc];
/// A busy machine connects late.
const LONG: Duration = Duration::from_secs(60);
