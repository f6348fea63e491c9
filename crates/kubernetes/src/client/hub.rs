//! More services than are watched one by one.
//!
//! One task watches the namespace for all followers of a client.

mod board;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{select, sync::watch};
use tower_sd_core::{Attached, ErrorKind, Hub, Result, TaskGroup};

use self::board::{Board, Shared};
use super::{
    groups::View,
    slices::{Slices, Update},
    wire::Wire,
};
use crate::BACKEND;

/// The followers of one client, and the task that watches for them when they are many.
#[derive(Debug)]
pub(super) struct Sharing {
    followers: Arc<Followers>,
    hub: Hub<Arc<Board>>,
}

#[derive(Debug)]
struct Followers {
    followed: Mutex<Followed>,
    /// Whether followers share the watch.
    shared: watch::Sender<bool>,
    max_single: usize,
}

#[derive(Debug, Default)]
struct Followed {
    n: usize,
    services: HashMap<String, usize>,
}

/// One follower's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    sharing: Arc<Sharing>,
    service: String,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    task: Attached<Arc<Board>>,
    shared: watch::Receiver<Shared>,
    /// The last report that the follower has taken.
    n_seen: u64,
    /// The trouble that the follower was given last, unless it is over.
    reported: Option<ErrorKind>,
}

impl Sharing {
    pub(super) fn new(wire: &Arc<Wire>) -> Arc<Self> {
        let followers = Arc::new(Followers {
            followed: Mutex::default(),
            shared: watch::Sender::new(false),
            max_single: wire.config.max_single_watches,
        });
        let (wire, watched) = (Arc::clone(wire), Arc::clone(&followers));
        let hub = Hub::new(BACKEND, TaskGroup::new(), move || {
            let board = Arc::new(Board::default());
            let wanted = Arc::clone(&watched);
            let wanted = Box::new(move |service: &str| wanted.has(service));
            let slices = Slices::of_namespace(Arc::clone(&wire), wanted);
            (Arc::clone(&board), task::run(slices, board))
        });
        Arc::new(Self { followers, hub })
    }

    pub(super) fn join(self: &Arc<Self>, service: &str) -> Ticket {
        let mut followed = self.followers.lock();
        followed.n += 1;
        *followed.services.entry(service.to_owned()).or_default() += 1;
        drop(followed);
        self.followers.decide();
        Ticket { sharing: Arc::clone(self), service: service.to_owned(), place: None }
    }
}

impl Followers {
    /// Begins to share above the bound, and ends below half of it.
    fn decide(&self) {
        let n = self.lock().n;
        self.shared.send_if_modified(|shared| {
            let bound = if *shared { self.max_single / 2 } else { self.max_single };
            std::mem::replace(shared, n > bound) != (n > bound)
        });
    }

    fn has(&self, service: &str) -> bool {
        self.lock().services.contains_key(service)
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether the followers share one watch.
    pub(crate) fn is_shared(&self) -> bool {
        *self.sharing.followers.shared.borrow()
    }

    /// Waits until [`is_shared`](Self::is_shared) has this value; borrows nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) fn sharing(&self, value: bool) -> impl Future<Output = ()> + Send + use<> {
        let mut shared = self.sharing.followers.shared.subscribe();
        async move {
            // The sender is in self.
            shared.wait_for(|shared| *shared == value).await.ok();
        }
    }

    /// Leaves the shared watch.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }

    /// What the task has now, if it has listed this service and does not fail.
    pub(crate) fn known(&mut self) -> Option<View> {
        let place = self.place();
        let shared = place.shared.borrow();
        let known = (shared.answered > 0 && shared.error.is_none()).then(|| shared.slices.clone());
        place.n_seen = shared.n;
        if known.is_some() {
            place.reported = None;
        }
        known
    }

    /// Waits for a list that begins later than now.
    ///
    /// # Errors
    ///
    /// That of the list, or of the task's end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn listed(&mut self) -> Result<View> {
        let place = self.place();
        place.n_seen = place.shared.borrow().n;
        let request = place.task.handle().request();
        loop {
            let shared = place.next().await?;
            if let Some(error) = shared.error {
                return Err(error);
            }
            place.reported = None;
            if shared.answered >= request {
                return Ok(shared.slices);
            }
        }
    }

    /// Waits for the next report that follows a list of the service.
    ///
    /// Trouble is reported once, also when every attempt of the task repeats it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self, known: &View) -> Update {
        loop {
            let place = self.place();
            let shared = match place.next().await {
                Ok(shared) => shared,
                Err(ended) => return Update::Trouble(ended),
            };
            let reported = place.reported.take();
            match shared.error {
                Some(error) => {
                    place.reported = Some(error.kind());
                    if place.reported != reported {
                        return Update::Trouble(error);
                    }
                }
                // Of a task that was started anew, and has not listed yet.
                None if shared.answered == 0 => {}
                None if shared.slices.is(known) => return Update::Alive,
                None => return Update::Changed,
            }
        }
    }

    /// The slices of the last report, of a task that may have ended since.
    pub(crate) fn latest(&self) -> View {
        self.place.as_ref().map(|place| place.shared.borrow().slices.clone()).unwrap_or_default()
    }

    /// The place at the running task.
    fn place(&mut self) -> &mut Place {
        let place = self.place.take().filter(|place| !place.task.has_ended());
        let place = place.unwrap_or_else(|| {
            let task = self.sharing.hub.attach();
            let shared = task.handle().subscribe(&self.service);
            Place { task, shared, n_seen: 0, reported: None }
        });
        self.place.insert(place)
    }
}

impl Place {
    /// Waits for the next report, which may be an error.
    async fn next(&mut self) -> Result<Shared> {
        let Self { task, shared, n_seen, .. } = self;
        let shared = select! {
            biased;
            shared = shared.wait_for(|shared| shared.n != *n_seen) => shared.map(|it| it.clone()),
            error = task.ended() => return Err(error),
        };
        // The task has dropped its board.
        let Ok(shared) = shared else { return Err(task.ended().await) };
        *n_seen = shared.n;
        Ok(shared)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let followers = &self.sharing.followers;
        let mut followed = followers.lock();
        followed.n -= 1;
        if let Some(n) = followed.services.get_mut(&self.service) {
            *n -= 1;
            if *n == 0 {
                followed.services.remove(&self.service);
            }
        }
        drop(followed);
        followers.decide();
    }
}
