use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use tower_sd_core::{InstanceId, Instancer, Registrar, Subscription};

/// A registry under test, and the hands that disturb it.
///
/// # Contract
///
/// - Each [`client`](Self::client) must be new, with connections of its own. Each case runs on a
///   runtime of its own.
/// - Clients, registrars and instancers must not need the registry: they are made while it is away,
///   too.
/// - [`interrupt`](Self::interrupt), [`freeze`](Self::freeze) and [`resume`](Self::resume) may be
///   called in any order and any number of times; they return when they have taken effect.
/// - A bound is a promise of the fixture, on the clock that it names.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// A new client of the registry, whose registrars have the [`ttl`](Self::ttl) and whose
    /// instancers have the default loss guard.
    fn client(&self) -> TestClient;

    /// A new client for a thousand registrations: one with a TTL of a minute where each renewal
    /// costs the registry something. Defaults to [`client`](Self::client).
    fn client_of_many(&self) -> TestClient {
        self.client()
    }

    /// The reads that the registry has got so far, where they are counted. Defaults to `None`.
    async fn n_reads(&self) -> Option<u64> {
        None
    }

    /// Takes the registry away from all clients: requests fail soon. Entries live on or end with
    /// their TTL, as they would in an outage.
    async fn interrupt(&self);

    /// Makes the registry hang: it accepts connections and calls and answers none of them, as one
    /// that got a STOP or is behind a broken cable. Defaults to [`interrupt`](Self::interrupt), for
    /// a registry that cannot hang.
    async fn freeze(&self) {
        self.interrupt().await;
    }

    /// Brings the registry back. The runner calls it after every case.
    async fn resume(&self);

    /// Removes an entry behind its owner's back: a lease revoked, a key deleted by an operator.
    /// Returns when the registry has confirmed that the entry is gone.
    async fn expire(&self, service: &str, id: &InstanceId);

    /// The time after which the registry drops an entry that is not renewed.
    fn ttl(&self) -> Duration;

    /// Bytes of metadata that no registration can have. Defaults to 1.7 million, more than a value
    /// of etcd may have, and less than gRPC transports; a development build encodes as much for
    /// longer than a short TTL on a busy machine.
    fn refused_metadata(&self) -> usize {
        1_700_000
    }

    /// How long a lost entry may take to be back while the registry is well. Defaults to 2 s: the
    /// registry reports the loss.
    fn reannounce_bound(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// How long a change may take to be seen by a subscriber. Defaults to 5 s, generous for a busy
    /// machine.
    fn visible_bound(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How long a set may stay fresh while the registry hangs. Defaults to 2 min and some: the
    /// following loop's `max_silence`.
    fn silence_bound(&self) -> Duration {
        Duration::from_secs(125)
    }

    /// The end of the registry's log, for a case that failed. Defaults to nothing.
    fn evidence(&self) -> String {
        String::new()
    }

    /// The clock that its cases run on. Defaults to real time.
    fn clock(&self) -> Clock {
        Clock::Real
    }

    /// Cases that cannot hold here, each with its reason: the runner shows them as ignored.
    /// `("case", "reason")`, or `("1.8.7/case", "reason")` for one version of the server. A name
    /// that is no case is an error.
    fn exceptions() -> &'static [(&'static str, &'static str)]
    where
        Self: Sized,
    {
        &[]
    }
}

/// What a case's timers run on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two clocks that tokio has")]
pub enum Clock {
    /// Real time: for whatever has a socket.
    Real,
    /// tokio's paused clock, which jumps when nothing else can happen: for registries inside the
    /// process.
    Paused,
}

/// A client of a registry, of which registrars and instancers are made.
///
/// They share its connections.
pub struct TestClient {
    registrar: Box<dyn Fn() -> Arc<dyn Registrar> + Send + Sync>,
    instancer: Box<dyn Fn(&str) -> TestInstancer + Send + Sync>,
}

/// An instancer, and how it is closed.
///
/// The mutex is for `Sync` alone: a future is `Send` only.
pub struct TestInstancer {
    instancer: Arc<dyn Instancer>,
    close: Mutex<BoxFuture<'static, ()>>,
}

impl TestClient {
    /// Creates a client of two functions.
    ///
    /// They make a registrar, and an instancer of a service.
    pub fn new(
        registrar: impl Fn() -> Arc<dyn Registrar> + Send + Sync + 'static,
        instancer: impl Fn(&str) -> TestInstancer + Send + Sync + 'static,
    ) -> Self {
        Self { registrar: Box::new(registrar), instancer: Box::new(instancer) }
    }

    /// Returns a new registrar of this client.
    pub fn registrar(&self) -> Arc<dyn Registrar> {
        (self.registrar)()
    }

    /// Returns a new instancer of `service`.
    pub fn instancer(&self, service: &str) -> TestInstancer {
        (self.instancer)(service)
    }
}

impl TestInstancer {
    /// Sets the future that [`close`](Self::close) awaits.
    ///
    /// It is not polled before, and is dropped with the instancer otherwise.
    pub fn new(
        instancer: impl Instancer,
        close: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { instancer: Arc::new(instancer), close: Mutex::new(close.boxed()) }
    }

    /// Closes it and drops it.
    pub async fn close(self) {
        let close = self.close.into_inner();
        close.unwrap_or_else(PoisonError::into_inner).await;
    }
}

impl Instancer for TestInstancer {
    fn subscribe(&self) -> Subscription {
        self.instancer.subscribe()
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").finish_non_exhaustive()
    }
}

impl fmt::Debug for TestInstancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInstancer").finish_non_exhaustive()
    }
}
