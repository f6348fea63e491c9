//! More services than connections: three queries tell which of them to read again.
//!
//! An agent accepts 200 connections of one address, and a blocking query occupies one for its whole wait. Above
//! [`follow_alone`](crate::ConsulConfig::follow_alone) followed services of one client their own queries end, and three
//! long polls take their place: the checks of all services (their answer says which service changed), the catalogue's
//! services and its nodes (theirs does not: all are read again, a few at once). None of the three alone notices every
//! change; together they missed none of 31 kinds on two versions. Unlike a service's own query they are never answered
//! from an agent's view, so they fail when the servers are away.
//!
//! Where the agent speaks HTTP/2, which it does over TLS, queries need no connections, and 2 000 services are followed
//! alone.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    join, select,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tower_sd_core::{Backoff, Error, Result, Stop};

use super::{
    http::{Call, Kind, Wire},
    streams::Streams,
};

/// Who follows what, and how.
#[derive(Debug)]
pub(crate) struct Hub {
    max_alone: usize,
    followed: Mutex<Followed>,
    /// Whether the three queries run.
    shared: watch::Sender<bool>,
    n_followers: watch::Sender<usize>,
    /// What the three queries failed with last.
    failures: watch::Sender<[Option<Error>; 3]>,
    sweep: Notify,
}

#[derive(Debug, Default)]
struct Followed {
    services: HashMap<String, Service>,
    running: bool,
}

#[derive(Debug)]
struct Service {
    n_followers: usize,
    changes: watch::Sender<u64>,
}

/// One follower's place in the hub.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<Hub>,
    service: String,
    changes: watch::Receiver<u64>,
}

impl Hub {
    pub(crate) fn new(max_alone: usize) -> Self {
        Self {
            max_alone,
            followed: Mutex::default(),
            shared: watch::Sender::new(false),
            n_followers: watch::Sender::new(0),
            failures: watch::Sender::default(),
            sweep: Notify::new(),
        }
    }

    /// Takes part. True: the caller has to run the hub.
    pub(super) fn join(self: &Arc<Self>, service: &str, streams: &Streams) -> (Ticket, bool) {
        // Consul finds services without regard to case.
        let service = service.to_lowercase();
        let mut followed = self.followed();
        let entry = followed
            .services
            .entry(service.clone())
            .or_insert_with(|| Service { n_followers: 0, changes: watch::Sender::new(0) });
        entry.n_followers += 1;
        let changes = entry.changes.subscribe();
        self.n_followers.send_modify(|n| *n += 1);
        let max_alone = streams.max_queries(self.max_alone);
        let starts = *self.n_followers.borrow() > max_alone && !followed.running;
        followed.running |= starts;
        drop(followed);
        (Ticket { hub: Arc::clone(self), service, changes }, starts)
    }

    /// Runs the three queries while there are enough followers.
    pub(crate) async fn run(self: Arc<Self>, wire: Arc<Wire>, stop: Stop) {
        tracing::debug!(backend = crate::BACKEND, "followers share three queries");
        self.shared.send_replace(true);
        let mut n_followers = self.n_followers.subscribe();
        let mut protocol = wire.streams.changes();
        loop {
            let enough = || wire.streams.max_queries(self.max_alone) / 2;
            select! {
                biased;
                () = stop.requested() => return,
                _ = n_followers.wait_for(|n| *n <= enough()) => {}
                _ = protocol.changed() => {}
                () = self.watch(&wire) => {}
            }
            let mut followed = self.followed();
            if *self.n_followers.borrow() <= enough() {
                followed.running = false;
                self.shared.send_replace(false);
                return;
            }
        }
    }

    async fn watch(&self, wire: &Wire) {
        let mut checks = Checks::default();
        join!(
            self.poll(wire, 0, &["catalog", "services"], |_| self.sweep.notify_one()),
            self.poll(wire, 1, &["catalog", "nodes"], |_| self.sweep.notify_one()),
            self.poll(wire, 2, &["health", "state", "any"], |body| match checks.read(body) {
                Some(changed) => changed.iter().for_each(|service| self.changed(service)),
                None => self.sweep.notify_one(),
            }),
            self.sweep_when_asked(),
        );
    }

    /// One of the three queries, for ever.
    async fn poll(
        &self,
        wire: &Wire,
        n: usize,
        path: &[&str],
        mut changed: impl FnMut(&[u8]) + Send,
    ) {
        let mut backoff = Backoff::default();
        let mut index = None;
        loop {
            match ask(wire, path, index).await {
                Ok((found, body)) => {
                    self.failures.send_if_modified(|failures| failures[n].take().is_some());
                    if found.is_none() || found != index {
                        changed(&body);
                    }
                    sleep(pause_after(body.len())).await;
                    // One that went back is not waited for.
                    index = found
                        .filter(|found| *found > 0 && index.is_none_or(|index| *found >= index));
                    if found.is_none() {
                        sleep(POLL_WITHOUT_INDEX).await;
                    }
                }
                Err(error) => {
                    index = None;
                    self.failures.send_modify(|failures| failures[n] = Some(error));
                    sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    async fn sweep_when_asked(&self) {
        loop {
            // A change that woke nobody is found by this.
            let _or_in_time = timeout(SWEEP_EVERY, self.sweep.notified()).await;
            for service in self.followed().services.values() {
                service.changes.send_modify(|n| *n += 1);
            }
            sleep(BETWEEN_SWEEPS).await;
        }
    }

    fn changed(&self, service: &str) {
        if let Some(service) = self.followed().services.get(service) {
            service.changes.send_modify(|n| *n += 1);
        }
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether to wait for [`change`](Self::change), instead of by a query of its own.
    pub(crate) fn is_shared(&self) -> bool {
        *self.hub.shared.borrow()
    }

    /// [`is_shared`](Self::is_shared), to wait for.
    pub(crate) fn shared(&self) -> watch::Receiver<bool> {
        self.hub.shared.subscribe()
    }

    /// A read starts: changes from here on are news.
    pub(crate) fn starts_to_read(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits until the service may have changed since the last read started.
    ///
    /// # Errors
    ///
    /// One of the three queries fails, so nobody knows.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn change(&mut self) -> Result<()> {
        let mut failures = self.hub.failures.subscribe();
        let mut shared = self.hub.shared.subscribe();
        let failure = select! {
            biased;
            _ = self.changes.changed() => return Ok(()),
            failures = failures.wait_for(|failures| failures.iter().any(Option::is_some)) => {
                failures.ok().and_then(|failures| failures.iter().flatten().next().cloned())
            }
            // It goes on with a query of its own.
            _ = shared.wait_for(|shared| !shared) => return Ok(()),
        };
        failure.map_or(Ok(()), Err)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut followed = self.hub.followed();
        if let Some(service) = followed.services.get_mut(&self.service) {
            service.n_followers -= 1;
            if service.n_followers == 0 {
                followed.services.remove(&self.service);
            }
        }
        drop(followed);
        self.hub.n_followers.send_modify(|n| *n -= 1);
    }
}

async fn ask(wire: &Wire, path: &[&str], index: Option<u64>) -> Result<(Option<u64>, Vec<u8>)> {
    let mut call = Call::get("follow", path);
    if let Some(index) = index {
        call.query.push(("index", index.to_string()));
        call.query.push(("wait", format!("{}ms", WAIT.as_millis())));
    }
    call.timeout = WAIT + WAIT / 16 + super::HOLD;
    call.kind = Kind::Blocking;
    let answer = wire.send(call).await?;
    super::succeed(&answer)?;
    Ok((super::Meta::of(&answer.headers).index, answer.body))
}

/// What the checks said last.
#[derive(Debug, Default)]
struct Checks {
    hasher: RandomState,
    /// By service, in lower case; the nodes' own under the empty name.
    known: Option<HashMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(borrow)]
    node: std::borrow::Cow<'a, str>,
    #[serde(borrow, rename = "CheckID")]
    id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    status: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    service_name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, rename = "ServiceID")]
    service_id: std::borrow::Cow<'a, str>,
}

impl Checks {
    /// The services whose checks differ from those of the last time; `None`: any may be different.
    fn read(&mut self, body: &[u8]) -> Option<Vec<String>> {
        let checks: Vec<Check<'_>> = serde_json::from_slice(body).ok()?;
        let mut found: HashMap<String, u64> = HashMap::new();
        for check in &checks {
            let Check { node, id, status, service_name, service_id } = check;
            let hash = self.hasher.hash_one((node, id, status, service_id));
            // A sum does not depend on the order, which changes.
            let sum = found.entry(service_name.to_lowercase()).or_default();
            *sum = sum.wrapping_add(hash);
        }
        let known = self.known.replace(found);
        let (known, found) = (known?, self.known.as_ref()?);
        if known.get("") != found.get("") {
            return None;
        }
        let changed = |name: &&String| known.get(*name) != found.get(*name);
        let gone = known.keys().filter(|name| !found.contains_key(*name));
        Some(found.keys().filter(changed).chain(gone).cloned().collect())
    }
}

/// An answer of 400 KB, that of 1 000 services, is asked for at most seven times a second.
fn pause_after(size: usize) -> Duration {
    MIN_PAUSE + PAUSE_PER_KB * u32::try_from(size / 1024).unwrap_or(u32::MAX)
}

/// Shorter than a follower's own: an answer that is lost is missed by all.
const WAIT: Duration = Duration::from_secs(30);
const MIN_PAUSE: Duration = Duration::from_millis(20);
const PAUSE_PER_KB: Duration = Duration::from_micros(300);
/// A sweep of 1 000 services takes an agent 70 to 250 ms.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const POLL_WITHOUT_INDEX: Duration = Duration::from_secs(2);
