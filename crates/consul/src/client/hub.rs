//! More services than connections.
//!
//! Shared queries report which of the services to read again.
//!
//! An agent accepts 200 connections of one address, and a blocking query occupies one for its whole
//! wait. Above [`max_blocking_queries`](crate::ConsulConfig::max_blocking_queries) followed
//! services of one client their own queries end, and long polls take their place: the checks that
//! do not pass, of the followed services and of the nodes (the answer shows which service changed),
//! and the catalogue's services and nodes (theirs does not: all are read again, a few at a time).
//! None of them alone notices every change. Unlike a service's own query they are never answered
//! from an agent's view, so they fail when the servers are away.
//!
//! Where the agent uses HTTP/2, which it does over TLS, queries need no connections, and 2 000
//! services are followed alone.

mod checks;
mod polls;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    select,
    sync::{Notify, watch},
};
use tower_sd_core::{Attached, Error, Hub, Result, TaskGroup};

use super::http::Wire;
use crate::BACKEND;

/// The followers of one client, and the task that polls for them when they are many.
#[derive(Debug)]
pub(crate) struct Sharing {
    followers: Arc<Followers>,
    hub: Hub<Arc<Board>>,
}

#[derive(Debug)]
struct Followers {
    wire: Arc<Wire>,
    followed: Mutex<Followed>,
    /// Whether followers wait for the shared polls.
    shared: watch::Sender<bool>,
    /// Changes with each service that is followed or no longer followed.
    names: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Followed {
    n: usize,
    services: HashMap<String, Service>,
}

#[derive(Debug)]
struct Service {
    n_followers: usize,
    changes: watch::Sender<u64>,
}

/// The results of one run of the shared polls.
#[derive(Debug, Default)]
struct Board {
    /// The last failure of each poll that fails.
    failures: watch::Sender<BTreeMap<usize, Error>>,
    sweep: Notify,
}

/// One follower's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    sharing: Arc<Sharing>,
    /// `None` for one that only counts: of a key.
    service: Option<String>,
    changes: watch::Receiver<u64>,
    attached: Option<Attached<Arc<Board>>>,
}

impl Sharing {
    pub(super) fn new(wire: Arc<Wire>, tasks: TaskGroup) -> Arc<Self> {
        let followers = Arc::new(Followers {
            wire,
            followed: Mutex::default(),
            shared: watch::Sender::new(false),
            names: watch::Sender::new(0),
        });
        let polled = Arc::clone(&followers);
        let hub = Hub::new(BACKEND, tasks, move || {
            let board = Arc::new(Board::default());
            (Arc::clone(&board), polls::run(Arc::clone(&polled), board))
        });
        Arc::new(Self { followers, hub })
    }

    /// Takes part, as a follower of a service or of something else.
    pub(super) fn join(self: &Arc<Self>, service: Option<&str>) -> Ticket {
        // Consul finds services without regard to case.
        let service = service.map(str::to_lowercase);
        let mut followed = self.followers.followed();
        followed.n += 1;
        let mut changes = None;
        if let Some(service) = &service {
            let entry = followed
                .services
                .entry(service.clone())
                .or_insert_with(|| Service { n_followers: 0, changes: watch::Sender::new(0) });
            entry.n_followers += 1;
            changes = Some(entry.changes.subscribe());
            self.followers.names.send_modify(|n| *n += 1);
        }
        drop(followed);
        self.followers.decide();
        let changes = changes.unwrap_or_else(|| watch::Sender::new(0).subscribe());
        Ticket { sharing: Arc::clone(self), service, changes, attached: None }
    }
}

impl Followers {
    /// Begins to share above the bound, and ends below half of it.
    fn decide(&self) {
        let max = self.wire.streams.max_queries(self.wire.config().max_blocking_queries);
        let n = self.followed().n;
        self.shared.send_if_modified(|shared| {
            let decided = n > if *shared { max / 2 } else { max };
            std::mem::replace(shared, decided) != decided
        });
    }

    fn changed(&self, service: &str) {
        if let Some(service) = self.followed().services.get(service) {
            service.changes.send_modify(|n| *n += 1);
        }
    }

    fn all_changed(&self) {
        for service in self.followed().services.values() {
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
        *self.sharing.followers.shared.borrow()
    }

    /// Runs a blocking query of the follower's own; `None` when too many wait so.
    ///
    /// # Cancel safety
    ///
    /// As `query`.
    pub(crate) async fn alone<T>(&self, query: impl Future<Output = T> + Send) -> Option<T> {
        let mut shared = self.sharing.followers.shared.subscribe();
        let answer = select! {
            biased;
            _ = shared.wait_for(|shared| *shared) => None,
            answer = query => Some(answer),
        };
        // The answer shows which protocol the agent uses.
        self.sharing.followers.decide();
        answer
    }

    /// A read starts: changes from here on are news.
    pub(crate) fn starts_to_read(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits until the service may have changed since the last read started.
    ///
    /// # Errors
    ///
    /// One of the shared polls fails, or their task has ended: a change would be missed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn change(&mut self) -> Result<()> {
        let Self { sharing, changes, attached, .. } = self;
        if attached.as_ref().is_none_or(Attached::has_ended) {
            *attached = Some(sharing.hub.attach());
        }
        let Some(place) = attached else {
            return Ok(());
        };
        let mut failures = place.handle().failures.subscribe();
        let mut shared = sharing.followers.shared.subscribe();
        select! {
            biased;
            _ = changes.changed() => Ok(()),
            failures = failures.wait_for(|failures| !failures.is_empty()) => {
                let failure = failures.ok().and_then(|failures| failures.values().next().cloned());
                failure.map_or(Ok(()), |failure| Err(of_shared(failure)))
            }
            error = place.ended() => Err(error),
            // It goes on with a query of its own.
            _ = shared.wait_for(|shared| !shared) => {
                *attached = None;
                Ok(())
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let followers = &self.sharing.followers;
        let mut followed = followers.followed();
        followed.n -= 1;
        if let Some(name) = &self.service
            && let Some(service) = followed.services.get_mut(name)
        {
            service.n_followers -= 1;
            if service.n_followers == 0 {
                followed.services.remove(name);
                followers.names.send_modify(|n| *n += 1);
            }
        }
        drop(followed);
        followers.decide();
    }
}

/// The error of a shared query, as that of one of its followers.
///
/// The pause that a server requests is that query's alone: the follower's own reads may succeed.
fn of_shared(failure: Error) -> Error {
    let error = Error::new(failure.kind(), BACKEND, "follow").with_message("a shared query fails");
    let error = if failure.is_transient() { error.transient() } else { error.permanent() };
    error.with_source(failure)
}
